"""What a fit sees at each step, and that it does not depend on where the fit began."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from small import picture, solved_rows, tiny_backbone

from mathse.models.base import IGNORED
from mathse.models.cache import BoundedCache
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone
from mathse.training import batches
from mathse.training.batches import (
    TOLERATED_PADDING,
    WINDOW,
    EpochStream,
    MixedStream,
    OnceStream,
    StepData,
    StepLoader,
    length,
    padding,
    step_seed,
)


def rows_of(lengths: list[int]) -> list[Row]:
    return [Row(question="q" * n, images=(), response=f"{i}") for i, n in enumerate(lengths)]


def keys(stream: EpochStream | OnceStream | MixedStream, step: int) -> list[int | None]:
    return [key for key, _ in stream.keyed_rows(step)]


EVEN = rows_of([40 + i % 5 for i in range(50)])
UNEVEN = rows_of([2 ** (i % 9) for i in range(50)])


@pytest.fixture(scope="module")
def backbone() -> Iterator[TinyBackbone]:
    yield tiny_backbone()


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


def test_grouping_by_length_drops_and_doubles_no_row() -> None:
    rows = rows_of([2 ** (i % 9) for i in range(2 * WINDOW * 5)])
    stream = EpochStream(rows, 5, seed=1)
    steps = len(rows) // 5
    for epoch in range(2):
        seen = Counter(key for step in range(steps) for key in keys(stream, epoch * steps + step))
        assert seen == Counter(range(len(rows)))


def test_rows_are_grouped_by_length_where_padding_would_be_much() -> None:
    stream = EpochStream(UNEVEN, 6, seed=1)
    grouped = [[key or 0 for key in keys(stream, step)] for step in range(WINDOW)]
    drawn = [stream._drawn(position) for position in range(WINDOW * 6)]
    ungrouped = [drawn[k : k + 6] for k in range(0, len(drawn), 6)]
    assert padding(ungrouped, stream.lengths) > TOLERATED_PADDING > padding(grouped, stream.lengths)
    longest = [max(stream.lengths[i] for i in batch) for batch in grouped]
    assert longest != sorted(longest), "the batches come in a drawn order, not from short to long"


def test_rows_of_about_one_length_stay_in_drawn_order() -> None:
    stream = EpochStream(EVEN, 6, seed=1)
    drawn = [stream._drawn(position) for position in range(WINDOW * 6)]
    assert [key for step in range(WINDOW) for key in keys(stream, step)] == drawn


def test_padding_is_the_share_of_a_batch_that_holds_nothing() -> None:
    assert padding([[0, 1], [2, 2]], [10, 30, 5]) == pytest.approx(20 / 70)
    assert padding([[0, 0], [1]], [7, 3]) == 0


def test_validation_sees_each_row_once() -> None:
    stream = OnceStream(UNEVEN, 7)
    seen = [key for step in range(len(stream.batches)) for key in keys(stream, step)]
    assert sorted(seen) == list(range(len(UNEVEN)))  # type: ignore[type-var]
    lengths = [length(UNEVEN[key or 0]) for key in seen]
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
    assert len({step_seed(seed, step) for seed in range(3) for step in range(100)}) == 300
    torch.manual_seed(step_seed(0, 0))  # a seed that torch takes


# --- batches --------------------------------------------------------------------------------------------------------


def response_ids(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    return [tuple(row[row != IGNORED].tolist()) for row in batch["labels"]]


@pytest.mark.parametrize("micro", [1, 3, 8, 100])
def test_micro_batches_hold_the_steps_rows_and_count_its_response_tokens(backbone: TinyBackbone, micro: int) -> None:
    rows = solved_rows(backbone, 16)
    data = StepData(EpochStream(rows, 8, 0), backbone, micro, steps=4)
    for step in range(4):
        item = data[step]
        assert [len(b["labels"]) for b in item["micro"]] == [min(micro, 8 - k) for k in range(0, 8, micro)]
        expected = [e.response for e in backbone.encode([row for _, row in data.stream.keyed_rows(step)])]
        trained = [ids for batch in item["micro"] for ids in response_ids(batch)]
        assert sorted(trained) == sorted(map(tuple, expected))
        assert item["targets"] == sum(map(len, expected))


def test_rows_that_were_encoded_before_come_back_equal(backbone: TinyBackbone) -> None:
    rows = solved_rows(backbone, 6)
    rows.append(Row(question="Why?", images=(), response="Step 1: 7."))
    rows.append(Row(question="What is this?", images=(picture(56, 28), picture(28, 28)), response="Step 1: 7."))
    data = StepData(EpochStream(rows, 8, 0), backbone, 8, steps=6)
    for step in range(6):
        warm, cold = data[step], StepData(data.stream, backbone, 8, 6)[step]
        for one, other in zip(warm["micro"], cold["micro"], strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_step_may_hold_a_row_twice(backbone: TinyBackbone) -> None:
    data = StepData(EpochStream(solved_rows(backbone, 3), 8, 0), backbone, 8, steps=2)
    assert sum(len(b["labels"]) for b in data[0]["micro"]) == 8


def test_a_cache_too_small_for_a_step_costs_time_and_nothing_else(
    backbone: TinyBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = solved_rows(backbone, 7)
    stream = EpochStream(rows, 4, 0)
    whole = StepData(stream, backbone, 4, steps=8)
    monkeypatch.setattr(batches, "CACHE", 3 * backbone.encode(rows[:1])[0].nbytes)
    small = StepData(stream, backbone, 4, steps=8)
    for step in range(8):
        assert torch.equal(small[step]["micro"][0]["input_ids"], whole[step]["micro"][0]["input_ids"])


def test_a_resumed_loader_starts_at_its_step_and_keeps_the_length_of_the_whole_fit(backbone: TinyBackbone) -> None:
    data = StepData(EpochStream(solved_rows(backbone, 16), 4, 0), backbone, 4, steps=6)
    whole = [item["micro"][0]["input_ids"] for item in StepLoader(data, 0, workers=0)]
    for start in range(7):
        loader = StepLoader(data, start, workers=0)
        assert len(loader) == 6
        rest = [item["micro"][0]["input_ids"] for item in loader]
        assert len(rest) == 6 - start
        assert all(torch.equal(one, other) for one, other in zip(rest, whole[start:], strict=True))


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
