"""Statistics of a judge with scores, each for many weightings of the paths at once: a bootstrap is a single call.

A statistic takes ``weights`` (draws, paths) and returns a number for each draw, NaN if it is not defined. A row of ones
gives the statistic itself. In a bootstrap draw, the weight of a path is the number of times that its problem was drawn:
problems are drawn, because paths of the same problem are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mathse.scoring import ranking
from mathse.scoring.metrics import Interval
from mathse.scoring.ranking import Array, ratio

DRAWS = 1_000  # of the bootstrap
MAX_WEIGHTS = 4_000_000  # weights in memory at a time
BINS = 10  # of calibration

Statistic = Callable[["PathMarks", Array], Array]


@dataclass(frozen=True)
class PathMarks:
    """Arrays with an element for each path: the input of all statistics.

    Attributes:
        right: the label.
        rank: see ``mathse.scoring.ranking.rank_of``.
        acceptance: the rank of paths called correct; -1 for all others, which no threshold accepts.
        scored: whether the verdict has a P(correct).
        problems: ids of the problems.
    """

    right: NDArray[np.bool_]
    rank: Array
    acceptance: Array
    scored: NDArray[np.bool_]
    problems: Sequence[str]


def estimate(statistic: Statistic, marks: PathMarks) -> float | None:
    """Compute the statistic of all paths; None if it is not defined."""
    value = statistic(marks, np.ones((1, len(marks.right))))[0]
    return None if np.isnan(value) else float(value)


def interval(statistic: Statistic, marks: PathMarks, seed: int = 0) -> Interval | None:
    """Compute the 95 % percentile bootstrap interval over problems.

    Returns None with a single problem, or if the statistic is not defined in any draw.
    """
    _, problem = np.unique(np.asarray(marks.problems), return_inverse=True)  # (paths,), the number of its problem
    count = int(problem.max(initial=-1)) + 1
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    step = max(1, MAX_WEIGHTS // len(problem))
    values_of_chunks = []
    for start in range(0, DRAWS, step):
        size = min(step, DRAWS - start)
        times_drawn = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(float)  # (draws, problems)
        values_of_chunks.append(statistic(marks, times_drawn[:, problem]))  # weights: (draws, paths)
    values = np.concatenate(values_of_chunks)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


# --- ranking ----------------------------------------------------------------------------------------------------------


def auroc(marks: PathMarks, weights: Array) -> Array:
    """Compute the area under the ROC curve of P(correct)."""
    return ranking.auroc(marks.rank, marks.right, weights)


def average_precision(marks: PathMarks, weights: Array) -> Array:
    """Average the precision over the recall gained at each score, from the highest down (no interpolation)."""
    # (draws, scores) each: the weight of right and of wrong paths at each score, the highest first.
    right, wrong = (side[:, ::-1] for side in ranking.by_rank(marks.rank, marks.right, weights))
    hits = np.cumsum(right, axis=1)  # (draws, scores), accepted down to each score
    precision = ratio(hits, hits + np.cumsum(wrong, axis=1))
    return ratio((right * np.nan_to_num(precision)).sum(axis=1), hits[:, -1])


def roc(marks: PathMarks) -> list[tuple[float, float]]:
    """Return (share of wrong paths, share of right paths) above each score, from the highest score down."""
    right, wrong = (
        side[0, ::-1].cumsum() for side in ranking.by_rank(marks.rank, marks.right, np.ones((1, len(marks.right))))
    )
    points = zip(wrong / wrong[-1], right / right[-1], strict=True)
    return [(0.0, 0.0), *((float(x), float(y)) for x, y in points)]


# --- calibration ------------------------------------------------------------------------------------------------------


def brier(marks: PathMarks, weights: Array) -> Array:
    """Compute the Brier score: the mean squared error of P(correct), over the paths with a score."""
    score_weights = weights * marks.scored
    return ratio((score_weights * (marks.rank - marks.right) ** 2).sum(axis=1), score_weights.sum(axis=1))


def ece(marks: PathMarks, weights: Array) -> Array:
    """Compute the expected calibration error: the mean distance of P(correct) from the share of right paths in a bin.

    There are ten bins of equal width.
    """
    score_weights = weights * marks.scored
    bins = np.minimum((marks.rank * BINS).astype(int), BINS - 1)  # (paths,)
    gaps = score_weights * (marks.rank - marks.right)  # (draws, paths)
    error = sum(np.abs(gaps[:, bins == k].sum(axis=1)) for k in range(BINS))
    return ratio(np.asarray(error), score_weights.sum(axis=1))


# --- decisions --------------------------------------------------------------------------------------------------------


def balanced_accuracy(threshold: float) -> Statistic:
    """Return a statistic: the mean of the shares of right paths accepted and of wrong paths rejected."""

    def statistic(marks: PathMarks, weights: Array) -> Array:
        accepted = marks.acceptance >= threshold
        right = ratio((weights * (marks.right & accepted)).sum(axis=1), (weights * marks.right).sum(axis=1))
        wrong = ratio((weights * ~(marks.right | accepted)).sum(axis=1), (weights * ~marks.right).sum(axis=1))
        return (right + wrong) / 2

    return statistic


def f1(threshold: float) -> Statistic:
    """Return a statistic: the harmonic mean of the precision and the recall of acceptance."""

    def statistic(marks: PathMarks, weights: Array) -> Array:
        accepted = marks.acceptance >= threshold
        hits = (weights * (marks.right & accepted)).sum(axis=1)
        return ratio(2 * hits, (weights * accepted).sum(axis=1) + (weights * marks.right).sum(axis=1))

    return statistic


def kappa(other: NDArray[np.bool_], threshold: float) -> Statistic:
    """Return a statistic: Cohen's kappa of acceptance and ``other`` (paths,), the agreement beyond chance."""

    def statistic(marks: PathMarks, weights: Array) -> Array:
        accepted = marks.acceptance >= threshold  # (paths,)
        total = weights.sum(axis=1)
        agreement = ratio((weights * (accepted == other)).sum(axis=1), total)
        # Shares of yes in each, and the agreement of two independent raters with these shares.
        p_accepted, p_other = (ratio((weights * mark).sum(axis=1), total) for mark in (accepted, other))
        chance = p_accepted * p_other + (1 - p_accepted) * (1 - p_other)
        return ratio(agreement - chance, 1 - chance)

    return statistic
