"""Statistics of a judge that scores paths, each for many weightings of the paths at once: the bootstrap is one call.

A statistic takes ``weights`` (draws, paths) and gives a number a draw, NaN where there is none. A row of ones gives the
statistic itself; a resample of the problems gives each path the number of times that its problem was drawn, since paths
of one problem are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mathse.scoring import ranking
from mathse.scoring.metrics import Interval
from mathse.scoring.ranking import Array, ratio

DRAWS = 1_000
LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval
CELLS = 4_000_000  # weights in memory at a time
BINS = 10

Statistic = Callable[["Marks", Array], Array]


@dataclass(frozen=True)
class Marks:
    """What the statistics are computed from, an element a path.

    ``rank``: see ``mathse.scoring.ranking.rank_of``. ``acceptance``: the rank of paths called correct, -1 of all
    others, which no threshold accepts.
    """

    right: NDArray[np.bool_]
    rank: Array
    acceptance: Array
    scored: NDArray[np.bool_]  # whether the verdict has a P(correct)
    problems: Sequence[str]


def estimate(statistic: Statistic, marks: Marks) -> float | None:
    """The statistic of all paths; None where there is none."""
    value = statistic(marks, np.ones((1, len(marks.right))))[0]
    return None if np.isnan(value) else float(value)


def interval(statistic: Statistic, marks: Marks, seed: int = 0) -> Interval | None:
    """The percentile bootstrap interval over problems; None where the statistic has no value, or there is only one
    problem."""
    _, problem = np.unique(np.asarray(marks.problems), return_inverse=True)  # (paths,), the number of its problem
    count = int(problem.max(initial=-1)) + 1
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // len(problem))
    chunks = [min(step, DRAWS - k) for k in range(0, DRAWS, step)]
    # (draws, problems) times drawn -> (draws, paths)
    weights = (rng.multinomial(count, np.full(count, 1 / count), size=n).astype(float)[:, problem] for n in chunks)
    values = np.concatenate([statistic(marks, w) for w in weights])
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, LEVEL)
    return float(low), float(high)


# --- ranking ----------------------------------------------------------------------------------------------------------


def auroc(marks: Marks, weights: Array) -> Array:
    """Area under the ROC curve of P(correct)."""
    return ranking.auroc(marks.rank, marks.right, weights)


def average_precision(marks: Marks, weights: Array) -> Array:
    """Precision averaged over the recall gained at each score, from the highest down (no interpolation)."""
    # Each (draws, scores): the weight of right and of wrong paths at each score, the highest first.
    right, wrong = (side[:, ::-1] for side in ranking.by_rank(marks.rank, marks.right, weights))
    hits = np.cumsum(right, axis=1)  # (draws, scores), accepted down to each score
    precision = ratio(hits, hits + np.cumsum(wrong, axis=1))
    return ratio((right * np.nan_to_num(precision)).sum(axis=1), hits[:, -1])


def roc(marks: Marks) -> list[tuple[float, float]]:
    """(share of wrong paths, share of right ones) above each score, from the highest score down."""
    right, wrong = (
        side[0, ::-1].cumsum() for side in ranking.by_rank(marks.rank, marks.right, np.ones((1, len(marks.right))))
    )
    points = zip(wrong / wrong[-1], right / right[-1], strict=True)
    return [(0.0, 0.0), *((float(x), float(y)) for x, y in points)]


# --- calibration ------------------------------------------------------------------------------------------------------


def brier(marks: Marks, weights: Array) -> Array:
    """Mean squared distance of P(correct) from what is true, over the paths with a score."""
    of_scored = weights * marks.scored
    return ratio((of_scored * (marks.rank - marks.right) ** 2).sum(axis=1), of_scored.sum(axis=1))


def ece(marks: Marks, weights: Array) -> Array:
    """Expected calibration error over ten bins of equal width: how far P(correct) is from the share that is right."""
    of_scored = weights * marks.scored
    bins = np.minimum((marks.rank * BINS).astype(int), BINS - 1)  # (paths,)
    gaps = of_scored * (marks.rank - marks.right)  # (draws, paths)
    error = sum(np.abs(gaps[:, bins == k].sum(axis=1)) for k in range(BINS))
    return ratio(np.asarray(error), of_scored.sum(axis=1))


# --- decisions --------------------------------------------------------------------------------------------------------


def balanced_accuracy(threshold: float) -> Statistic:
    """The mean of the shares of right paths accepted and of wrong ones rejected."""

    def statistic(marks: Marks, weights: Array) -> Array:
        accepted = marks.acceptance >= threshold
        right = ratio((weights * (marks.right & accepted)).sum(axis=1), (weights * marks.right).sum(axis=1))
        wrong = ratio((weights * ~(marks.right | accepted)).sum(axis=1), (weights * ~marks.right).sum(axis=1))
        return (right + wrong) / 2

    return statistic


def f1(threshold: float) -> Statistic:
    """The harmonic mean of the precision and the recall of acceptance."""

    def statistic(marks: Marks, weights: Array) -> Array:
        accepted = marks.acceptance >= threshold
        hits = (weights * (marks.right & accepted)).sum(axis=1)
        return ratio(2 * hits, (weights * accepted).sum(axis=1) + (weights * marks.right).sum(axis=1))

    return statistic


def kappa(other: NDArray[np.bool_], threshold: float) -> Statistic:
    """Cohen's kappa of acceptance and another yes or no on the same paths: agreement beyond chance."""

    def statistic(marks: Marks, weights: Array) -> Array:
        accepted = marks.acceptance >= threshold  # (paths,)
        total = weights.sum(axis=1)
        agreed = ratio((weights * (accepted == other)).sum(axis=1), total)
        one, two = (ratio((weights * mark).sum(axis=1), total) for mark in (accepted, other))
        chance = one * two + (1 - one) * (1 - two)
        return ratio(agreed - chance, 1 - chance)

    return statistic
