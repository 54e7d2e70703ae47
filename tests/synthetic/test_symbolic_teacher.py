"""The fallible teacher: how often, where and how it errs."""

from __future__ import annotations

from collections import Counter
from statistics import mean

import pytest

from mathse.config import build, teachers
from mathse.config.data import SyntheticDataConfig
from mathse.data.synthetic import SymbolicTeacher
from mathse.data.synthetic.problems import facts
from mathse.data.synthetic.solution import KINDS, first_error, parse, solve, write
from mathse.types import Draft, Lineage, Problem, ReasoningPath, Verdict

SIZES = {"seed_size": 1, "pool": 3000, "test": 1, "dev": 1, "orm_train": 1, "orm_held": 1}


def teacher_with(error_rate: float, seed: int = 0) -> SymbolicTeacher:
    return SymbolicTeacher(teachers.SymbolicTeacherConfig(error_rate=error_rate, seed=seed))


@pytest.fixture(scope="module")
def pool() -> list[Problem]:
    return list(build(SyntheticDataConfig(**SIZES)).splits()["pool"])


def error_of(problem: Problem, text: str | None) -> int | None:
    kind, digits = facts(problem)
    return first_error(kind, digits, parse(kind, text or ""))


def draft(problem: Problem, text: str) -> ReasoningPath:
    return ReasoningPath(f"round_01/{problem.id}/0", problem.id, text, Lineage("student", "round_01", "m"))


def wrong_at(problem: Problem, step: int) -> str:
    """A solution that is off by one from this step on."""
    kind, digits = facts(problem)
    steps = solve(kind, digits)
    return write(kind, [*steps[: step - 1], *(tuple(n + 1 for n in s) for s in steps[step - 1 :])])


def named(path: ReasoningPath, step: str | None) -> Verdict:
    return Verdict(path.id, "wrong", step)


def test_the_share_of_wrong_solutions_is_near_the_error_rate(pool: list[Problem]) -> None:
    for rate in (0.1, 0.2, 0.4):
        written = teacher_with(rate).solve(pool)
        wrong = mean(error_of(p, text) is not None for p, text in zip(pool, written, strict=True))
        assert abs(wrong - rate) < 0.03, rate


def test_its_errors_are_concentrated_on_the_hard_kinds(pool: list[Problem]) -> None:
    written = teacher_with(0.2).solve(pool)
    wrong = Counter(p.metadata["kind"] for p, text in zip(pool, written, strict=True) if error_of(p, text))
    assert sorted(KINDS, key=lambda k: wrong[k]) == sorted(KINDS, key=lambda k: KINDS[k].hardness)
    assert wrong["muladd"] > 0.4 * wrong.total()


def test_it_both_misreads_and_miscalculates_and_its_solutions_follow_from_its_one_slip(pool: list[Problem]) -> None:
    written = teacher_with(0.2).solve(pool)
    errors = Counter(error_of(p, text) for p, text in zip(pool, written, strict=True))
    assert set(errors) == {None, 1, 2, 3} and min(errors.values()) > 0.03 * len(pool)
    for problem, text in zip(pool, written, strict=True):
        kind, steps = problem.metadata["kind"], parse(problem.metadata["kind"], text or "")
        slips = [k for k in (2, 3, 4) if first_error(kind, steps[0], steps) == k]
        assert len(steps) == 4 and (error_of(problem, text) != 1 or not slips), "one slip a solution"


def test_a_perfect_teacher_makes_no_error(pool: list[Problem]) -> None:
    assert teacher_with(0.0).solve(pool) == [p.solution for p in pool]


def test_it_errs_the_same_at_a_second_try_in_any_order_and_elsewhere_with_another_seed(pool: list[Problem]) -> None:
    first = teacher_with(0.2).solve(pool)
    assert teacher_with(0.2).solve(pool[::-1])[::-1] == first
    other = teacher_with(0.2, seed=1).solve(pool)
    assert 0.2 < mean(a != b for a, b in zip(first, other, strict=True)) < 0.4


def test_reflecting_without_feedback_it_writes_what_it_wrote_before(pool: list[Problem]) -> None:
    teacher, some = teacher_with(0.2), pool[:500]
    drafts = [draft(p, wrong_at(p, 2)) for p in some]
    without_feedback = [Draft(p, d, None) for p, d in zip(some, drafts, strict=True)]
    assert teacher.reflect(without_feedback, attempt=1) == teacher.solve(some)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_reflecting_it_keeps_the_steps_before_the_named_one_and_mends_the_rest(pool: list[Problem], step: int) -> None:
    some = pool[:200]
    paths = [draft(p, wrong_at(p, step)) for p in some]
    assert all(error_of(p, d.text) == step for p, d in zip(some, paths, strict=True))
    drafts = [Draft(p, d, named(d, f"Step {step}")) for p, d in zip(some, paths, strict=True)]
    assert teacher_with(0.0).reflect(drafts) == [p.solution for p in some]
    revised = teacher_with(1.0).reflect(drafts)  # even a bad teacher leaves the kept steps as they are
    for d, text in zip(paths, revised, strict=True):
        assert (text or "").split("\n")[: step - 1] == d.text.split("\n")[: step - 1]


def test_a_judge_that_names_a_later_step_makes_the_rewrite_keep_the_error(pool: list[Problem]) -> None:
    problem = pool[0]
    path = draft(problem, wrong_at(problem, 1))
    [revised] = teacher_with(0.0).reflect([Draft(problem, path, named(path, "Step 3"))])
    assert error_of(problem, revised) == 1
    assert (revised or "").split("\n")[:2] == path.text.split("\n")[:2]


@pytest.mark.parametrize("step", [None, "", "somewhere", "Step 0", "Step 5", "Step 99999999999999999999"])
def test_feedback_that_names_no_step_makes_it_write_all_anew(pool: list[Problem], step: str | None) -> None:
    problem = pool[0]
    path = draft(problem, wrong_at(problem, 3))
    assert teacher_with(0.0).reflect([Draft(problem, path, named(path, step))]) == [problem.solution]


def test_reflecting_on_garbage_is_a_solution_all_the_same(pool: list[Problem]) -> None:
    problem = pool[0]
    path = draft(problem, "no idea \x00 {}")
    assert teacher_with(0.0).reflect([Draft(problem, path, named(path, "Step 2"))]) == [problem.solution]


def test_a_perfect_teacher_annotates_as_the_checker_does(pool: list[Problem]) -> None:
    for step in (1, 2, 3, 4):
        drafts = [draft(p, wrong_at(p, step)) for p in pool[:100]]
        words = teacher_with(0.0).annotate(pool[:100], drafts)
        assert {(w.status, w.error_step) for w in words} == {("wrong", f"Step {step}")}
        assert [w.path_id for w in words] == [d.id for d in drafts]
    right = [draft(p, p.solution or "") for p in pool[:100]]
    assert {(w.status, w.error_step) for w in teacher_with(0.0).annotate(pool[:100], right)} == {("correct", None)}


def test_a_misreading_teacher_rejects_right_paths_where_it_misreads_and_nowhere_else(pool: list[Problem]) -> None:
    teacher = teacher_with(0.2)
    misread = [error_of(p, text) == 1 for p, text in zip(pool, teacher.solve(pool), strict=True)]
    words = teacher.annotate(pool, [draft(p, p.solution or "") for p in pool])
    assert [w.status == "wrong" for w in words] == misread
    assert {w.error_step for w in words if w.status == "wrong"} == {"Step 1"}
