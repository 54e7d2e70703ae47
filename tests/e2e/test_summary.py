"""``summary.json`` of experiment=smoke: its contract, and that its figures are those of the files behind them."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from e2e.conftest import Smoke
from e2e.runs import rows
from mathse.runs.store import read_json
from mathse.scoring.metrics import wilson

STUDENTS = ["base", "distill", "round_01", "final"]
OUTCOMES = {"correct_correct", "correct_wrong", "wrong_correct", "wrong_wrong"}


@pytest.fixture(scope="module")
def summary(smoke: Smoke) -> dict[str, Any]:
    found: dict[str, Any] = read_json(smoke.folder / "summary.json")
    return found


def test_the_summary_has_a_line_for_each_student(summary: dict[str, Any]) -> None:
    assert (summary["status"], summary["name"], summary["task"]) == ("finished", "smoke", "evolve")
    assert [entry["stage"] for entry in summary["stages"]] == STUDENTS
    wanted = {"accuracy", "ci95", "n", "train_rows", "accepted", "rejected", "unparsed", "acceptance_precision"}
    wanted |= {"transitions", "origins", "step_precision", "skipped_fit", "teacher_calls"}
    for entry in summary["stages"]:
        assert wanted - set(entry) == set(), entry["stage"]
    assert len({frozenset(entry) for entry in summary["stages"]}) == 1  # a table needs the same columns in each


def test_shares_are_fractions_inside_their_intervals(summary: dict[str, Any]) -> None:
    for entry in summary["stages"]:
        low, high = entry["ci95"]
        assert 0 <= low <= entry["accuracy"] <= high <= 1
        right = round(entry["accuracy"] * entry["n"])
        assert (low, high) == pytest.approx(wilson(right, entry["n"]))
        for name in ("acceptance_precision", "step_precision"):
            assert entry.get(name) is None or 0 <= entry[name] <= 1
    orm = summary["orm"]
    for name in ("positive_accuracy", "negative_accuracy", "overall_accuracy", "error_step_accuracy"):
        low, high = orm["ci95"][name]
        assert 0 <= low <= orm[name] <= high <= 1
    assert orm["n"] > 0


def test_transitions_sum_to_n_and_agree_with_the_accuracies(summary: dict[str, Any]) -> None:
    entries = summary["stages"]
    assert entries[0]["transitions"] is None
    for before, entry in zip(entries, entries[1:], strict=False):
        moved = entry["transitions"]
        assert set(moved) == OUTCOMES
        assert sum(moved.values()) == entry["n"]
        assert moved["correct_correct"] + moved["correct_wrong"] == round(before["accuracy"] * before["n"])
        assert moved["correct_correct"] + moved["wrong_correct"] == round(entry["accuracy"] * entry["n"])


def test_training_rows_add_up(smoke: Smoke, summary: dict[str, Any]) -> None:
    entries = summary["stages"]
    assert entries[0]["train_rows"] == 0
    for before, entry in zip(entries, entries[1:], strict=False):
        assert entry["train_rows"] == before["train_rows"] + entry["accepted"]
        assert entry["train_rows"] == sum(entry["origins"].values())
        assert entry["train_rows"] == len(rows(smoke.folder / entry["stage"] / "train.jsonl"))


def test_judged_paths_are_accepted_rejected_or_unparsed(smoke: Smoke, summary: dict[str, Any]) -> None:
    files = {"distill": "distill", "round_01": "round_01", "final": "reflection"}  # final counts what reflection did
    for entry in summary["stages"][1:]:
        judged = rows(smoke.folder / files[entry["stage"]] / "verdicts.jsonl")
        assert entry["accepted"] + entry["rejected"] + entry["unparsed"] == len(judged)
        assert entry["accepted"] == sum(v["status"] == "correct" for v in judged)
        assert entry["unparsed"] == sum(v["status"] == "unparsed" for v in judged)
        assert entry["acceptance_precision"] == 1  # the judge is the answer itself


def test_teacher_calls_are_the_solutions_and_rewrites_until_then(smoke: Smoke, summary: dict[str, Any]) -> None:
    solutions = len(rows(smoke.folder / "distill" / "paths.jsonl"))
    rewrites = len(rows(smoke.folder / "reflection" / "reflections.jsonl"))
    assert solutions > 0 and rewrites > 0
    calls = {entry["stage"]: entry["teacher_calls"] for entry in summary["stages"]}
    assert calls == {"base": 0, "distill": solutions, "round_01": solutions, "final": solutions + rewrites}


def test_a_stage_s_figures_are_those_of_its_predictions(smoke: Smoke, summary: dict[str, Any]) -> None:
    for entry in summary["stages"]:
        marks = [row["correct"] for row in rows(smoke.folder / entry["stage"] / "predictions.jsonl")]
        figures = read_json(smoke.folder / entry["stage"] / "metrics.json")
        assert (figures["correct"], figures["total"]) == (sum(marks), len(marks))
        assert (entry["accuracy"], entry["n"]) == (figures["accuracy"], figures["total"])
    assert summary["metric"] == read_json(smoke.folder / "final" / "metrics.json")["dev_accuracy"]


def test_the_orm_s_figures_are_those_of_its_stage_and_come_again_for_each_student(
    smoke: Smoke, summary: dict[str, Any]
) -> None:
    figures = read_json(smoke.folder / "orm" / "metrics.json")
    assert {name: figures[name] for name in summary["orm"]} == summary["orm"]
    assert summary["orm"]["n"] == len(rows(smoke.folder / "orm" / "orm_held.jsonl"))
    assert [entry["stage"] for entry in summary["orm_by_student"]] == ["distill", "round_01"]


def test_a_fit_logs_its_loss_until_its_last_step(smoke: Smoke) -> None:
    settings = read_json(smoke.folder / "run.json")["config"]
    for stage, fit in (("distill", settings["sft"]), ("final", settings["sft"]), ("orm", settings["orm"]["fit"])):
        log = rows(smoke.folder / stage / "train_log.jsonl")
        assert log[-1]["step"] == fit["max_steps"]
        assert any("val_loss" in line for line in log)
        losses = [line["loss"] for line in log if "loss" in line]
        assert losses[-1] < losses[0]


def test_the_csv_logger_has_a_line_for_each_stage(smoke: Smoke) -> None:
    with (smoke.folder / "metrics.csv").open() as file:
        assert set(STUDENTS) <= {line["stage"] for line in csv.DictReader(file)}
