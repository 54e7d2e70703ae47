"""Rows of a global batch, packed into micro-batches and dealt out to ranks by their real lengths."""

from __future__ import annotations

import itertools
import random
from statistics import mean

import pytest

from mathse.training.packing import Group, most_work, pack_rows, work, work_in_step

BATCH, RANKS = 128, 8


def like_answers(count: int, seed: int, image: tuple[int, int] = (64, 1024)) -> list[int]:
    """Lengths as those of rows with a picture and a model's answer: most short, a few very long."""
    draw = random.Random(seed)
    return [60 + draw.randint(*image) + min(2048, round(draw.lognormvariate(5.0, 0.85))) for _ in range(count)]


def padding(shares: list[list[Group]], lengths: list[int]) -> float:
    """The share of all positions that holds nothing."""
    return 1 - sum(lengths) / sum(work(group, lengths) for share in shares for group in share)


CASES = [(1, 1), (1, 8), (2, 3), (2, 8), (3, 7), (8, 5), (8, 128)]


@pytest.mark.parametrize(("ranks", "rows"), CASES)
@pytest.mark.parametrize(("most_rows", "most_tokens"), [(1, None), (4, None), (8, 3000), (64, 3000), (64, 10)])
@pytest.mark.parametrize("together", [True, False])
def test_every_row_runs_once_within_the_bounds(
    ranks: int, rows: int, most_rows: int, most_tokens: int | None, together: bool
) -> None:
    lengths = like_answers(rows, seed=rows)
    shares = pack_rows(lengths, most_rows, most_tokens, ranks, together)
    assert len(shares) == ranks and all(shares)
    assert not together or len({len(share) for share in shares}) == 1
    groups = [group for share in shares for group in share if group]
    assert sorted(i for group in groups for i in group) == list(range(rows))
    assert all(len(group) <= most_rows for group in groups)
    assert all(len(group) == 1 or work(group, lengths) <= most_tokens for group in groups if most_tokens)


def test_rows_of_a_step_are_packed_the_same_way_on_every_rank_and_at_every_call() -> None:
    lengths = like_answers(BATCH, seed=0)
    assert pack_rows(lengths, 8, 4096, RANKS) == pack_rows(lengths, 8, 4096, RANKS)


def test_one_process_runs_neighbours_in_length_together() -> None:
    assert pack_rows([5, 1, 4, 2, 3], 2) == [[[1, 3], [4, 2], [0]]]
    assert pack_rows([5, 1, 4, 2, 3], 5, 8) == [[[1, 3], [4, 2], [0]]]  # 2 x 2, then 2 x 4, then 5


@pytest.mark.parametrize(("most_rows", "most_tokens"), [(4, None), (8, None), (8, 4096), (32, 8192)])
def test_the_slowest_rank_is_within_a_tenth_of_the_mean(most_rows: int, most_tokens: int | None) -> None:
    slowest, in_step = [], []
    for seed in range(20):
        lengths = like_answers(BATCH, seed)
        shares = pack_rows(lengths, most_rows, most_tokens, RANKS)
        sums = [sum(work(group, lengths) for group in share) for share in shares]
        slowest.append(max(sums) / mean(sums))
        in_step.append(work_in_step(shares, lengths) / mean(sums))
    assert mean(slowest) < 1.06 and max(slowest) < 1.10
    assert mean(in_step) < 1.10, "ranks of a sharded model wait in every pass"


@pytest.mark.parametrize(("most_rows", "on_average", "at_most"), [(1, 1.02, 1.02), (4, 1.06, 1.08), (8, 1.12, 1.14)])
def test_ranks_that_meet_at_a_steps_end_alone_have_equal_work_whatever_a_row_takes(
    most_rows: int, on_average: float, at_most: float
) -> None:
    slowest = []
    for seed in range(20):
        lengths = like_answers(BATCH, seed, image=(0, 0))
        lengths[0] = 3800  # an answer that is most of a rank's share
        shares = pack_rows(lengths, most_rows, None, RANKS, together=False)
        slowest.append(most_work(shares, lengths) / mean(sum(work(group, lengths) for group in s) for s in shares))
    assert mean(slowest) < on_average and max(slowest) < at_most


def test_one_row_a_pass_is_dealt_out_as_well_as_can_be_where_ranks_wait_in_every_pass() -> None:
    draw = random.Random(0)
    for _ in range(50):
        lengths = [draw.randint(1, 20) for _ in range(6)]
        best = min(
            work_in_step([[[i] for i in order[:3]], [[i] for i in order[3:]]], lengths)
            for order in itertools.permutations(range(6))
        )
        assert work_in_step(pack_rows(lengths, 1, None, 2), lengths) == best


@pytest.mark.parametrize("ranks", [1, RANKS])
def test_a_bound_on_tokens_leaves_little_padding(ranks: int) -> None:
    steps = [like_answers(BATCH, seed) for seed in range(20)]
    assert mean(padding(pack_rows(lengths, 8, 4096, ranks), lengths) for lengths in steps) < 0.04
    as_drawn = [[list(range(k, k + 8)) for k in range(0, BATCH, 8)]]
    assert mean(padding(as_drawn, lengths) for lengths in steps) > 0.3


def test_where_rows_are_few_the_largest_groups_are_halved_and_ranks_may_have_none() -> None:
    assert sorted(pack_rows([10, 10, 40], 2, None, 2)) == [[[0, 1]], [[2]]]
    assert sorted(pack_rows([10, 10, 40], 3, None, 3)) == [[[0]], [[1]], [[2]]]
    assert sorted(pack_rows([10, 20], 4, None, 4)) == [[[]], [[]], [[0]], [[1]]]
