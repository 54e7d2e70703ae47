"""The seconds of a verdict that ``plan --like RUN`` takes from a real run: the ORM's, and no other judge's."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.runs import TINY, run, stages

from mathse.commands.plan.plan import make_plan
from mathse.commands.plan.rates import Rates, read_rates
from mathse.config.compose import train_config
from mathse.runs.store import read_jsonl

FILES = ("verdicts.jsonl", "held_verdicts.jsonl", "feedback_verdicts.jsonl")


def lines(file: Path) -> int:
    return sum(1 for _ in read_jsonl(file)) if file.is_file() else 0


def seconds_a_verdict(folder: Path, *names: str) -> float:
    """By hand, over the stages of these names."""
    verdicts = sum(lines(folder / name / file) for name in names for file in FILES)
    return sum(stages(folder)[name]["time_s"]["judge"] for name in names) / verdicts


def about_verdicts(rates: Rates) -> list[str]:
    return [note for note in rates.notes if note.startswith("judge: ")]


def test_the_stages_that_the_orm_judged_give_the_rate(tmp_path: Path) -> None:
    run(tmp_path, *TINY, "judge=orm", "distill.judge=orm", "evolution.reflect.feedback=orm")
    rates = read_rates((), tmp_path)
    assert rates.seconds["judge"] == pytest.approx(seconds_a_verdict(tmp_path, "distill", "round_01", "reflection"))
    assert [note.endswith(str(tmp_path)) for note in about_verdicts(rates)] == [True]


def test_a_stage_that_another_judge_had_a_part_in_does_not_count(tmp_path: Path) -> None:
    run(tmp_path, *TINY, "distill.judge=orm", "evolution.reflect.feedback=orm", "orm.references=true")
    judged = {row["judge"] for row in read_jsonl(tmp_path / "reflection/verdicts.jsonl")}
    told = {row["judge"] for row in read_jsonl(tmp_path / "reflection/feedback_verdicts.jsonl")}
    assert (judged, told) == ({"random"}, {"orm"})
    assert read_rates((), tmp_path).seconds["judge"] == pytest.approx(seconds_a_verdict(tmp_path, "distill"))


def test_where_the_orm_judged_no_stage_its_own_held_out_paths_give_the_rate(tmp_path: Path) -> None:
    run(tmp_path, *TINY, "evolution.reflect.feedback=orm", "orm.references=true")
    rates = read_rates((), tmp_path)
    assert rates.seconds["judge"] == pytest.approx(seconds_a_verdict(tmp_path, "orm"))
    assert ["on held-out paths" in note for note in about_verdicts(rates)] == [True]


def test_a_run_without_an_orm_gives_no_rate_and_says_so(tmp_path: Path) -> None:
    run(tmp_path, *TINY, "judge=answer", "evolution.reflect.feedback=none")
    rates = read_rates((), tmp_path)
    assert "judge" not in rates.seconds and {"fit", "sample"} <= set(rates.seconds)
    assert ["not measured" in note for note in about_verdicts(rates)] == [True]
    config, _ = train_config([*TINY, "judge=orm", "distill.judge=orm"])
    assert make_plan(config, sample=8, like=tmp_path).total("hours") is None
    assert make_plan(config, sample=8, like=tmp_path, rates=["judge=1"]).total("hours") is not None
