"""Which of several answers counts, and accuracy against their number."""

from __future__ import annotations

from itertools import combinations

import pytest

from evaluation.cases import graded
from mathse.evaluation.grading import GradedAnswer
from mathse.evaluation.selectors import choose, pass_at, same_groups, sample_sizes, selector_curves
from mathse.scoring.metrics import wilson


def said(*predictions: str | None, p: tuple[float, ...] = ()) -> list[GradedAnswer]:
    """Answers to a problem with the right answer 1."""
    weights = p or (0.5,) * len(predictions)
    return [graded(text, text == "1", w, k) for k, (text, w) in enumerate(zip(predictions, weights, strict=True))]


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [("first", 0), ("majority", 1), ("orm", 3), ("orm_weighted", 2)],
)
def test_each_selector_takes_its_own_answer(selector: str, chosen: int) -> None:
    answers = said("7", "1", "2", "3", "1", "1", "2", p=(0.1, 0.2, 0.7, 0.9, 0.1, 0.1, 0.6))
    assert choose(answers, selector) == chosen


def test_ties_go_to_the_earliest_answer() -> None:
    answers = said("2", "1", "1", "2", p=(0.3, 0.3, 0.3, 0.3))
    assert [choose(answers, s) for s in ("first", "majority", "orm", "orm_weighted")] == [0, 0, 0, 0]


def test_the_same_value_written_differently_is_one_vote() -> None:
    assert same_groups(said("2", "0.5", "1/2", "2.0", "\\frac{1}{2}")) == [0, 1, 1, 0, 1]


def test_an_answer_that_says_nothing_has_no_vote() -> None:
    answers = said(None, "", "3")
    assert same_groups(answers) == [-1, -1, 2]
    assert choose(answers, "majority") == 2
    assert choose(said(None, ""), "majority") == 0


def test_votes_weigh_nothing_where_the_judge_could_not_be_read() -> None:
    assert choose(said("5", "1", p=(0.0, 0.2)), "orm_weighted") == 1


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_curve_doubles_and_ends_at_n(n: int, expected: list[int]) -> None:
    assert sample_sizes(n) == expected


def test_the_curve_takes_the_first_answers_of_one_pass() -> None:
    problems = [
        said("2", "1", "1", p=(0.9, 0.5, 0.6)),
        said("1", "2", "3", p=(0.1, 0.2, 0.9)),
        said("4", "5", "6", p=(0.1, 0.2, 0.3)),
    ]
    found = selector_curves(problems)
    right = {name: [point["correct"] for point in found[name]] for name in found if name != "n"}
    assert found["n"] == [1, 2, 3]
    assert right == {
        "first": [1, 1, 1],
        "majority": [1, 1, 2],
        "orm": [1, 0, 0],
        "orm_weighted": [1, 0, 1],
        "oracle": [1, pytest.approx(5 / 3), 2],
    }
    point = found["majority"][2]
    assert point["total"] == 3 and point["accuracy"] == 2 / 3
    low, high = point["ci95"]
    assert 0 <= low < 2 / 3 < high <= 1


def test_pass_at_n_is_the_mean_over_all_ways_to_take_n_of_the_answers() -> None:
    for marks in ([False, True, False, True], [True, False, False], [False] * 5, [True]):
        for k in range(1, len(marks) + 1):
            subsets = list(combinations(marks, k))
            assert pass_at(k, marks) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert pass_at(8, [False, True]) == 1.0  # a file may lack answers


def test_pass_at_n_does_not_depend_on_the_order_of_the_answers() -> None:
    first, last = selector_curves([said("1", "2", "3", "4")]), selector_curves([said("2", "3", "4", "1")])
    assert [p["accuracy"] for p in first["oracle"]] == [p["accuracy"] for p in last["oracle"]] == [0.25, 0.5, 1.0]


def test_a_curve_of_wrong_answers_alone_has_intervals() -> None:
    found = selector_curves([said("2", "3") for _ in range(9)])
    assert all(p["ci95"] == list(wilson(0, 9)) for name in ("first", "oracle") for p in found[name])


def test_without_an_orm_there_are_no_curves_of_it() -> None:
    problems = [[graded("1", True), graded("2", False)]]
    assert set(selector_curves(problems)) == {"n", "first", "majority", "oracle"}


def test_an_accuracy_that_hangs_on_an_unscored_answer_is_not_known() -> None:
    problems = [[graded("1", None), graded("2", False)], [graded("1", True), graded("2", None)]]
    found = selector_curves(problems)
    assert [p["accuracy"] for p in found["first"]] == [None, None]
    assert [p["accuracy"] for p in found["oracle"]] == [None, None]
    known = selector_curves([[graded("1", True), graded("2", None)]])
    assert [p["accuracy"] for p in known["oracle"]] == [None, 1.0]  # of both, one is right, whatever the other is
