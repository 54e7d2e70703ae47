"""The ledger of a run: what each stage spent, whatever happened to the processes that made it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from e2e.runs import TINY, contents, killed, run, stages
from mathse.__main__ import main as mathse
from mathse.reporting.loggers.figures import run_figures, stage_figures
from mathse.runs.layout import PATHS, SCRATCH
from mathse.runs.ledger import compute_row_flops, sum_flops
from mathse.runs.reader import read_run
from mathse.runs.store import read_json, write_json

BATCHES = (*TINY, "sft.max_steps=4", "trainer.checkpoint_every=1", "generator.batch_size=5", "judge.batch_size=5")


def ledgers(folder: Path) -> dict[str, Any]:
    """Of each stage, without its seconds."""
    made = {name: dict(manifest["ledger"]) for name, manifest in stages(folder).items()}
    assert all(ledger.pop("seconds")["cpu"] > 0 for ledger in made.values())
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "whole"
    run(folder, *BATCHES)
    return folder


def test_every_stage_says_what_it_spent_on_its_student_and_what_its_figures_cost(whole: Path) -> None:
    by_stage = ledgers(whole)
    method = {name: ledger["method"] for name, ledger in by_stage.items()}
    assert method["base"] == dict.fromkeys(method["base"], 0)
    for name in ("orm/student_8", "orm/solver", "orm", "distill", "round_01", "final"):
        trained, steps = method[name], 4 if name in ("distill", "round_01", "final") else 2
        assert trained["trained_rows"] == 4 * steps and trained["trained_tokens"] > 10 * trained["trained_rows"]
        assert trained["flops"] >= trained["training_flops"] > 0
        assert by_stage[name]["measuring"]["flops"] > 0 and by_stage[name]["measuring"]["trained_tokens"] == 0
    read = read_run(whole)
    for name in ("round_01", "orm/student_8"):
        stage = read.stage(name)
        assert stage is not None
        written = sum(1 for _ in stage.rows(PATHS))
        assert written <= method[name]["sampled_tokens"] <= 8 * written
        assert method[name]["prefilled_tokens"] > method[name]["sampled_tokens"]
        assert method[name]["flops"] > method[name]["training_flops"]
    assert method["distill"]["sampled_tokens"] == 0, "the teacher is no model of ours"
    assert (method["distill"]["teacher_calls"], method["round_01"]["teacher_calls"]) == (8, 0)
    assert method["reflection"]["prefilled_tokens"] > 0, "chance judges, and the ORM gives feedback"
    assert {tuple(ledger["counted_by"]) for ledger in by_stage.values()} <= {("model",), ()}


def test_the_summary_adds_up_what_the_method_spent_until_each_student(whole: Path) -> None:
    summary, by_stage = read_json(whole / "summary.json"), ledgers(whole)
    entries = {entry["stage"]: entry for entry in summary["stages"]}
    orm = ("orm/student_8", "orm/solver", "orm")
    behind = {"base": (), "distill": (*orm, "distill"), "final": (*orm, "distill", "round_01", "reflection", "final")}
    for name, made_from in behind.items():
        for currency in ("teacher_calls", "prefilled_tokens", "sampled_tokens", "trained_tokens", "flops"):
            spent = sum(by_stage[stage]["method"][currency] for stage in made_from)
            assert entries[name][currency] == spent, (name, currency)
    for account in ("method", "measuring"):
        assert summary["ledger"][account]["flops"] == sum(ledger[account]["flops"] for ledger in by_stage.values())
    assert set(summary["ledger"]) == {"method", "measuring"}, "no clock: two equal runs have equal summaries"


def test_report_comparison_and_loggers_say_what_was_spent(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = read_json(whole / "summary.json")["stages"][-1]
    flops = f"{entry['flops'] / 1e6:.3g} M"
    assert mathse(["compare", str(whole), str(whole / "distill")]) == 0
    costs = capsys.readouterr().out.split("costs of the students")[1]
    assert f"{entry['trained_tokens']:,}" in costs and flops in costs and " of CPU" in costs
    page = (whole / "report.html").read_text()
    assert "Costs of the students" in page and flops in page and "FLOPs to measure" in page
    figures = run_figures(read_json(whole / "summary.json"))
    assert figures["last/flops"] == entry["flops"] and float(figures["ledger/measuring_flops"]) > 0
    stage = read_run(whole).stage("round_01")
    assert stage is not None
    assert stage_figures(stage)["ledger/method_flops"] == stage.manifest["ledger"]["method"]["flops"]
    (row,) = [r for r in csv.DictReader((whole / "metrics.csv").open()) if r["stage"] == "final"]
    assert row["flops"] == str(entry["flops"]) and "cpu_seconds" not in row, "two equal runs have equal tables"


def test_a_control_finds_what_it_computes_its_length_from(whole: Path) -> None:
    read, by_stage = read_run(whole), ledgers(whole)
    distill, reflection = read.stage("distill"), read.stage("reflection")
    assert distill is not None and reflection is not None
    assert sum_flops(read.stages) == sum(ledger["method"]["flops"] for ledger in by_stage.values())
    fit = by_stage["distill"]["method"]
    assert compute_row_flops(distill) == fit["training_flops"] / 16
    assert compute_row_flops(reflection) is None, "it fits nothing"


def test_kills_and_resumptions_leave_the_figures_as_they_are(whole: Path, tmp_path: Path) -> None:
    folder, kills = tmp_path / "run", 0
    for at in (60, 90, 31, 75, 52, 110, 43, 66, 97, 120, 58, 81):
        kills += killed(lambda: run(folder, *BATCHES), at)
    assert kills > 5
    run(folder, *BATCHES)
    assert ledgers(folder) == ledgers(whole)
    assert contents(folder) == contents(whole)


def test_a_branch_keeps_the_ledgers_of_the_stages_that_it_takes_over(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "new", *BATCHES, "evolution.reflect.tries=2", "resume=branch", f"resume_from=[{whole}]")
    kept, before = stages(tmp_path / "new"), stages(whole)
    assert kept["round_01"]["ledger"] == before["round_01"]["ledger"]
    asked = [run_of["reflection"]["ledger"]["method"]["teacher_calls"] for run_of in (before, kept)]
    assert asked[0] < asked[1]


def test_a_stage_without_a_ledger_makes_each_sum_with_it_unknown(whole: Path, tmp_path: Path) -> None:
    """Earlier versions recorded none."""
    folder = Path(shutil.copytree(whole, tmp_path / "old"))
    manifest = read_json(folder / "distill/stage.json")
    del manifest["ledger"]
    write_json(folder / "distill/stage.json", manifest)
    summary = read_json(folder / "summary.json")
    for entry in summary["stages"]:
        for currency in ("prefilled_tokens", "sampled_tokens", "trained_tokens", "flops"):
            del entry[currency]
    write_json(folder / "summary.json", summary)
    read = read_run(folder)
    flops = {entry["stage"]: entry["flops"] for entry in read.entries}
    assert flops == {"base": 0, "distill": None, "round_01": None, "final": None}
    assert [entry["teacher_calls"] for entry in read.entries] == [0, 8, 8, 16]
    assert sum_flops(read.stages) is None


def test_a_stage_that_an_earlier_version_began_does_not_know_what_it_spent(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    at = 0
    while not (folder / "round_01" / PATHS).exists() or not (folder / "round_01" / PATHS).read_text():
        at += 40
        assert killed(lambda: run(folder, *BATCHES), at % 400 + 40), "the run ended before its round was cut"
    shutil.rmtree(folder / "round_01" / SCRATCH, ignore_errors=True)
    run(folder, *BATCHES)
    method = stages(folder)["round_01"]["ledger"]["method"]
    assert method["sampled_tokens"] is None and method["flops"] is None
    assert read_json(folder / "summary.json")["stages"][-1]["flops"] is None


def test_a_picture_whose_features_are_kept_is_paid_for_once_a_run_whoever_has_left_them(tmp_path: Path) -> None:
    kept = ("sft.tower_features=true", "sft.freeze=[tower]", f"trainer.tower_features_folder={tmp_path / 'store'}")
    for name in ("cold", "warm"):
        run(tmp_path / name, *TINY, *kept)
    first, again = (ledgers(tmp_path / name) for name in ("cold", "warm"))
    assert first == again
    assert first["base"]["kept"] and first["distill"]["kept"] and "kept" not in first["final"], "it sees known pictures"
    line = ("base", "distill", "round_01", "reflection", "final")
    keys = [key for name in line for key in first[name].get("kept", ())]
    assert len(keys) == len(set(keys))
    run(tmp_path / "without", *TINY, "sft.freeze=[tower]")
    each_time = ledgers(tmp_path / "without")["final"]["measuring"]["flops"]
    assert first["final"]["measuring"]["flops"] < each_time
