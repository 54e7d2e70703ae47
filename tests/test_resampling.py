"""Bootstrap intervals and McNemar's test."""

from __future__ import annotations

import random

import pytest
from scipy.stats import binomtest

from mathse.errors import DataError
from mathse.scoring.resampling import difference_interval, mcnemar


def test_equal_seeds_draw_equally() -> None:
    before, after = [k % 3 == 0 for k in range(9_973)], [k % 5 == 0 for k in range(9_973)]
    drawn = [difference_interval(before, after, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_paired_difference_is_tighter_than_two_shares_apart() -> None:
    draw = random.Random(0)
    before = [draw.random() < 0.5 for _ in range(1000)]
    after = [mark or draw.random() < 0.1 for mark in before]  # only gains
    gain = (sum(after) - sum(before)) / 1000
    paired = difference_interval(before, after)
    assert paired is not None and paired[0] < gain < paired[1]
    shuffled = draw.sample(after, len(after))
    unpaired = difference_interval(before, shuffled)
    assert unpaired is not None and unpaired[1] - unpaired[0] > 2 * (paired[1] - paired[0])
    with pytest.raises(DataError, match="equally many marks, got 1 and 2"):
        difference_interval([True], [True, False])


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 1), (3, 10), (100, 140), (500, 500), (1200, 1300)])
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected)
