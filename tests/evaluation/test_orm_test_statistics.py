"""The figures of a judge, against scikit-learn's and against cases done by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from small import path, problems

from mathse.data.labelled_paths import LabelledPath
from mathse.evaluation.orm_test import statistics
from mathse.evaluation.orm_test.metrics import JudgedPath, add_verdicts, marks_of, orm_metrics
from mathse.evaluation.orm_test.statistics import PathMarks, estimate, interval
from mathse.types import Problem, Status, Verdict

Said = tuple[Status, float | None, str | None]  # a verdict: status, score, step


def rows_of(cases: list[tuple[Status, Said]], threshold: float = 0.5, a_problem: int = 1) -> list[JudgedPath]:
    """(label, verdict) pairs as judged paths; ``a_problem``: so many paths of each problem."""
    pool = problems(1 + len(cases) // a_problem)
    given, verdicts = [], []
    for k, (label, (status, score, step)) in enumerate(cases):
        problem: Problem = pool[k // a_problem]
        of = path(problem.id, str(k))
        truth = Verdict(of.id, label, "Step 2" if label == "wrong" else None)
        given.append(LabelledPath(problem, of, truth, k + 1))
        verdicts.append(Verdict(of.id, status, step, score=score))
    return add_verdicts(given, verdicts[::-1], threshold)


def drawn(count: int, seed: int = 0, decimals: int = 6) -> list[JudgedPath]:
    """Dice: labels and scores that go together somewhat; few ``decimals`` make ties. A tenth is unparsed."""
    draw = np.random.default_rng(seed)
    cases: list[tuple[Status, Said]] = []
    for _ in range(count):
        right = bool(draw.random() < 0.6)
        score = round(float(np.clip(draw.normal(0.65 if right else 0.4, 0.25), 0, 1)), decimals)
        called: Status = "correct" if score >= 0.5 else "wrong"
        said: Said = ("unparsed", None, None) if draw.random() < 0.1 else (called, score, None)
        cases.append(("correct" if right else "wrong", said))
    return rows_of(cases, a_problem=2)


CASES = [drawn(300), drawn(300, 1, decimals=1), drawn(41, 2, decimals=0)]


def score(row: JudgedPath) -> float:
    """The rank of a path: P(correct); for an unparsed verdict, the status."""
    return row.verdict.score if row.verdict.score is not None else 0.0


@pytest.mark.parametrize("rows", CASES)
def test_ranking_is_scikit_learns_with_ties_and_unparsed_verdicts(rows: list[JudgedPath]) -> None:
    truth, scores = [r.is_right for r in rows], [score(r) for r in rows]
    marks = marks_of(rows)
    assert estimate(statistics.auroc, marks) == pytest.approx(sk.roc_auc_score(truth, scores))
    assert estimate(statistics.average_precision, marks) == pytest.approx(sk.average_precision_score(truth, scores))
    wrong, right, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    assert np.allclose(statistics.roc(marks), np.stack([wrong, right], 1))


@pytest.mark.parametrize("rows", CASES)
def test_brier_and_the_calibration_curve_are_scikit_learns_over_the_scored_paths(rows: list[JudgedPath]) -> None:
    scored = [r for r in rows if r.verdict.score is not None]
    assert 0 < len(scored) < len(rows)
    truth, scores = np.array([r.is_right for r in scored]), np.array([score(r) for r in scored])
    assert estimate(statistics.brier, marks_of(rows)) == pytest.approx(sk.brier_score_loss(truth, scores))
    if len({*scores}) > 20:  # scikit-learn puts a score on an edge into the bin below
        bins = orm_metrics(rows, 0.5, writes_steps=False)["calibration"]
        shares, means = calibration_curve(truth, scores, n_bins=10)
        assert [b["correct"] for b in bins] == pytest.approx(shares)
        assert [b["mean_score"] for b in bins] == pytest.approx(means)
        assert sum(b["n"] for b in bins) == len(scored)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("rows", CASES)
def test_decisions_are_scikit_learns(rows: list[JudgedPath], threshold: float) -> None:
    truth = np.array([r.is_right for r in rows])
    taken = np.array([r.verdict.status == "correct" and score(r) >= threshold for r in rows])
    marks = marks_of(rows)
    other = np.arange(len(rows)) % 3 > 0
    assert estimate(statistics.balanced_accuracy(threshold), marks) == pytest.approx(
        sk.balanced_accuracy_score(truth, taken)
    )
    assert estimate(statistics.f1(threshold), marks) == pytest.approx(sk.f1_score(truth, taken, zero_division=0))
    assert estimate(statistics.kappa(other, threshold), marks) == pytest.approx(sk.cohen_kappa_score(taken, other))


@pytest.mark.parametrize("rows", CASES)
def test_acceptance_against_the_threshold_is_scikit_learns_curve(rows: list[JudgedPath]) -> None:
    found = orm_metrics(rows, 0.5, writes_steps=False)
    truth = [r.is_right for r in rows]
    called = [score(r) if r.verdict.status == "correct" else -1.0 for r in rows]
    precision, recall, edges = sk.precision_recall_curve(truth, called)
    for row in found["thresholds"]:
        place = int(np.searchsorted(edges, row["threshold"]))  # the first edge that is not below it
        if place == len(edges):
            assert (row["accepted"], row["precision"], row["recall"]) == (0, None, 0.0)
        else:
            assert row["precision"] == pytest.approx(precision[place])
            assert row["recall"] == pytest.approx(recall[place])
    at = [row["threshold"] for row in found["thresholds"]]
    assert at == sorted(set(at)) and {k / 20 for k in range(21)} <= set(at) <= {k / 20 for k in range(21)} | set(called)


def test_a_sure_judge_is_told_apart_by_the_deciles_of_its_scores() -> None:
    sure: list[tuple[Status, Said]] = [("correct", ("correct", 0.99 + k / 1000, None)) for k in range(10)]
    found = orm_metrics(rows_of([*sure, ("wrong", ("correct", 0.989, None))]), 0.5, writes_steps=False)
    above = {row["accepted"]: row["precision"] for row in found["thresholds"] if 0.95 < row["threshold"] < 1}
    assert above[10] == 1 and set(range(3, 11)) <= set(above)  # of 11 paths called correct


@pytest.mark.parametrize("rows", CASES)
def test_accuracies_are_scikit_learns(rows: list[JudgedPath]) -> None:
    found = orm_metrics(rows, 0.5, writes_steps=True)
    truth, taken = [r.is_right for r in rows], [r.accepted for r in rows]
    assert found["overall_accuracy"] == pytest.approx(sk.accuracy_score(truth, taken))
    assert found["positive_accuracy"] == pytest.approx(sk.recall_score(truth, taken))
    assert found["negative_accuracy"] == pytest.approx(sk.recall_score(truth, taken, pos_label=False))
    assert found["unparsed"] == sum(r.verdict.status == "unparsed" for r in rows) > 0
    assert (found["paths"], found["right"]) == (len(rows), sum(truth))


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_ece_of_a_case_by_hand() -> None:
    right: Said = ("correct", 0.95, None)
    cases: list[tuple[Status, Said]] = [("correct", right), ("wrong", right)]  # a bin that is off by 0.45, twice
    cases += [("wrong", ("wrong", 0.2, None)), ("wrong", ("wrong", 0.25, None))]  # one whose mean 0.225 should be 0
    cases += [("wrong", ("unparsed", None, None))]  # without a score, so in no bin
    assert estimate(statistics.ece, marks_of(rows_of(cases))) == pytest.approx((2 * 0.45 + 2 * 0.225) / 4)
    certain = rows_of([("correct", ("correct", 1.0, None)), ("wrong", ("wrong", 0.0, None))])
    assert estimate(statistics.ece, marks_of(certain)) == 0  # a score of 1 has a bin too


def test_steps_are_hit_exactly_or_by_a_neighbour_and_what_is_accepted_or_unparsed_is_a_miss() -> None:
    said: list[Said] = [("wrong", 0.1, "Step 2"), ("wrong", 0.1, "Step 3"), ("wrong", 0.1, "Step 4"),
                        ("wrong", 0.1, None), ("correct", 0.9, "Step 2"), ("unparsed", None, "Step 2"),
                        ("correct", 0.4, "Step 1")]  # fmt: skip
    found = orm_metrics(rows_of([("wrong", s) for s in said]), 0.5, writes_steps=True)
    assert found["error_step_exact"] == pytest.approx(1 / 7)
    assert found["error_step_within_one"] == pytest.approx(3 / 7)
    assert found["negative_accuracy"] == pytest.approx(6 / 7)
    assert found["unparsed"] == 1


# --- where a figure has no value --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "unknown"), [("correct", "negative"), ("wrong", "positive")])
def test_with_paths_of_one_kind_alone_what_compares_two_is_not_known(status: Status, unknown: str) -> None:
    rows = rows_of([(status, ("correct", 0.5 + k / 20, None)) for k in range(8)])
    found = orm_metrics(rows, 0.5, writes_steps=True)
    assert found[f"{unknown}_accuracy"] is None and found["ci95"][f"{unknown}_accuracy"] is None
    assert found["auroc"] is None and found["ci95"]["auroc"] is None and found["balanced_accuracy"] is None
    assert found["overall_accuracy"] == (status == "correct")
    assert found["brier"] is not None and found["ece"] is not None
    assert any(unknown in note and "not known" in note for note in found["notes"])


def test_without_scores_nothing_that_needs_them_is_made_up() -> None:
    cases: list[tuple[Status, Said]] = [("correct", ("correct", None, None)), ("wrong", ("wrong", None, "Step 2"))]
    found = orm_metrics(rows_of(cases), 0.5, writes_steps=True)
    for key in ("auroc", "average_precision", "brier", "ece", "calibration", "thresholds"):
        assert found[key] is None
    assert (found["overall_accuracy"], found["error_step_exact"]) == (1.0, 1.0)
    assert any("gave no P(correct)" in note for note in found["notes"])


def test_a_binary_judge_is_not_asked_for_steps() -> None:
    found = orm_metrics(drawn(40), 0.5, writes_steps=False)
    assert found["error_step_exact"] is None and found["error_step_within_one"] is None
    assert any("writes no step" in note for note in found["notes"])


def test_a_judge_of_whom_nothing_can_be_read_rejects_everything() -> None:
    cases: list[tuple[Status, Said]] = [("correct", ("unparsed", None, None)), ("wrong", ("unparsed", None, None))]
    found = orm_metrics(rows_of(cases), 0.0, writes_steps=True)
    assert (found["positive_accuracy"], found["negative_accuracy"], found["unparsed"]) == (0.0, 1.0, 2)


# --- intervals --------------------------------------------------------------------------------------------------------

ALL: list[Callable[[PathMarks, Any], Any]] = [
    statistics.auroc, statistics.average_precision, statistics.brier, statistics.ece, statistics.balanced_accuracy(0.5),
    statistics.f1(0.6),
]  # fmt: skip


@pytest.mark.parametrize("figure", ALL)
def test_a_weight_is_so_many_copies_of_a_path(figure: Callable[[PathMarks, Any], Any]) -> None:
    rows = drawn(60, 3, decimals=2)
    times = np.random.default_rng(0).integers(0, 4, len(rows))
    copies = [row for row, n in zip(rows, times, strict=True) for _ in range(n)]
    weighted = figure(marks_of(rows), np.stack([times.astype(float), np.ones(len(rows))]))
    assert weighted[0] == pytest.approx(estimate(figure, marks_of(copies)))
    assert weighted[1] == pytest.approx(estimate(figure, marks_of(rows)))


@pytest.mark.parametrize("figure", ALL)
def test_intervals_hold_their_figure_depend_on_the_seed_alone_and_narrow_with_more_paths(
    figure: Callable[[PathMarks, Any], Any],
) -> None:
    few, many = marks_of(drawn(80, 4)), marks_of(drawn(1200, 4))
    low, high = interval(figure, many) or (1.0, 0.0)
    value = estimate(figure, many)
    assert value is not None and low - 0.01 <= value <= high + 0.01  # ECE's interval lies a little above it
    assert interval(figure, many, 1) == interval(figure, many, 1) != interval(figure, many, 2)
    wide = interval(figure, few)
    assert wide is not None and high - low < wide[1] - wide[0]


def test_paths_of_one_problem_are_drawn_together() -> None:
    """Ten equal paths of each problem have the information of a single path."""
    once: list[tuple[Status, Said]] = [("correct" if k % 3 else "wrong", ("correct", k / 30, None)) for k in range(30)]
    tenfold = [case for case in once for _ in range(10)]
    alone = interval(statistics.brier, marks_of(rows_of(once)))
    assert interval(statistics.brier, marks_of(rows_of(tenfold, a_problem=10))) == pytest.approx(alone)


def test_one_problem_alone_has_no_bootstrap_interval() -> None:
    rows = rows_of([("correct", ("correct", 0.9, None)), ("wrong", ("wrong", 0.2, None))], a_problem=2)
    found = orm_metrics(rows, 0.5, writes_steps=True)
    assert found["auroc"] == 1.0 and found["ci95"]["auroc"] is None
    assert found["ci95"]["overall_accuracy"] is not None
