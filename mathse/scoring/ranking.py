"""Ranking metrics of scores, with the same implementation for a figure and for its bootstrap.

Paths have weights of shape (draws, paths): a row of ones gives the figure, a row of counts gives that of a resample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mathse.types import Verdict

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def rank_of(verdict: Verdict) -> float:
    """Rank a verdict by P(correct), else 1 or 0 by its status, so that an unparsed verdict does not improve a judge."""
    return verdict.score if verdict.score is not None else float(verdict.status == "correct")


def auroc(rank: Array, right: Flags, weights: Array) -> Array:
    """Compute the area under the ROC curve, (draws,): the share of (right path, wrong path) pairs in which the right
    path ranks higher; ties count half. NaN with one class."""
    of_right, of_wrong = by_rank(rank, right, weights)
    below = np.cumsum(of_wrong, axis=1) - of_wrong  # (draws, ranks): wrong paths below each rank
    wins = (of_right * (below + of_wrong / 2)).sum(axis=1)
    return ratio(wins, of_right.sum(axis=1) * of_wrong.sum(axis=1))


def by_rank(rank: Array, right: Flags, weights: Array) -> tuple[Array, Array]:
    """Sum the weights of right and of wrong paths by rank, (draws, different ranks) each, the lowest rank first."""
    order = np.argsort(rank, kind="stable")
    ranked = rank[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # first position of each rank
    of_right = weights * right
    of_wrong = weights - of_right
    return np.add.reduceat(of_right[:, order], starts, axis=1), np.add.reduceat(of_wrong[:, order], starts, axis=1)


def ratio(part: Array, whole: Array) -> Array:
    """Divide ``part`` by ``whole``, NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
