"""The splits of a run: said at its start, and refused where one that it needs is empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small import world

from mathse.config.compose import train_config
from mathse.errors import DataError
from mathse.evolution.problems import RunProblems


def problems_without(*names: str) -> RunProblems:
    problems = RunProblems(world(size=4))
    for name in names:
        problems.splits[name] = []
    return problems


def test_a_run_says_how_many_problems_each_split_has() -> None:
    config, _ = train_config([])
    assert problems_without().require(config) == (
        "problems by split: seed 4, pool 4, test 4, dev 4, orm_train 4, orm_held 4"
    )


@pytest.mark.parametrize("split", ["test", "seed", "pool", "orm_train", "orm_held"])
def test_a_run_with_a_split_that_it_needs_and_that_is_empty_is_refused(split: str) -> None:
    config, _ = train_config([])
    with pytest.raises(DataError, match=f"the split {split} has no problem"):
        problems_without(split).require(config)


@pytest.mark.parametrize(
    ("settings", "unneeded"),
    [(["judge=answer", "evolution.reflect.when=never"], "orm_train"), (["evolution.rounds=0"], "pool"), ([], "dev")],
)
def test_a_split_that_a_run_does_not_need_may_be_empty(settings: list[str], unneeded: str) -> None:
    config: Any
    config, _ = train_config(settings)
    assert f"{unneeded} 0" in problems_without(unneeded).require(replace(config))


def test_better_without_dev_problems_is_refused_with_its_key() -> None:
    config: Any
    config, _ = train_config(["evolution.resample=better"])
    with pytest.raises(DataError, match=r"evolution\.resample = 'better'.*dev"):
        problems_without("dev").require(config)
    problems_without().require(config)
