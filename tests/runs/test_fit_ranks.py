"""A run goes on with another number of ranks: what is finished stays what it is, and only fits are of their ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mathse.errors import RunError
from mathse.runs.fit_ranks import RANKS
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.runs.store import read_json, write_json

FIT = ["seed", *RANKS]


def opened(path: Path, devices: int, strategy: str = "fsdp2", seed: int = 0) -> RunFolder:
    config = {"seed": seed, "trainer.devices": devices, "trainer.strategy": strategy}
    return RunFolder.open(path, config, name="demo", task="evolve", seed=0, nested={})


def made(stage: Stage, fitted: bool = True) -> Stage:
    if not stage.done:
        stage.begin()
        write_json(stage.path / ("trained.json" if fitted else "metrics.json"), {})
        stage.finish({})
    return stage


def devices_of(stage: Stage) -> Any:
    file = "stage.json" if stage.done else "stage.begun.json"
    record = read_json(stage.path / file)
    assert record["identity"] == stage.identity
    return record["config"].get("trainer.devices")


def test_finished_fits_stay_those_of_their_ranks_and_new_ones_are_of_todays(tmp_path: Path) -> None:
    with opened(tmp_path, 8) as run:
        base = made(run.stage("base", ["seed"]), fitted=False)
        distill = made(run.stage("distill", FIT, [base]))
        assert run.other_ranks is None
    with opened(tmp_path, 4) as run:
        assert run.stage("base", ["seed"]).done
        kept = run.stage("distill", FIT, [base])
        assert kept.done and (kept.identity, devices_of(kept)) == (distill.identity, 8)
        after = made(run.stage("round_01", FIT, [kept]))
        assert devices_of(after) == 4
        said = str(run.other_ranks)
    assert "continues with 4 ranks (fsdp2): trainings by 8 ranks (fsdp2) stay (distill); " in said
    assert "base" not in said and said.endswith("later trainings are made by 4 ranks (fsdp2)")
    with opened(tmp_path, 1, "auto") as run:
        assert "trainings by 8 ranks (fsdp2) stay (distill); trainings by 4 ranks (fsdp2) stay" in str(run.other_ranks)
        assert run.stage("round_01", FIT, [kept]).identity == after.identity


@pytest.mark.parametrize(
    ("left", "devices", "said"),
    [
        ([], 4, None),
        (["train_log.jsonl"], 4, "the training of distill starts again"),
        (["train_log.jsonl", "fit/point_40/point.json"], "8, then 4", "the training of distill by 8"),
        (["train_log.jsonl", "fit/last.ckpt"], "8, then 4", "continues from its resume point"),
        (["sft/checkpoint/config.json", "sft/train_log.jsonl"], "8, then 4", "continues from its resume point"),
        (["checkpoint/config.json", "fit/point_40/point.json"], 8, "trainings by 8 ranks (fsdp2) stay (distill)"),
    ],
    ids=["only sampled", "no resume point", "a resume point", "an old resume point", "the first of two fits", "fitted"],
)
def test_an_unfinished_stage_goes_on_with_todays_ranks_as_far_as_its_fit_is_not_made(
    tmp_path: Path, left: list[str], devices: Any, said: str | None
) -> None:
    with opened(tmp_path, 8) as run:
        begun = run.stage("distill", FIT)
        begun.begin()
    started = read_json(begun.path / "stage.begun.json")["started"]
    for file in left:
        write_json(begun.path / file, {})
    for _ in range(2):  # a second start changes nothing more
        with opened(tmp_path, 4) as run:
            stage = run.stage("distill", FIT)
            stage.begin()
            assert devices_of(stage) == devices
            if said is not None and devices != 4:
                assert said in str(run.other_ranks)
    assert read_json(begun.path / "stage.begun.json")["started"] == started
    with opened(tmp_path, 4) as run:
        assert devices_of(made(run.stage("distill", FIT))) == devices


def test_a_fit_under_deepspeed_goes_on_from_no_resume_point(tmp_path: Path) -> None:
    with opened(tmp_path, 8) as run:
        begun = run.stage("distill", FIT)
        begun.begin()
    write_json(begun.path / "fit" / "point_40" / "point.json", {})
    write_json(begun.path / "train_log.jsonl", {})
    with opened(tmp_path, 8, "deepspeed") as run:
        assert "the training of distill starts again" in str(run.other_ranks)
        assert run.stage("distill", FIT).identity != begun.identity


def test_a_stage_without_a_fit_is_the_same_whoever_made_it_also_in_runs_that_recorded_its_ranks(tmp_path: Path) -> None:
    with opened(tmp_path / "old", 8) as run:
        base = made(run.stage("base", FIT), fitted=False)  # as earlier versions did
        distill = made(run.stage("distill", FIT, [base]))
    with opened(tmp_path / "old", 8) as run:
        assert run.stage("base", ["seed"]).identity == base.identity
        assert run.stage("distill", FIT, [run.stage("base", ["seed"])]).identity == distill.identity
    for devices, taken in ((8, True), (4, False)):
        with opened(tmp_path / f"with_{devices}", devices) as run:
            run.branch_from([tmp_path / "old"])
            ours = run.stage("base", ["seed"])
            assert ours.done and ours.identity == base.identity
            assert run.stage("distill", FIT, [ours]).done == taken, "a branch has what its settings would make"


def test_other_settings_are_refused_whatever_the_ranks_and_ranks_are_not_the_reason(tmp_path: Path) -> None:
    with opened(tmp_path, 8) as run:
        made(run.stage("distill", FIT))
    with pytest.raises(RunError, match="seed: recorded 0, now 1") as refusal:
        opened(tmp_path, 4, seed=1)
    assert "devices" not in str(refusal.value)
