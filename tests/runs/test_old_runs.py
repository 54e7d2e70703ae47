"""Runs that an earlier version made: today's reads, resumes, reports, compares, replays and exports them.

``tests/old_runs/46dcc38.tar.xz`` holds two finished ones, from before the modules moved: the classes that they name are
somewhere else today.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import SIZES, TINY, WORLD, run

from mathse.__main__ import main
from mathse.runs.reader import read_run
from mathse.runs.store import read_json, read_jsonl, sha256_file

OldRun = Callable[[str], Path]

SETTINGS = {
    "random": TINY,
    "orm": (
        *SIZES,
        *WORLD,
        "judge=orm",
        "evolution.reflect.when=every",
        "logger=csv",
        "judge.threshold=0.4",
        "distill.judge=answer",
    ),
}
NAMES = pytest.mark.parametrize("name", SETTINGS)


@NAMES
def test_it_is_reported_with_its_problems_and_pictures(name: str, old_run: OldRun) -> None:
    folder = old_run(name)
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>smoke</h1>" in page and '"png":"' in page and "picture not available" not in page
    problems = [file.read_text(encoding="ascii") for file in (folder / "report_parts").glob("problems_*.js")]
    assert problems and not any("null," in text or "picture not available" in text for text in problems)


@NAMES
def test_every_training_row_is_traced(name: str, old_run: OldRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old_run(name)
    capsys.readouterr()
    assert main(["lineage", str(folder), "--all", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path_id"] for row in rows] == [row["id"] for row in read_jsonl(folder / "final" / "train.jsonl")]
    assert all(row["image_sha256"] and row["verdict"] for row in rows)
    assert main(["lineage", str(folder), rows[0]["path_id"]]) == 0


@NAMES
def test_its_merges_are_replayed_exactly(name: str, old_run: OldRun, tmp_path: Path) -> None:
    folder = old_run(name)
    assert main(["replay", str(folder), "--out", str(tmp_path / "out")]) == 0
    replayed = read_json(tmp_path / "out" / "whatif.json")
    assert all(stage["exact"] and stage["then"] == stage["now"] for stage in replayed["stages"])
    assert not replayed["notes"]  # every stage's train.jsonl came out as it stands


@NAMES
def test_its_students_are_compared(name: str, old_run: OldRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old_run(name)
    assert main(["compare", f"base={folder / 'base'}", f"last={folder}"]) == 0
    assert "synthetic" in capsys.readouterr().out


@NAMES
@pytest.mark.parametrize("what", [["--format", "llamafactory"], ["--format", "swift", "--what", "orm"]], ids=str)
def test_its_rows_are_exported(name: str, what: list[str], old_run: OldRun, tmp_path: Path) -> None:
    assert main(["export", str(old_run(name)), *what, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "train.jsonl").stat().st_size > 0


@NAMES
def test_its_model_is_exported_bit_for_bit(name: str, old_run: OldRun, tmp_path: Path) -> None:
    folder = old_run(name)
    assert main(["export", str(folder), "--what", "model", "--out", str(tmp_path / "out")]) == 0
    weights = "checkpoint/model.safetensors"
    assert sha256_file(tmp_path / "out" / "model.safetensors") == sha256_file(folder / "final" / weights)
    assert "evolution.rounds" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@NAMES
def test_a_plan_takes_its_rates_from_it(name: str, old_run: OldRun) -> None:
    from mathse.commands.plan.rates import measure_rates

    assert {"fit", "sample"} <= measure_rates(read_run(old_run(name))).seconds.keys()


@NAMES
def test_it_goes_on_with_todays_program_and_keeps_its_stages(name: str, old_run: OldRun) -> None:
    folder = old_run(name)
    before: dict[str, Any] = {stage.name: stage for stage in read_run(folder).stages}
    rows, figures = (folder / "final" / "train.jsonl").read_bytes(), read_json(folder / "summary.json")["stages"][:-1]
    shutil.rmtree(folder / "final")
    (folder / "summary.json").unlink()
    summary = run(folder, *SETTINGS[name])
    known = [{key: entry[key] for key in old} for old, entry in zip(figures, summary["stages"], strict=False)]
    assert known == figures and summary["stages"][-1]["stage"] == "final"  # later versions tell more of a stage
    for stage in read_run(folder).stages:
        if stage.name == "final":
            assert stage.identity == before["final"].identity
        else:
            assert stage.manifest == before[stage.name].manifest, "made again"
    assert (folder / "final" / "train.jsonl").read_bytes() == rows
