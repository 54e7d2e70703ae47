"""``mathse control``: the distilled rows alone with as much compute, and at their best length."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mathse.commands.control import Controls, main
from mathse.errors import RunError
from mathse.evaluation.compare import main as compare
from mathse.runs.layout import CONTROLS, REPORT, SUMMARY
from mathse.runs.ledger import sum_flops
from mathse.runs.reader import FinishedStage, read_run


@pytest.fixture
def finished(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "run"))


def test_the_control_of_equal_compute_spends_what_the_run_spent(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished), "--lengths", "1,2"]) == 0
    made = json.loads((finished / CONTROLS).read_text())
    equal, best = made["equal_compute"], made["best_length"]
    budget = sum_flops(read_run(finished).stages)
    assert budget is not None and equal["run_flops"] == budget
    assert abs(equal["flops"] - budget) < 0.2 * budget  # a step of four rows is a tenth of this run
    assert equal["n"] == 8 and equal["gained"] - equal["lost"] == round(8 * equal["difference"])
    assert set(best["tried"]) == {"1", "2"} and best["tried"]["2"]["steps"] == 2 * best["tried"]["1"]["steps"]
    said = capsys.readouterr().out
    assert "distilled rows, equal compute" in said and "McNemar's p" in said
    assert "Against its controls" in (finished / REPORT).read_text()
    assert compare([str(finished), "--out", str(finished / "compared.html")]) == 0
    said = capsys.readouterr().out
    assert "runs beside their controls" in said and said.count("distilled rows, ") == 2
    assert "Runs beside their controls" in (finished / "compared.html").read_text()
    rows = read_run(finished.with_name("run_controls") / "equal_compute").stage("sft")
    distilled = read_run(finished).stage("distill")
    assert rows is not None and distilled is not None
    assert [r["id"] for r in rows.rows("train.jsonl")] == [r["id"] for r in distilled.rows("train.jsonl")]


def test_a_control_that_is_made_again_trains_nothing_and_says_the_same(finished: Path) -> None:
    main([str(finished), "--lengths", "1"])
    first = (finished / CONTROLS).read_bytes()
    main([str(finished), "--lengths", "1"])
    assert (finished / CONTROLS).read_bytes() == first


def test_the_report_of_a_run_without_controls_says_so(tiny: Path) -> None:
    assert "No control has been made" in (tiny / REPORT).read_text()


def test_a_length_is_not_chosen_without_dev_problems_and_unmeasured_students_have_no_control(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Controls(finished)
    nobody = replace(control._read_distilled(), dev_accuracy=None)
    monkeypatch.setattr(control, "_read_distilled", lambda: nobody)
    with pytest.raises(RunError, match="no dev problems"):
        control.check([1.0, 2.0])
    control.check([1.0])
    monkeypatch.setattr(FinishedStage, "solved", lambda stage: {})
    with pytest.raises(RunError, match="not measured on test problems"):
        Controls(finished)


def test_a_run_without_a_ledger_or_an_end_has_no_control(finished: Path) -> None:
    manifest = finished / "distill" / "stage.json"
    stage = json.loads(manifest.read_text())
    del stage["ledger"]
    manifest.write_text(json.dumps(stage))
    with pytest.raises(RunError, match="how many operations"):
        Controls(finished)
    (finished / SUMMARY).unlink()
    with pytest.raises(RunError, match="has not finished"):
        Controls(finished)
