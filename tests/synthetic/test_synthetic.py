"""Splits of synthetic problems: seeded, disjoint, of any size, with ids that say all there is to know."""

from __future__ import annotations

import json
import random

import pytest

from mathse.config import build
from mathse.config.data import SyntheticDataConfig
from mathse.data.synthetic.digits import parse_reference, split_indices
from mathse.data.synthetic.problems import DIGITS_OF, facts
from mathse.data.synthetic.solution import KINDS
from mathse.errors import DataError
from mathse.types import Lineage, Problem, ReasoningPath

SIZES = {"seed_size": 60, "pool": 300, "test": 200, "dev": 80, "orm_train": 300, "orm_held": 150}


def splits(seed: int = 0, **sizes: int) -> dict[str, list[Problem]]:
    return {k: list(v) for k, v in build(SyntheticDataConfig(seed=seed, **{**SIZES, **sizes})).splits().items()}


def test_splits_have_the_sizes_asked_for_and_all_kinds_of_question() -> None:
    found = splits()
    assert {k: len(v) for k, v in found.items()} == {"seed": 60, **{k: v for k, v in SIZES.items() if k != "seed_size"}}
    for split, problems in found.items():
        assert {p.metadata["kind"] for p in problems} == set(KINDS), split


def test_no_problem_is_in_two_splits_or_twice_in_one() -> None:
    ids = [p.id for problems in splits(seed_size=2000, dev=8000).values() for p in problems]
    assert len(ids) == len(set(ids))


def test_a_split_shows_the_handwriting_of_its_own_digits_only() -> None:
    for split, problems in splits().items():
        own = set(split_indices()[DIGITS_OF[split]].tolist())
        assert {i for p in problems for i in parse_reference(p.images[0])} <= own, split


def test_what_is_measured_on_shares_its_handwriting_with_nothing() -> None:
    for measured in ("test", "dev", "orm_held"):
        assert [split for split in DIGITS_OF if DIGITS_OF[split] == DIGITS_OF[measured]] == [measured]


def test_the_same_seed_draws_the_same_problems_and_another_seed_others() -> None:
    assert splits(3) == splits(3)
    one, other = splits(3), splits(4)
    for split in one:
        assert len({p.id for p in one[split]} & {p.id for p in other[split]}) < len(one[split]) / 10


def test_the_size_of_one_split_does_not_move_another_and_a_larger_one_begins_like_the_smaller() -> None:
    small, large = splits(), splits(test=500)
    assert large["test"][:200] == small["test"]
    assert all(large[s] == small[s] for s in small if s != "test")


def test_every_problem_comes_back_from_its_id() -> None:
    data = build(SyntheticDataConfig(**SIZES))
    for problems in data.splits().values():
        assert [data.get(p.id) for p in problems] == problems


@pytest.mark.parametrize(
    "problem_id",
    ["", "digits", "digits/sum", "digits/sum/0001-0002", "digits/cube/0001-0002-0003", "digits/sum/0001-0002-9999",
     "geometry3k/sum/0001-0002-0003", "digits/sum/0001-0002-0003/0", "digits/sum/" + "0" * 10_000],
)  # fmt: skip
def test_an_id_of_another_world_is_refused_in_few_words(problem_id: str) -> None:
    with pytest.raises(DataError) as error:
        build(SyntheticDataConfig()).get(problem_id)
    assert len(str(error.value)) < 300


def test_a_problem_read_back_from_json_is_still_checked() -> None:
    problem = splits()["pool"][0]
    again = Problem.from_json(json.loads(json.dumps(problem.to_json())))
    assert facts(again) == facts(problem)
    assert build(SyntheticDataConfig()).check(again, problem.solution or "").status == "correct"


def test_a_problem_of_another_source_has_no_facts_here() -> None:
    with pytest.raises(DataError, match="data=synthetic"):
        facts(Problem("geometry3k/1", "What is x?"))


def test_the_checker_accepts_each_reference_solution_and_names_the_step_of_a_made_up_error() -> None:
    data, draw = build(SyntheticDataConfig(**SIZES)), random.Random(0)
    named = set()
    for problem in data.splits()["orm_train"]:
        assert data.check(problem, problem.solution or "").status == "correct"
        word = data.check(problem, data.corrupt(problem, draw))
        assert (word.status, word.judge) == ("wrong" if word.error_step else "correct", "checker")
        named.add(word.error_step)
    assert {None, "Step 1", "Step 2", "Step 3"} <= named <= {None, *(f"Step {k}" for k in (1, 2, 3, 4))}


def test_d_is_the_seed_set_and_the_pool() -> None:
    found = splits()
    assert build(SyntheticDataConfig(**SIZES)).distillable() == found["seed"] + found["pool"]


def test_a_lineage_and_its_path_round_trip_through_json() -> None:
    path = ReasoningPath("round_01/digits/sum/1/0", "digits/sum/1", "Step 1: ...", Lineage("student", "round_01", "m"))
    assert ReasoningPath.from_json(json.loads(json.dumps(path.to_json()))) == path
