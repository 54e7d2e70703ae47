"""Intervals and tests for accuracies on the same problems: the bootstrap, and McNemar's test.

The interval of a single accuracy is Wilson's, ``mathse.scoring.metrics.wilson``, because a bootstrap without a right
answer has no width. A resample of n right-or-wrong marks needs only the number of marks of each kind, which is a
multinomial draw, so n marks cost as much as a single mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mathse.errors import DataError
from mathse.scoring.metrics import Interval

DRAWS = 10_000
LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval


def difference_interval(before: Sequence[bool], after: Sequence[bool], seed: int = 0) -> Interval | None:
    """Compute the percentile bootstrap interval of share(after) - share(before), paired by position; None if empty."""
    if len(before) != len(after):
        raise DataError(f"a paired difference needs equally many marks, got {len(before)} and {len(after)}")
    if not before:
        return None
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    n = len(before)
    shares = np.array([gained, lost, n - gained - lost], dtype=float) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, DRAWS)  # (DRAWS, 3): gained, lost, same
    return _interval((draws[:, 0] - draws[:, 1]) / n)


def paired_interval(counts: Sequence[tuple[int, int, int]], seed: int = 0) -> Interval | None:
    """Compute the percentile bootstrap interval of a mean difference over seeds.

    Resampling has two levels: seeds, then the pairs of each seed. With few seeds the interval tends to be too narrow.

    Args:
        counts: (gained, lost, all) pairs of each seed.
        seed: random seed of the bootstrap.

    Returns:
        (low, high), or None without seeds and for a seed without pairs.
    """
    if not counts or any(n == 0 for _, _, n in counts):
        return None
    generator = np.random.default_rng(seed)
    size = (DRAWS, len(counts))
    differences = np.empty((*size, len(counts)))  # (draws, places in a draw, seeds)
    for k, (gained, lost, n) in enumerate(counts):
        resamples = generator.multinomial(n, np.array([gained, lost, n - gained - lost], dtype=float) / n, size)
        differences[..., k] = (resamples[..., 0] - resamples[..., 1]) / n
    chosen = generator.integers(len(counts), size=size)  # (draws, places): seed in each place
    return _interval(np.take_along_axis(differences, chosen[..., None], axis=2)[..., 0].mean(axis=1))


def mcnemar(lost: int, gained: int) -> float:
    """Compute the two-sided p of McNemar's exact test (McNemar 1947); 1 without a changed problem.

    Under the null hypothesis a changed problem is lost or gained with equal probability.
    """
    if min(lost, gained) < 0:
        raise DataError(f"mcnemar({lost}, {gained}): counts of problems are not negative")
    changed = lost + gained
    tail = sum(math.comb(changed, k) for k in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail / 2**changed)


def _interval(draws: np.ndarray) -> Interval:
    low, high = np.percentile(draws, LEVEL)
    return float(low), float(high)
