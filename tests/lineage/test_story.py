"""``python -m mathse lineage RUN ID``: one row's story, in words and as JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import ROOT, everything, rows
from run_builder import build_run, record_again
from small import picture

from lineage.conftest import Made
from lineage.made import own, own_problems
from mathse.__main__ import main
from mathse.runs.store import read_json, sha256_file, write_json, write_jsonl


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["lineage", *arguments]) == code
    done = capsys.readouterr()
    return done.err if code else done.out


def rewrite_of(run: Path) -> dict[str, Any]:
    return next(row for row in rows(run / "final" / "train.jsonl") if row["lineage"]["parent"])


def test_a_rewrite_s_story_holds_all_that_led_to_it(run_of: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("killed")
    row = rewrite_of(run)
    text = said(capsys, str(run), row["id"])
    for stage in ("round_01", "reflection"):
        assert read_json(run / stage / "stage.json")["identity"] in text
    for checkpoint in ("distill", "final"):
        assert f"{checkpoint}/checkpoint" in text
        assert sha256_file(run / checkpoint / "checkpoint" / "model.safetensors") in text
    source = next(r for r in rows(run / "base" / "sources.jsonl") if r["problem_id"] == row["problem_id"])
    assert f"{source['file']}:{source['line']}" in text
    assert all(digest in text for digest in source["image_sha256"])
    draft = next(r for r in rows(run / "round_01" / "paths.jsonl") if r["id"] == row["lineage"]["parent"])
    assert f"seed {draft['lineage']['seed']}, prompt {draft['lineage']['prompt']}" in text
    assert row["lineage"]["prompt"] in text and "round 1" in text


def test_a_row_is_found_by_its_place_too(run_of: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("killed")
    for number, row in enumerate(rows(run / "final" / "train.jsonl"), start=1):
        story = json.loads(said(capsys, str(run), f"final/train.jsonl:{number}", "--json"))
        assert story["id"] == row["id"] and story["steps"][-1]["text"] == row["text"]


def test_a_problem_s_story_has_every_path_for_it(run_of: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("embedded")
    problem = rewrite_of(run)["problem_id"]
    written = [row["id"] for stage in ("distill", "round_01", "round_02") for row in rows(run / stage / "paths.jsonl")
               if row["problem_id"] == problem]  # fmt: skip
    rewritten = [row["revised"]["id"] for file in sorted(run.glob("round_*/reflection/reflections.jsonl"))
                 for row in rows(file) if row["draft"]["problem_id"] == problem]  # fmt: skip
    story = json.loads(said(capsys, str(run), problem, "--json"))
    assert {step["path_id"] for step in story["steps"]} == {*written, *rewritten} and rewritten


def test_an_unknown_id_is_one_line_with_the_nearest_ones(run_of: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("killed")
    row = rewrite_of(run)["id"]
    error = said(capsys, str(run), row.replace("reflection", "reflecton"), code=1)
    assert len(error.splitlines()) == 1 and f"did you mean {row!r}" in error
    assert "no path or problem 'final/nothing.jsonl:1'" in said(capsys, str(run), "final/nothing.jsonl:1", code=1)


@pytest.mark.parametrize("number", ["0", "9999", "999999999999999"])
def test_a_line_that_the_file_does_not_have_is_told_with_how_many_there_are(
    run_of: Made, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("killed")
    error = said(capsys, str(run), f"final/train.jsonl:{number}", code=1)
    assert f"the file has {len(rows(run / 'final' / 'train.jsonl'))} rows" in error


def test_a_number_too_long_for_a_line_is_an_id_like_any_other(run_of: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no path or problem" in said(capsys, str(run_of("killed")), f"final/train.jsonl:{'9' * 5000}", code=1)


def test_a_source_that_changed_since_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from e2e.runs import run

    problems = own_problems(tmp_path / "data", count=24)
    short = ("evolution.rounds=0", "evolution.reflect.when=never")
    run(tmp_path / "run", *own(problems), *short)
    shown = next(r for r in rows(tmp_path / "run" / "base" / "sources.jsonl")
                 if r["images"] == ["0.png"] and r["split"] == "seed")  # fmt: skip
    picture(56, 28, seed=99).save(tmp_path / "data" / "0.png")
    text = said(capsys, str(tmp_path / "run"), shown["problem_id"])
    assert f"sha256 {shown['image_sha256'][0]} in the run; changed since" in text
    assert f"sha256 {sha256_file(tmp_path / 'data' / '0.png')} now" in text
    write_jsonl(problems, [row for row in rows(problems) if row["id"] != shown["problem_id"]])
    text = said(capsys, str(tmp_path / "run"), shown["problem_id"])
    assert "the source has changed since the run" in text and "the problem cannot be read now" in text
    shutil.rmtree(tmp_path / "data")
    text = said(capsys, str(tmp_path / "run"), shown["problem_id"])
    assert "the source is gone, or has moved" in text and f"{shown['file']}:{shown['line']}" in text
    assert shown["image_sha256"][0] in said(capsys, str(tmp_path / "run"), "--all", "--json")


def test_an_unfinished_run_is_told_as_far_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = build_run(tmp_path / "run", size=12, stop_after="round_01")
    capsys.readouterr()
    assert main(["lineage", str(run), "--all", "--json"]) == 0
    done = capsys.readouterr()
    found = [json.loads(line)["path_id"] for line in done.out.splitlines()]
    assert found == [row["id"] for row in rows(run / "round_01" / "train.jsonl")]
    assert "no final stage, or not yet; these are the rows of round_01/train.jsonl" in done.err


def test_a_run_without_a_finished_stage_or_training_rows_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build_run(tmp_path / "run", size=12, stop_after="orm")
    (run / "base" / "train.jsonl").unlink()
    record_again(run)
    assert "no finished stage has a train.jsonl" in said(capsys, str(run), "--all", "--json", code=1)
    write_json(tmp_path / "new" / "run.json", read_json(run / "run.json"))
    assert "no stage is finished yet" in said(capsys, str(tmp_path / "new"), "--all", code=1)


def test_half_characters_from_a_server_are_written_as_json_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build_run(tmp_path / "run", size=12)
    train = rows(run / "final" / "train.jsonl")
    write_jsonl(run / "final" / "train.jsonl", [{**train[0], "text": "half \ud83d, whole \U0001f600"}, *train[1:]])
    record_again(run)
    assert len(said(capsys, str(run), "--all", "--json").splitlines()) == len(train)
    (row,) = said(capsys, str(run), "--query", "SELECT text FROM train WHERE stage = 'final' AND line = 1", "--json"
                  ).splitlines()  # fmt: skip
    assert json.loads(row) == {"text": "half ?, whole \U0001f600"}
    story = json.loads(said(capsys, str(run), train[0]["id"], "--json"))
    assert story["id"] == train[0]["id"]


def test_it_loads_no_torch_and_changes_nothing(run_of: Made) -> None:
    run = run_of("embedded")
    before = everything(run)
    row = rewrite_of(run)
    script = (
        "import sys; from mathse.__main__ import main\n"
        f"for asked in ([{row['id']!r}], ['--all'], ['--descendants', {row['problem_id']!r}], ['--query']):\n"
        f"    assert main(['lineage', {str(run)!r}, *asked]) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert everything(run) == before


def test_a_reader_that_stops_early_is_no_error(run_of: Made) -> None:
    program = [sys.executable, "-m", "mathse", "lineage", str(run_of("embedded")), "--all", "--json"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 0
