"""The bounds of a plan against all that can happen: the real merging under every outcome of the judge, on a small D."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import pytest

from mathse.commands.plan.plan import Plan, make_plan
from mathse.config.compose import compose_train
from mathse.config.evolution import EvolutionConfig, ReflectConfig, RoundConfig
from mathse.evolution.planner import Bounds, Range
from mathse.evolution.state import EvolutionState, Judged
from mathse.types import Lineage, ReasoningPath, Verdict

States = dict[object, EvolutionState]


def path(name: str, problem: str, origin: str) -> ReasoningPath:
    return ReasoningPath(name, problem, f"Step 1: {name}", Lineage(origin, "stage", "somebody"))  # type: ignore[arg-type]


def judged(paths: Sequence[ReasoningPath]) -> Iterator[list[Judged]]:
    """Every verdict on every path."""
    for said in product(("correct", "wrong"), repeat=len(paths)):
        yield [Judged(p, Verdict(p.id, word)) for p, word in zip(paths, said, strict=True)]  # type: ignore[arg-type]


def accepts(verdict: Verdict) -> bool:
    return verdict.status == "correct"


def distinct(states: Iterator[EvolutionState]) -> States:
    return {(frozenset(p.id for p in s.train), tuple(j.path.id for j in s.incorrect)): s for s in states}


def distilled(states: States, problems: Sequence[str]) -> Iterator[EvolutionState]:
    for state in states.values():
        for words in judged([path(f"distill/{p}", p, "teacher") for p in problems]):
            yield state.absorb(words, accepts)


def tried(states: States, number: int, how: EvolutionConfig) -> Iterator[EvolutionState]:
    """A round on every sample of what remains."""
    for state in states.values():
        remaining = state.remaining
        for chosen in combinations(remaining, min(how.round.sample_size or len(remaining), len(remaining))):
            ids = [(f"{number}/{p}/{k}", p) for p in chosen for k in range(how.samples_per_problem)]
            for words in judged([path(name, p, "student") for name, p in ids]):
                yield state.absorb(words, accepts, how.keep)


def reflected(states: States, number: int, how: EvolutionConfig) -> Iterator[EvolutionState]:
    keep = "all" if how.reflect.all_drafts else how.keep
    for state in states.values():
        drafts = [j.path for j in state.to_reflect(how.reflect.all_drafts)]
        for words in judged([path(f"again_{number}/{d.id}", d.problem_id, "reflection") for d in drafts]):
            yield state.absorb(words, accepts, keep)


def reached(states: States) -> Range:
    sizes = [len(state.train) for state in states.values()]
    return Range(min(sizes), max(sizes))


# D, distilled, problems a round, samples, keep, all_drafts, when
@pytest.mark.parametrize(
    "case",
    [
        (4, 1, 1, 1, "one", False, "last"),  # as the paper's: rounds leave problems that nobody tries
        (3, 1, 2, 1, "one", False, "last"),
        (3, 1, None, 1, "one", False, "last"),
        (3, 2, None, 1, "one", False, "every"),
        (3, 3, 1, 2, "one", False, "last"),
        (3, 1, 1, 2, "all", False, "last"),
        (2, 1, None, 2, "all", False, "every"),
        (3, 1, 1, 2, "one", True, "last"),
        (3, 1, 2, 1, "one", True, "last"),
        (2, 1, None, 1, "all", True, "last"),
        (3, 1, 1, 1, "one", True, "every"),
        (2, 1, None, 1, "one", True, "every"),
        (2, 0, 1, 1, "one", False, "never"),
    ],
)
def test_some_outcome_reaches_each_bound_and_none_goes_beyond(case: tuple) -> None:
    d, chosen, sample_size, samples, keep, all_drafts, when = case
    how = EvolutionConfig(
        2,
        samples_per_problem=samples,
        keep=keep,
        round=RoundConfig(sample_size),
        reflect=ReflectConfig(when, all_drafts=all_drafts),
    )
    problems, bounds = [f"p{k}" for k in range(d)], Bounds(d, how)
    states = distinct(distilled({0: EvolutionState(problems)}, problems[:chosen]))
    bounds.distil(chosen)
    assert bounds.rows == reached(states)
    for number in (1, 2):
        left = [min(sample_size or d, len(state.remaining)) for state in states.values()]
        assert bounds.try_problems() == Range(min(left), max(left))
        states = distinct(tried(states, number, how))
        assert bounds.rows == reached(states), f"round {number}"
        if when == "every" or (when == "last" and number == 2):
            assert bounds.reflect() == max(len(state.to_reflect(all_drafts)) for state in states.values())
            states = distinct(reflected(states, number, how))
            assert bounds.rows == reached(states), f"reflection {number}"


def planned(*overrides: str) -> Plan:
    world = ("data.seed_size=40", "data.pool=60", "distill.size=20", "sft.max_steps=null", "sft.epochs=1")
    config, _ = compose_train(["experiment=smoke", *world, "sft.batch_size=1", "sft.micro_batch_size=1", *overrides])
    return make_plan(config, sample=8)


def test_the_final_fit_has_no_more_rows_than_problems_were_tried() -> None:
    """As in the paper's runs: 20 problems distilled, and two rounds of 25 of the other 80."""
    how = ("evolution.rounds=2", "evolution.round.sample_size=25", "evolution.reflect.tries=3")
    steps = {stage.name: stage.steps for stage in planned(*how).stages}
    assert [steps[name] for name in ("distill", "round_01", "round_02", "final")] == [
        *(Range(0, 20), Range(0, 45), Range(0, 70), Range(0, 70))
    ]
    whole = {stage.name: stage.steps for stage in planned(*how, "evolution.round.sample_size=null").stages}
    assert whole["round_01"] == whole["final"] == Range(0, 100)


def test_a_rewrite_of_a_solved_problem_is_a_row_only_where_all_drafts_are_rewritten() -> None:
    how = ("evolution.rounds=2", "evolution.round.sample_size=25", "evolution.reflect.tries=3")
    plan = {s.name: s for s in planned(*how, "evolution.samples_per_problem=2").stages}
    every = {
        s.name: s for s in planned(*how, "evolution.samples_per_problem=2", "evolution.reflect.all_drafts=true").stages
    }
    assert (plan["reflection"].rows, plan["final"].steps) == (Range(0, 3 * 50), Range(0, 70))
    assert (every["reflection"].rows, every["final"].steps) == (Range(0, 3 * 100), Range(0, 20 + 100))


def test_a_round_after_a_reflection_has_at_least_the_problems_that_nobody_tried() -> None:
    how = ("evolution.rounds=2", "evolution.round.sample_size=40", "evolution.reflect.when=every")
    rows = {stage.name: stage.rows for stage in planned(*how).stages}
    assert (rows["round_01"], rows["round_02"]) == (Range.of(40), Range.of(40))
    how = ("evolution.rounds=2", "evolution.round.sample_size=50", "evolution.reflect.when=every")
    assert {stage.name: stage.rows for stage in planned(*how).stages}["round_02"] == Range(30, 50)
