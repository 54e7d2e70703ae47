"""D_SFT, D_remain and R_incorrect between two stages of Algorithm 1."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from small import path, verdict

from mathse.errors import DataError
from mathse.evolution.state import EvolutionState, Judged, Keep, select_pending
from mathse.runs.layout import INCORRECT, TRAIN
from mathse.scoring.metrics import accepted
from mathse.types import Origin, Status, Verdict

D = tuple(f"p{i}" for i in range(8))


def judged(
    problem_id: str, status: Status, name: str = "0", origin: Origin = "student", score: float | None = None
) -> Judged:
    one = path(problem_id, name, f"text {name}", origin)
    return Judged(one, verdict(one, status, score))


def accept(word: Verdict) -> bool:
    return accepted(word, 0.5)


def any_word(draw: random.Random, problem_id: str, name: str) -> Judged:
    origins: list[Origin] = ["student", "reflection"]
    statuses: list[Status] = ["correct", "wrong", "unparsed"]
    return judged(problem_id, draw.choice(statuses), name, draw.choice(origins))


def absorbed(*items: Judged, keep: Keep = "one") -> EvolutionState:
    return EvolutionState(D).absorb(items, accept, keep)


def test_at_first_all_of_d_remains() -> None:
    assert EvolutionState(D).remaining == list(D)


def test_a_correct_path_joins_d_sft_and_leaves_the_remaining_pool() -> None:
    state = absorbed(judged("p3", "correct"))
    assert [p.problem_id for p in state.train] == ["p3"]
    assert state.remaining == [p for p in D if p != "p3"]
    assert state.incorrect == ()


@pytest.mark.parametrize("status", ["wrong", "unparsed"])
def test_a_rejected_draft_joins_r_incorrect_with_its_feedback_and_its_problem_remains(status: Status) -> None:
    item = judged("p3", status)
    state = absorbed(item)
    assert (state.train, state.incorrect, state.remaining) == ((), (item,), list(D))


def test_a_correct_verdict_below_the_threshold_is_a_rejection() -> None:
    assert absorbed(judged("p3", "correct", score=0.4)).train == ()


@pytest.mark.parametrize("origin", ["teacher", "reflection"])
def test_only_a_students_rejected_drafts_are_reflected_on(origin: Origin) -> None:
    state = absorbed(judged("p3", "wrong", origin=origin))
    assert (state.incorrect, state.remaining) == ((), list(D))
    assert absorbed(judged("p3", "correct", origin=origin)).train != ()


def test_one_right_path_a_problem_is_kept_the_first() -> None:
    items = [judged("p1", "wrong", "0"), judged("p1", "correct", "1"), judged("p1", "correct", "2")]
    assert [p.id for p in absorbed(*items).train] == [items[1].path.id]
    assert [p.id for p in absorbed(*items, keep="all").train] == [i.path.id for i in items[1:]]


def test_a_problem_that_is_solved_keeps_its_one_path_in_later_rounds() -> None:
    first, later = judged("p1", "correct", "0"), judged("p1", "correct", "1")
    assert absorbed(first).absorb([later], accept).train == (first.path,)
    assert absorbed(first).absorb([later], accept, keep="all").train == (first.path, later.path)


def test_absorbing_the_same_paths_again_adds_no_training_row() -> None:
    items = [judged("p1", "correct"), judged("p2", "correct")]
    state = absorbed(*items)
    assert state.absorb(items, accept, keep="all").train == state.train


def test_a_state_does_not_change_what_it_came_from() -> None:
    start = absorbed(judged("p1", "wrong"))
    start.absorb([judged("p1", "correct", "1")], accept)
    assert start.train == () and len(start.incorrect) == 1


@pytest.mark.parametrize("keep", ["one", 2, "balanced", "all"])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_absorbed_train_and_remaining_are_disjoint_and_together_d(seed: int, keep: Keep) -> None:
    draw, state = random.Random(seed), EvolutionState(D)
    for round_ in range(4):
        asked = state.remaining
        items = [any_word(draw, p, f"{round_}.{k}") for p in asked for k in range(draw.randrange(3))]
        before, state = state, state.absorb(items, accept, keep)
        solved = {p.problem_id for p in state.train}
        assert solved.isdisjoint(state.remaining) and solved | set(state.remaining) == set(D)
        assert solved == {p.problem_id for p in before.train} | {i.path.problem_id for i in items if accept(i.verdict)}
        assert state.train[: len(before.train)] == before.train
        assert state.incorrect[: len(before.incorrect)] == before.incorrect
        assert {i.path.lineage.origin for i in state.incorrect} <= {"student"}
        assert keep != "one" or max(Counter(p.problem_id for p in state.train).values(), default=1) == 1


def test_the_newest_draft_of_each_unsolved_problem_is_reflected_on_in_the_order_of_d() -> None:
    first = [judged("p5", "wrong", "old"), judged("p2", "wrong", "old"), judged("p1", "wrong", "old")]
    second = [judged("p5", "unparsed", "new"), judged("p1", "correct", "new")]
    state = absorbed(*first).absorb(second, accept)
    assert state.to_reflect(all_drafts=False) == [first[1], second[0]]


def test_with_all_drafts_each_rejected_draft_is_reflected_on_also_of_solved_problems() -> None:
    first = [judged("p5", "wrong", "old"), judged("p1", "wrong", "old")]
    second = [judged("p5", "wrong", "new"), judged("p1", "correct", "new")]
    state = absorbed(*first).absorb(second, accept)
    assert state.to_reflect(all_drafts=True) == [*first, second[0]]


def test_a_problem_that_nobody_drafted_has_nothing_to_reflect_on() -> None:
    assert EvolutionState(D).to_reflect(all_drafts=False) == []


def test_a_state_comes_back_from_its_files(tmp_path: Path) -> None:
    state = absorbed(judged("p1", "correct", score=0.9), judged("p2", "wrong", score=0.1), judged("p3", "unparsed"))
    state.save(tmp_path)
    assert EvolutionState.load(tmp_path, D) == state
    EvolutionState(D).save(tmp_path)
    assert EvolutionState.load(tmp_path, D) == EvolutionState(D)


def test_each_training_row_on_disk_says_id_problem_text_and_lineage(tmp_path: Path) -> None:
    absorbed(judged("p1", "correct")).save(tmp_path)
    [line] = (tmp_path / TRAIN).read_text().splitlines()
    for key in ('"id"', '"problem_id"', '"text"', '"lineage"'):
        assert key in line


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    absorbed(judged("p1", "wrong"), judged("p2", "wrong")).save(tmp_path)
    (tmp_path / INCORRECT).write_text((tmp_path / INCORRECT).read_text()[:-20])
    with pytest.raises(DataError, match=f"{INCORRECT}:2"):
        list(EvolutionState.load(tmp_path, D).incorrect)


def same_text(problem_id: str, name: str, text: str) -> Judged:
    one = path(problem_id, name, text)
    return Judged(one, verdict(one, "correct"))


@pytest.mark.parametrize("keep", [3, "all", "balanced"])
def test_two_paths_that_differ_in_blanks_alone_are_one_row(keep: Keep) -> None:
    twice = [same_text("p1", "0", "3 + 4 = 7"), same_text("p1", "1", "3+4 =  7"), same_text("p1", "2", "4 + 3 = 7")]
    assert [p.id for p in absorbed(*twice, keep=keep).train] == [twice[0].path.id, twice[2].path.id]


def with_parent(problem_id: str, name: str, parent: str, origin: Origin, status: Status = "correct") -> Judged:
    """A path with the text "the same" whose lineage names a parent."""
    bare = path(problem_id, name, "the same", origin)
    child = replace(bare, lineage=replace(bare.lineage, parent=parent))
    return Judged(child, verdict(child, status))


def test_equal_rewrites_of_two_drafts_are_two_rows_and_of_one_draft_one_row() -> None:
    items = [with_parent("p1", name, parent, "reflection") for name, parent in (("0", "a"), ("1", "b"), ("2", "a"))]
    assert [p.id for p in absorbed(*items, keep="all").train] == [items[0].path.id, items[1].path.id]


def test_equal_paths_of_a_student_are_one_row_whatever_their_parents_are() -> None:
    items = [with_parent("p1", name, parent, "student") for name, parent in (("0", "a"), ("1", "b"))]
    assert [p.id for p in absorbed(*items, keep="all").train] == [items[0].path.id]


def test_equal_texts_about_two_problems_are_two_rows() -> None:
    items = [same_text("p1", "0", "12"), same_text("p2", "0", "12")]
    assert len(absorbed(*items, keep="all").train) == 2


def test_the_next_try_rewrites_only_drafts_without_an_accepted_rewrite() -> None:
    drafts = [judged(problem_id, "wrong") for problem_id in ("p1", "p2", "p3")]
    first, second, third = (draft.path.id for draft in drafts)
    rewrites = [
        with_parent("p1", "r1", first, "reflection"),
        with_parent("p2", "r2", second, "reflection", "wrong"),
        with_parent("p3", "r3", third, "reflection", "unparsed"),
        with_parent("p3", "r4", third, "reflection"),
    ]
    assert list(select_pending(drafts, rewrites, accept)) == [drafts[1]]
    assert list(select_pending(drafts, [], accept)) == drafts


def test_keep_n_counts_the_rows_that_a_problem_has_already() -> None:
    first = absorbed(judged("p1", "correct", "0"), keep=2)
    later = [judged("p1", "correct", str(k)) for k in (1, 2, 3)]
    assert [p.id for p in first.absorb(later, accept, 2).train] == ["round_01/p1/0", "round_01/p1/1"]


def test_balanced_cuts_easy_problems_to_the_mean_of_all_solved_ones() -> None:
    easy = [judged("p1", "correct", str(k)) for k in range(4)]
    hard = [judged("p2", "correct", "0"), judged("p2", "wrong", "1"), judged("p3", "correct", "0")]
    assert Counter(p.problem_id for p in absorbed(*easy, *hard, keep="balanced").train) == {"p1": 2, "p2": 1, "p3": 1}


def test_balanced_keeps_a_row_of_each_problem_and_rounds_the_mean_down() -> None:
    one = [judged("p1", "correct", "0")]
    assert len(absorbed(*one, keep="balanced").train) == 1
    # five texts of two problems: a mean of 2.5 keeps two rows
    many = [judged("p1", "correct", str(k)) for k in range(4)] + [judged("p2", "correct", "0")]
    assert Counter(p.problem_id for p in absorbed(*many, keep="balanced").train) == {"p1": 2, "p2": 1}


def test_new_paths_of_a_problem_that_was_sampled_again_replace_the_students_older_ones() -> None:
    taught, old = judged("p1", "correct", "t", "teacher"), judged("p2", "correct", "old")
    state = absorbed(taught, old, judged("p3", "correct", "old"))
    new = [judged("p2", "correct", "new"), judged("p3", "wrong", "new")]
    renewed = state.absorb(new, accept, renew=True)
    assert [p.id for p in renewed.train] == ["round_01/p1/t", "round_01/p3/old", "round_01/p2/new"]
    assert renewed.remaining == state.remaining
