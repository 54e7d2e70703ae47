"""``--query``: SQL over a run's files, and over nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.runs import everything, rows
from run_builder import build_run, record_again

from lineage.conftest import Made
from mathse.__main__ import main
from mathse.commands.lineage.sql import MAX_PRINTED_ROWS, TABLE_NAMES, run_query
from mathse.errors import DataError
from mathse.runs.reader import read_run

FILES = {"paths": "paths", "held_paths": "held_paths", "train": "train", "verdicts": "verdicts",
         "incorrect": "incorrect", "feedback": "feedback", "orm_held": "orm_held", "reflections": "reflections",
         "predictions": "predictions", "sources": "sources"}  # fmt: skip


def ask(run: Path, sql: str) -> list[dict[str, object]]:
    return list(run_query(read_run(run), sql))


@pytest.mark.parametrize("table", FILES)
def test_a_table_has_every_row_of_its_files_at_its_line(run_of: Made, table: str) -> None:
    run = run_of("embedded")
    counted = {(row["stage"], row["n"], row["last"]) for row in ask(
        run, f"SELECT stage, count(*) AS n, max(line) AS last FROM {table} GROUP BY stage")}  # fmt: skip
    files = [m.parent / f"{FILES[table]}.jsonl" for m in run.rglob("stage.json")]
    expected = {(f.parent.relative_to(run).as_posix(), n, n) for f in files if f.is_file() and (n := len(rows(f)))}
    assert expected and counted == expected


def test_rows_keep_their_values_and_their_line(run_of: Made) -> None:
    run = run_of("killed")
    for found, path in zip(ask(run, "SELECT * FROM train WHERE stage = 'final' ORDER BY line"),
                           rows(run / "final" / "train.jsonl"), strict=True):  # fmt: skip
        made = path["lineage"]
        assert (found["id"], found["problem_id"], found["text"]) == (path["id"], path["problem_id"], path["text"])
        assert [found[k] for k in ("origin", "made_in", "model", "parent", "seed", "prompt")] == [
            made[k] for k in ("origin", "stage", "model", "parent", "seed", "prompt")]  # fmt: skip


def test_tables_join(run_of: Made) -> None:
    run = run_of("killed")
    sql = "SELECT r.id FROM reflections r JOIN train t ON t.id = r.id AND t.stage = 'final' ORDER BY t.line"
    train = rows(run / "final" / "train.jsonl")
    assert [row["id"] for row in ask(run, sql)] == [r["id"] for r in train if r["lineage"]["origin"] == "reflection"]


def test_stages_hold_the_figures_of_the_summary(run_of: Made) -> None:
    run = run_of("embedded")
    found = {row["stage"]: row for row in ask(run, "SELECT * FROM stages")}
    for entry in read_run(run).entries:
        row = found[entry["stage"]]
        assert [row[key] for key in ("accuracy", "n", "train_rows", "accepted", "acceptance_precision")] == [
            entry[key] for key in ("accuracy", "n", "train_rows", "accepted", "acceptance_precision")]  # fmt: skip


def test_alone_it_lists_each_table_with_its_columns(run_of: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("embedded")
    capsys.readouterr()
    assert main(["lineage", str(run), "--query"]) == 0
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()}
    assert listed.keys() == set(TABLE_NAMES)
    for table, columns in listed.items():
        assert ", ".join(row["column_name"] for row in ask(run, f"DESCRIBE {table}")) == columns  # type: ignore[misc]
    assert {row["name"] for row in ask(run, "SHOW TABLES")} == set(TABLE_NAMES)


def test_words_are_a_table_and_json_is_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = build_run(tmp_path / "run", size=MAX_PRINTED_ROWS)
    sql = "SELECT id, correct FROM predictions WHERE stage IN ('base', 'final')"
    assert main(["lineage", str(run), "--query", sql, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line).keys() for line in lines] == [{"id", "correct"}] * (2 * MAX_PRINTED_ROWS)
    assert main(["lineage", str(run), "--query", sql]) == 0
    words = capsys.readouterr().out.splitlines()
    assert words[0].split() == ["id", "correct"] and len(words) == MAX_PRINTED_ROWS + 2
    assert words[-1] == f"... and {MAX_PRINTED_ROWS} more rows; --json writes them all"


def test_tables_join_files_of_the_user_s_own(run_of: Made, tmp_path: Path) -> None:
    run = run_of("embedded")
    (tmp_path / "kept.csv").write_text("id\n" + ask(run, "SELECT id FROM train LIMIT 1")[0]["id"] + "\n")
    assert len(ask(run, f"SELECT DISTINCT id FROM train JOIN '{tmp_path}/kept.csv' USING (id)")) == 1


def test_a_variable_of_the_program_is_no_table(run_of: Made) -> None:
    with pytest.raises(DataError):
        ask(run_of("embedded"), "SELECT * FROM run")


def test_a_query_changes_no_file_of_the_run(run_of: Made, tmp_path: Path) -> None:
    run = run_of("embedded")
    before = everything(run)
    for sql in ("INSERT INTO stages (stage) VALUES ('x')", "DROP VIEW train", "CREATE TABLE mine AS SELECT 1"):
        ask(run, sql)
    assert everything(run) == before and ask(run, "SELECT * FROM train")


@pytest.mark.parametrize("sql", ["selct", "SELECT colour FROM train", "SELECT * FROM trains", "SELECT 1/'a'", "", ";"])
def test_an_error_in_sql_is_one_line_that_names_the_tables(
    run_of: Made, sql: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["lineage", str(run_of("embedded")), "--query", sql]) == 1
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "train" in said.err


def test_a_damaged_row_is_named_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = build_run(tmp_path / "run", size=12)
    with open(run / "final" / "train.jsonl", "a", encoding="utf-8") as file:
        file.write('{"id": "torn')
    record_again(run)
    for asked in (["--all", "--json"], ["--query", "SELECT * FROM train"]):
        assert main(["lineage", str(run), *asked]) == 1
        error = capsys.readouterr().err
        assert "final/train.jsonl" in error.splitlines()[-1] and "/tmp" not in error


@pytest.mark.parametrize("asked", [["--all"], ["--query"], ["--query", "SELECT 1"]])
def test_without_duckdb_tables_are_refused_with_the_remedy_and_a_story_is_told(
    run_of: Made, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("embedded")
    monkeypatch.setattr("mathse.config.extras.installed", lambda extra: False)
    assert main(["lineage", str(run), *asked]) == 1
    assert "needs duckdb, which is not installed; pip install '.[lineage]'" in capsys.readouterr().err
    assert main(["lineage", str(run), rows(run / "final" / "train.jsonl")[0]["id"]]) == 0


def test_what_needs_no_table_loads_no_duckdb() -> None:
    script = "import sys, mathse.commands.lineage, mathse.commands.export; sys.exit('duckdb' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
