"""Figures of a judge that scores paths, each for many weightings of the paths at once: the bootstrap is one call.

A figure takes ``weights`` (draws, paths) and gives a number a draw, NaN where there is none. A row of ones gives the
figure itself; a resample of the problems gives each path the number of times that its problem was drawn, since paths of
one problem are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mathse.scoring.metrics import Interval

DRAWS = 1_000
LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval
CELLS = 4_000_000  # weights held at a time
BINS = 10

Array = NDArray[np.float64]
Figure = Callable[["Marks", Array], Array]


@dataclass(frozen=True)
class Marks:
    """What the figures are computed from, a place a path.

    ``rank``: P(correct), of a verdict without one 1 or 0 by its status, so that a judge gains nothing by staying
    silent. ``acceptance``: P(correct) of paths called correct, -1 of all others, which no threshold accepts.
    """

    right: NDArray[np.bool_]
    rank: Array
    acceptance: Array
    scored: NDArray[np.bool_]  # whether the verdict has a P(correct)
    problems: Sequence[str]


def estimate(figure: Figure, marks: Marks) -> float | None:
    """The figure of all paths; None where there is none."""
    found = figure(marks, np.ones((1, len(marks.right))))[0]
    return None if np.isnan(found) else float(found)


def interval(figure: Figure, marks: Marks, seed: int = 0) -> Interval | None:
    """The percentile bootstrap interval over problems; None where the figure has no value or only one problem is
    there."""
    _, place = np.unique(np.asarray(marks.problems), return_inverse=True)
    count = int(place.max(initial=-1)) + 1
    if count < 2:
        return None
    draw = np.random.default_rng(seed)
    step = max(1, CELLS // len(place))
    chunks = [min(step, DRAWS - k) for k in range(0, DRAWS, step)]
    weights = (draw.multinomial(count, np.full(count, 1 / count), size=n).astype(float)[:, place] for n in chunks)
    found = np.concatenate([figure(marks, w) for w in weights])
    found = found[~np.isnan(found)]
    if not len(found):
        return None
    low, high = np.percentile(found, LEVEL)
    return float(low), float(high)


# --- ranking ----------------------------------------------------------------------------------------------------------


def auroc(marks: Marks, weights: Array) -> Array:
    """Area under the ROC curve: how often a right path is ranked above a wrong one, ties count half."""
    right, wrong = _by_score(marks, weights)
    below = np.cumsum(wrong, axis=1) - wrong
    wins = (right * (below + wrong / 2)).sum(axis=1)
    return _ratio(wins, right.sum(axis=1) * wrong.sum(axis=1))


def average_precision(marks: Marks, weights: Array) -> Array:
    """Precision averaged over the recall gained at each score, from the highest down (no interpolation)."""
    right, wrong = (side[:, ::-1] for side in _by_score(marks, weights))
    taken = np.cumsum(right, axis=1)
    precision = _ratio(taken, taken + np.cumsum(wrong, axis=1))
    return _ratio((right * np.nan_to_num(precision)).sum(axis=1), taken[:, -1])


def _by_score(marks: Marks, weights: Array) -> tuple[Array, Array]:
    """(draws, different scores) weights of right and of wrong paths, the lowest score first."""
    order = np.argsort(marks.rank, kind="stable")
    ranked = marks.rank[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    right = weights * marks.right
    return tuple(np.add.reduceat(side[:, order], starts, axis=1) for side in (right, weights - right))  # type: ignore[return-value]


def roc(marks: Marks) -> list[tuple[float, float]]:
    """(share of wrong paths, share of right ones) above each score, from the highest score down."""
    right, wrong = (side[0, ::-1].cumsum() for side in _by_score(marks, np.ones((1, len(marks.right)))))
    points = zip(wrong / wrong[-1], right / right[-1], strict=True)
    return [(0.0, 0.0), *((float(x), float(y)) for x, y in points)]


# --- calibration ------------------------------------------------------------------------------------------------------


def brier(marks: Marks, weights: Array) -> Array:
    """Mean squared distance of P(correct) from what is true, over the paths with a score."""
    of_scored = weights * marks.scored
    return _ratio((of_scored * (marks.rank - marks.right) ** 2).sum(axis=1), of_scored.sum(axis=1))


def ece(marks: Marks, weights: Array) -> Array:
    """Expected calibration error over ten bins of equal width: how far P(correct) is from the share that is right."""
    of_scored = weights * marks.scored
    place = np.minimum((marks.rank * BINS).astype(int), BINS - 1)
    apart = of_scored * (marks.rank - marks.right)
    off = sum(np.abs(apart[:, place == k].sum(axis=1)) for k in range(BINS))
    return _ratio(np.asarray(off), of_scored.sum(axis=1))


# --- decisions --------------------------------------------------------------------------------------------------------


def balanced_accuracy(threshold: float) -> Figure:
    """The mean of the shares of right paths accepted and of wrong ones rejected."""

    def figure(marks: Marks, weights: Array) -> Array:
        taken = marks.acceptance >= threshold
        right = _ratio((weights * (marks.right & taken)).sum(axis=1), (weights * marks.right).sum(axis=1))
        wrong = _ratio((weights * ~(marks.right | taken)).sum(axis=1), (weights * ~marks.right).sum(axis=1))
        return (right + wrong) / 2

    return figure


def f1(threshold: float) -> Figure:
    """The harmonic mean of the precision and the recall of acceptance."""

    def figure(marks: Marks, weights: Array) -> Array:
        taken = marks.acceptance >= threshold
        hits = (weights * (marks.right & taken)).sum(axis=1)
        return _ratio(2 * hits, (weights * taken).sum(axis=1) + (weights * marks.right).sum(axis=1))

    return figure


def kappa(other: NDArray[np.bool_], threshold: float) -> Figure:
    """Cohen's kappa of acceptance and another yes or no on the same paths: agreement beyond chance."""

    def figure(marks: Marks, weights: Array) -> Array:
        taken = marks.acceptance >= threshold
        total = weights.sum(axis=1)
        agreed = _ratio((weights * (taken == other)).sum(axis=1), total)
        one, two = (_ratio((weights * mark).sum(axis=1), total) for mark in (taken, other))
        chance = one * two + (1 - one) * (1 - two)
        return _ratio(agreed - chance, 1 - chance)

    return figure


def _ratio(part: Array, whole: Array) -> Array:
    """``part / whole``, NaN where ``whole`` is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
