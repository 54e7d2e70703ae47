"""How well scores put right paths above wrong ones. One implementation for a figure and for its bootstrap.

Paths have weights, (draws, paths): a row of ones gives the figure itself, a row of counts that of a resample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mathse.types import Verdict

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def rank_of(verdict: Verdict) -> float:
    """P(correct); of a verdict without one (an unparsed one, say) 1 or 0 by its status, so that a judge does not score
    better by giving no verdict."""
    return verdict.score if verdict.score is not None else float(verdict.status == "correct")


def auroc(rank: Array, right: Flags, weights: Array) -> Array:
    """Area under the ROC curve, a number a draw: how often a right path is ranked above a wrong one, ties count half;
    NaN with one class."""
    of_right, of_wrong = by_rank(rank, right, weights)
    below = np.cumsum(of_wrong, axis=1) - of_wrong  # (draws, ranks): wrong paths below each rank
    wins = (of_right * (below + of_wrong / 2)).sum(axis=1)
    return ratio(wins, of_right.sum(axis=1) * of_wrong.sum(axis=1))


def by_rank(rank: Array, right: Flags, weights: Array) -> tuple[Array, Array]:
    """(draws, different ranks) weights of right and of wrong paths, the lowest rank first."""
    order = np.argsort(rank, kind="stable")
    ranked = rank[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # where the next rank begins
    of_right = weights * right
    of_wrong = weights - of_right
    return np.add.reduceat(of_right[:, order], starts, axis=1), np.add.reduceat(of_wrong[:, order], starts, axis=1)


def ratio(part: Array, whole: Array) -> Array:
    """``part / whole``, NaN where ``whole`` is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
