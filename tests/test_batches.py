"""What a fit sees at each step, and that it does not depend on where the fit began."""

from __future__ import annotations

import random

import pytest
import torch

from mathse.models.cache import BoundedCache
from mathse.models.row import Row
from mathse.training.batches import EpochStream, MixedStream, OnceStream, count_characters, derive_step_seed


def rows_of(lengths: list[int]) -> list[Row]:
    return [Row(question="q" * n, images=(), response=f"{i}") for i, n in enumerate(lengths)]


def keys(stream: EpochStream | OnceStream | MixedStream, step: int) -> list[int | None]:
    return [key for key, _ in stream.keyed_rows(step)]


EVEN = rows_of([40 + i % 5 for i in range(50)])
UNEVEN = rows_of([2 ** (i % 9) for i in range(50)])


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_a_step_has_the_same_rows_whatever_was_asked_before(rows: list[Row]) -> None:
    forward = EpochStream(rows, 6, seed=1)
    steps = [forward.keyed_rows(step) for step in range(40)]
    for step in random.Random(0).sample(range(40), 40):
        assert forward.keyed_rows(step) == steps[step]
        assert EpochStream(rows, 6, seed=1).keyed_rows(step) == steps[step], "a fit that begins here"


@pytest.mark.parametrize("rows", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_another_seed_draws_another_order(rows: list[Row]) -> None:
    one, other = EpochStream(rows, 6, seed=1), EpochStream(rows, 6, seed=2)
    assert [keys(one, s) for s in range(8)] != [keys(other, s) for s in range(8)]


def test_a_key_names_its_row() -> None:
    stream = EpochStream(UNEVEN, 6, seed=1)
    assert all(UNEVEN[key or 0] is row for step in range(20) for key, row in stream.keyed_rows(step))


@pytest.mark.parametrize("batch", [1, 6, 7, 50, 120])
def test_every_row_is_seen_once_an_epoch_in_an_order_of_its_own(batch: int) -> None:
    stream, size = EpochStream(EVEN, batch, seed=1), len(EVEN)
    seen = [key for step in range(3 * size // batch + 1) for key in keys(stream, step)]
    epochs = [seen[k : k + size] for k in range(0, 3 * size - size + 1, size)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)  # type: ignore[type-var]
    assert epochs[0] != epochs[1]


def test_a_batch_is_what_was_drawn_whatever_its_rows_lengths() -> None:
    short = rows_of([1] * 50)
    assert [keys(EpochStream(UNEVEN, 6, 1), s) for s in range(20)] == [
        keys(EpochStream(short, 6, 1), s) for s in range(20)
    ]


def test_validation_sees_each_row_once() -> None:
    stream = OnceStream(UNEVEN, 7)
    seen = [key for step in range(len(stream.batches)) for key in keys(stream, step)]
    assert sorted(seen) == list(range(len(UNEVEN)))  # type: ignore[type-var]
    lengths = [count_characters(UNEVEN[key or 0]) for key in seen]
    assert lengths == sorted(lengths)


def test_made_up_rows_fill_the_first_steps_and_fall_to_their_final_share() -> None:
    stream = MixedStream(EpochStream(EVEN, 20, 1), lambda draw: Row(question="made", images=()), 0.3, steps=100)
    made = [keys(stream, step).count(None) for step in range(100)]
    assert made[:46] == [20] * 46
    assert made[60] == 13  # half way: 1 - 0.7 / 2
    assert made[75:] == [6] * 25
    assert made == sorted(made, reverse=True)
    assert {len(stream.keyed_rows(step)) for step in range(100)} == {20}


@pytest.mark.parametrize(("share", "made"), [(0.0, 0), (1.0, 20)])
def test_the_final_share_may_be_none_or_all(share: float, made: int) -> None:
    stream = MixedStream(EpochStream(EVEN, 20, 1), lambda draw: Row(question="made", images=()), share, steps=10)
    assert keys(stream, 9).count(None) == made


def test_made_up_rows_depend_on_seed_and_step_alone() -> None:
    def make(draw: random.Random) -> Row:
        return Row(question=str(draw.random()), images=())

    one, other = (MixedStream(EpochStream(EVEN, 6, 1), make, 0.3, steps=30) for _ in range(2))
    steps = [one.keyed_rows(step) for step in range(30)]
    assert [other.keyed_rows(step) for step in reversed(range(30))] == steps[::-1]
    assert steps[0] != steps[1]
    real = [row for step in steps[25:] for key, row in step if key is not None]
    assert real and all(any(row is known for known in EVEN) for row in real)


def test_each_step_has_a_seed_of_its_own() -> None:
    assert len({derive_step_seed(seed, step) for seed in range(3) for step in range(100)}) == 300
    torch.manual_seed(derive_step_seed(0, 0))  # a seed that torch takes


# --- the cache ------------------------------------------------------------------------------------------------------


def test_a_cache_forgets_what_was_longest_unused_and_never_holds_more_than_its_limit() -> None:
    cache: BoundedCache[str] = BoundedCache(10)
    for key in "abc":
        cache.put(key, key.upper(), 3)
    assert cache["a"] == "A"
    cache.put("d", "D", 3)
    assert ["abcd"[i] for i in range(4) if "abcd"[i] in cache] == ["a", "c", "d"]
    cache.put("e", "E", 11)
    assert "e" not in cache


def test_a_cache_that_is_told_twice_counts_once() -> None:
    cache: BoundedCache[str] = BoundedCache(10)
    for _ in range(5):
        cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    assert (cache.size, cache["a"], cache["b"]) == (8, "A", "B")
