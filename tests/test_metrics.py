from __future__ import annotations

import random

import pytest

from mathse.errors import DataError
from mathse.scoring.metrics import (
    accuracy,
    auroc,
    first_step,
    like_chance,
    mean_interval,
    mean_share,
    orm_metrics,
    reliability,
    student_t,
    transitions,
    wilson,
)
from mathse.types import Verdict


def verdict(path: str, status: str, step: str | None = None, score: float | None = None) -> Verdict:
    return Verdict(path, status, error_step=step, score=score)  # type: ignore[arg-type]


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3 (z = 1.959964)
    for correct, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(correct, total, z=1.959964) == pytest.approx((low, high), abs=1e-4)


def test_wilson_stays_within_bounds_at_both_ends_and_knows_nothing_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


def test_an_interval_of_a_share_ends_where_shares_do() -> None:
    assert mean_share([0.98, 1.0, 1.0])[1] == pytest.approx((mean_interval([0.98, 1.0, 1.0])[1] or (0,))[:1] + (1.0,))
    assert mean_share([0.0, 0.01])[1] == pytest.approx((0.0, 0.005 + 12.706 * 0.005))
    assert mean_share([0.5]) == (0.5, None)


@pytest.mark.parametrize(("correct", "total"), [(3, 2), (-1, 2)])
def test_wilson_refuses_more_right_than_counted(correct: int, total: int) -> None:
    with pytest.raises(DataError, match="between 0 and"):
        wilson(correct, total)


def test_transitions_sum_to_the_test_set_and_tell_both_accuracies() -> None:
    before = {"a": True, "b": True, "c": False, "d": False, "e": False}
    after = {"e": True, "a": True, "b": False, "c": True, "d": False}
    counts = transitions(before, after)
    assert counts == {"correct_correct": 1, "correct_wrong": 1, "wrong_correct": 2, "wrong_wrong": 1}


def test_transitions_between_different_problems_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="'b'"):
        transitions({"a": True}, {"a": True, "b": False})


def test_accuracy_of_no_rows_is_null() -> None:
    assert accuracy([]) == {"accuracy": None, "correct": 0, "total": 0, "ci95": [0.0, 1.0]}
    figures = accuracy({"correct": k < 3} for k in range(4))
    assert (figures["accuracy"], figures["correct"], figures["total"]) == (0.75, 3, 4)
    assert figures["ci95"] == list(wilson(3, 4))


def test_orm_figures_count_each_kind_of_mistake() -> None:
    labels = [
        verdict("a", "correct"),
        verdict("b", "correct"),
        verdict("c", "wrong", "Step 2"),
        verdict("d", "wrong", "Step 1"),
        verdict("e", "wrong", "Step 3"),
        verdict("f", "wrong", "Step 2"),
    ]
    verdicts = [
        verdict("a", "correct", score=0.9),
        verdict("b", "correct", score=0.4),
        verdict("c", "wrong", "Steps 2 and 4", 0.1),
        verdict("d", "wrong", "Step 3", 0.2),
        verdict("e", "correct", "Step 3", 0.8),
        verdict("f", "unparsed", "Step 2"),
    ]
    figures = orm_metrics(labels, verdicts, threshold=0.5)
    assert figures["positive_accuracy"] == 1 / 2  # b falls below the threshold
    assert figures["negative_accuracy"] == 3 / 4  # e is accepted; an unparsed verdict rejects
    assert figures["overall_accuracy"] == 4 / 6
    assert figures["error_step_accuracy"] == 1 / 4  # only c: d is off, e accepted, f unparsed
    assert (figures["n"], figures["unparsed"]) == (6, 1)
    assert figures["ci95"]["overall_accuracy"] == list(wilson(4, 6))


def test_a_threshold_moves_paths_from_accepted_to_rejected() -> None:
    labels, verdicts = [verdict("a", "correct")], [verdict("a", "correct", score=0.6)]
    assert orm_metrics(labels, verdicts, threshold=0.6)["positive_accuracy"] == 1
    assert orm_metrics(labels, verdicts, threshold=0.61)["positive_accuracy"] == 0


def test_empty_classes_give_null_figures() -> None:
    nothing = orm_metrics([], [], 0.5)
    assert nothing["overall_accuracy"] is None
    assert nothing["ci95"]["overall_accuracy"] is None
    only_right = orm_metrics([verdict("a", "correct")], [verdict("a", "correct", score=0.7)], 0.5)
    assert only_right["positive_accuracy"] == 1
    assert only_right["negative_accuracy"] is only_right["error_step_accuracy"] is only_right["auroc"] is None


@pytest.mark.parametrize(
    ("right_accepted", "wrong_accepted", "chance"),
    [(20, 20, True), (0, 0, True), (12, 8, True), (8, 12, True), (16, 4, False), (20, 0, False), (None, 3, False)],
)
def test_a_judge_is_like_chance_until_its_intervals_part(
    right_accepted: int | None, wrong_accepted: int, chance: bool
) -> None:
    marks = [("correct", k < (right_accepted or 0)) for k in range(20) if right_accepted is not None]
    marks += [("wrong", k < wrong_accepted) for k in range(20)]
    labels = [verdict(str(k), label) for k, (label, _) in enumerate(marks)]
    verdicts = [verdict(str(k), "correct" if accepts else "wrong") for k, (_, accepts) in enumerate(marks)]
    assert like_chance(orm_metrics(labels, verdicts, 0.5)) == chance


def test_without_labelled_steps_there_is_no_step_figure() -> None:
    figures = orm_metrics([verdict("a", "wrong")], [verdict("a", "wrong", "Step 1")], 0.5)
    assert figures["negative_accuracy"] == 1
    assert figures["error_step_accuracy"] is None


def test_a_judge_that_never_names_a_step_has_no_step_figure() -> None:
    paths = [verdict("a", "wrong", "Step 1")], [verdict("a", "wrong")]
    assert orm_metrics(*paths, 0.5)["error_step_accuracy"] == 0
    assert orm_metrics(*paths, 0.5, names_steps=False)["error_step_accuracy"] is None


def test_misaligned_labels_are_refused() -> None:
    with pytest.raises(DataError, match="'b'"):
        orm_metrics([verdict("a", "correct")], [verdict("b", "correct")], 0.5)
    with pytest.raises(DataError, match="1 labels but 0"):
        orm_metrics([verdict("a", "correct")], [], 0.5)
    with pytest.raises(DataError, match="unparsed"):
        orm_metrics([verdict("a", "unparsed")], [verdict("a", "correct")], 0.5)


def test_auroc_equals_the_count_of_ordered_pairs() -> None:
    rng = random.Random(0)
    labels = [verdict(str(k), rng.choice(("correct", "wrong"))) for k in range(80)]
    verdicts = [verdict(str(k), "correct", score=rng.randrange(8) / 8) for k in range(80)]
    right = [v.score or 0 for label, v in zip(labels, verdicts, strict=True) if label.status == "correct"]
    wrong = [v.score or 0 for label, v in zip(labels, verdicts, strict=True) if label.status == "wrong"]
    pairs = sum((r > w) + (r == w) / 2 for r in right for w in wrong)
    assert auroc(labels, verdicts) == pytest.approx(pairs / (len(right) * len(wrong)))


def test_auroc_needs_scores_and_an_unparsed_verdict_ranks_last() -> None:
    labels = [verdict("a", "correct"), verdict("b", "wrong")]
    assert auroc(labels, [verdict("a", "correct"), verdict("b", "wrong")]) is None
    assert auroc(labels, [verdict("a", "unparsed"), verdict("b", "wrong", score=0.1)]) == 0


def test_reliability_bins_hold_every_scored_path_once() -> None:
    scores = [0.0, 0.05, 0.1, 0.55, 0.95, 1.0]
    labels = [verdict(str(k), "correct" if s > 0.5 else "wrong") for k, s in enumerate(scores)]
    verdicts = [verdict(str(k), "correct", score=s) for k, s in enumerate(scores)]
    bins = reliability([*labels, verdict("x", "wrong")], [*verdicts, verdict("x", "unparsed")])
    assert [(b["low"], b["n"], b["correct"]) for b in bins] == [
        (0.0, 2, 0.0),
        (0.1, 1, 0.0),
        (0.5, 1, 1.0),
        (0.9, 2, 1.0),
    ]
    assert bins[-1]["mean_score"] == pytest.approx(0.975)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (15, 2.1314), (16, 2.1199), (17, 2.1098),
     (30, 2.0423), (60, 2.0003), (120, 1.9799), (100_000, 1.9600)],
)  # fmt: skip
def test_students_t_is_that_of_the_tables_at_every_number_of_seeds(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=5.1e-5)  # NIST Handbook of Statistical Methods, 1.3.6.7.2


def test_students_t_agrees_with_scipy_to_the_last_digits() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is no dependency; where it is here, it is asked")
    for level in (0.5, 0.9, 0.95, 0.99):
        ours = [student_t(freedom, level) for freedom in range(1, 60)]
        assert ours == pytest.approx(stats.t.ppf((1 + level) / 2, range(1, 60)), rel=1e-12)


def test_an_interval_over_many_seeds_is_not_too_narrow() -> None:
    values = [k / 100 for k in range(17)]
    mean, interval = mean_interval(values)
    assert interval is not None
    deviation = (sum((v - mean) ** 2 for v in values) / 16) ** 0.5
    assert (interval[1] - mean) / (deviation / 17**0.5) == pytest.approx(2.120, abs=5e-4)
    with pytest.raises(DataError, match="degree of freedom"):
        student_t(0)


def test_mean_interval_uses_students_t() -> None:
    mean, interval = mean_interval([0.90, 0.92, 0.94])
    assert mean == pytest.approx(0.92)
    assert interval == pytest.approx((0.92 - 4.303 * 0.02 / 3**0.5, 0.92 + 4.303 * 0.02 / 3**0.5))
    assert mean_interval([0.5]) == (0.5, None)
    with pytest.raises(DataError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize(
    ("words", "step"), [("Step 2", 2), ("Steps 12 and 4", 12), ("none", None), (None, None), ("", None)]
)
def test_the_first_number_names_the_step(words: str | None, step: int | None) -> None:
    assert first_step(words) == step
