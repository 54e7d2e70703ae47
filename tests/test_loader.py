"""Micro-batches as a fit gets them: what they hold and count, and that it does not matter who made them."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small import picture, solved_rows, tiny_backbone
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mathse.models.base import IGNORED, Backbone
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone
from mathse.training import loader
from mathse.training.batches import EpochStream
from mathse.training.loader import Counts, StepData, StepLoader, begin_worker

Batch = dict[str, Tensor]


@pytest.fixture(scope="module")
def backbone() -> Iterator[TinyBackbone]:
    yield tiny_backbone()


def ragged(backbone: Backbone, count: int = 12) -> list[Row]:
    """Rows with pictures of many sizes, some without one, and with answers of many lengths."""
    rows = solved_rows(tiny_backbone(), 3)
    for k in range(count - 3):
        images = (picture(28 * (1 + k % 4), 28 * (1 + k % 2), k),) if k % 3 else ()
        rows.append(Row(question=f"{k}? " * (1 + k), images=images, response="7 + 5 = 12. " * (1 + k * k % 17)))
    return rows


def response_ids(batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(row[row != IGNORED].tolist()) for row in batch["labels"]]


def equal(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, other, strict=True)
    )


def taken(made: StepLoader) -> list[list[Batch]]:
    return [list(item["micro"]) for item in made]


# --- what a step holds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [1, 3, 8, 100])
def test_micro_batches_hold_the_steps_rows_and_count_its_response_tokens(backbone: TinyBackbone, micro: int) -> None:
    rows = solved_rows(backbone, 16)
    data = StepData(EpochStream(rows, 8, 0), backbone, micro, steps=4)
    for step in range(4):
        batches = list(item := data[step])
        assert [len(b["labels"]) for b in batches] == [min(micro, 8 - k) for k in range(0, 8, micro)]
        expected = [e.response for e in backbone.encode([row for _, row in data.stream.keyed_rows(step)])]
        assert sorted(ids for batch in batches for ids in response_ids(batch)) == sorted(map(tuple, expected))
        assert (item.counts.targets, item.counts.rows) == (sum(map(len, expected)), 8)


PACKINGS: list[tuple[int, int | None, int]] = [(8, None, 1), (3, None, 1), (8, 200, 1), (2, None, 3), (8, 300, 2)]


@pytest.mark.parametrize(("micro", "tokens", "ranks"), PACKINGS)
def test_counts_are_those_of_the_tensors(backbone: TinyBackbone, micro: int, tokens: int | None, ranks: int) -> None:
    stream = EpochStream(ragged(backbone), 8, 0)
    for step in range(3):
        whole = [len(e.ids) for e in backbone.encode([row for _, row in stream.keyed_rows(step)])]
        parts = [StepData(stream, backbone, micro, 3, rank, ranks, tokens)[step] for rank in range(ranks)]
        for part in parts:
            batches = list(part)
            assert len(batches) == len(part)
            learning = [ids for batch in batches for ids in response_ids(batch) if ids]
            assert part.counts.rows == len(learning) and part.counts.targets == sum(map(len, learning))
            assert part.counts.padded == sum(batch["input_ids"].numel() for batch in batches)
        assert sum(part.counts.tokens for part in parts) == sum(whole)


def test_a_bound_on_tokens_bounds_every_micro_batch(backbone: TinyBackbone) -> None:
    rows = ragged(backbone)
    data = StepData(EpochStream(rows, 12, 0), backbone, 12, 3, tokens=400)
    sizes = [batch["input_ids"].shape for step in range(3) for batch in data[step]]
    assert len(sizes) > 3 and all(size.numel() <= 400 or size[0] == 1 for size in sizes)


def test_rows_that_were_encoded_before_come_back_equal(backbone: TinyBackbone) -> None:
    data = StepData(EpochStream(ragged(backbone, 8), 8, 0), backbone, 8, steps=6)
    for step in range(6):
        assert equal(list(data[step]), list(StepData(data.stream, backbone, 8, 6)[step]))


def test_a_step_may_hold_a_row_twice(backbone: TinyBackbone) -> None:
    for micro in (8, 3):
        data = StepData(EpochStream(solved_rows(backbone, 3), 8, 0), backbone, micro, steps=2)
        assert sum(len(b["labels"]) for b in data[0]) == 8


def test_a_cache_too_small_for_a_step_costs_time_and_nothing_else(
    backbone: TinyBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = solved_rows(backbone, 7)
    stream = EpochStream(rows, 4, 0)
    whole = StepData(stream, backbone, 4, steps=8)
    monkeypatch.setattr(loader, "MAX_CACHE_BYTES", 3 * backbone.encode(rows[:1])[0].nbytes)
    small = StepData(stream, backbone, 4, steps=8)
    for step in range(8):
        assert equal(list(small[step]), list(whole[step]))


# --- one step, whatever the packing ---------------------------------------------------------------------------------


def loss_and_gradients(backbone: TinyBackbone, parts: Sequence[Any]) -> tuple[float, dict[str, Tensor]]:
    """Of one step over the shares of all ranks: Eq. 1 over the response tokens of the global batch."""
    backbone.model.zero_grad()
    total, targets = 0.0, sum(part.counts.targets for part in parts)
    for part in parts:
        for micro in part:
            logits, labels = backbone.answer_logits(micro)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum") / targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
    return total, {n: p.grad.clone() for n, p in backbone.model.named_parameters() if p.grad is not None}


def test_loss_and_gradients_of_a_step_do_not_depend_on_the_packing(backbone: TinyBackbone) -> None:
    stream = EpochStream(ragged(backbone), 12, 0)
    expected = loss_and_gradients(backbone, [StepData(stream, backbone, 12, 1)[0]])
    for micro, tokens, ranks in PACKINGS:
        parts = [StepData(stream, backbone, micro, 1, rank, ranks, tokens)[0] for rank in range(ranks)]
        loss, gradients = loss_and_gradients(backbone, parts)
        assert loss == pytest.approx(expected[0], abs=1e-6)
        assert gradients.keys() == expected[1].keys()
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, expected[1][name], atol=1e-6), (name, micro, tokens, ranks)


# --- workers --------------------------------------------------------------------------------------------------------


def test_what_travels_to_workers_holds_no_model_and_no_training_set(backbone: TinyBackbone) -> None:
    rows = ragged(backbone, 60)
    data = StepData(EpochStream(rows, 8, 0), backbone, 3, 4, tokens=300)
    sent = pickle.dumps(data.rows)
    assert len(sent) < len(pickle.dumps(backbone.processor)) + 20_000
    assert b"torch.nn.modules" not in sent and b"7 + 5 = 12" not in sent
    assert b"torch.nn.modules" not in pickle.dumps(data), "the plan of all steps holds no model either"
    there: StepData = pickle.loads(pickle.dumps(data))  # noqa: S301 - of this very test
    assert equal(list(there[2]), list(data[2]))


@pytest.mark.parametrize(
    ("workers", "start_method"),
    [
        (1, None),
        pytest.param(2, "forkserver", marks=pytest.mark.slow),
        pytest.param(1, "spawn", marks=pytest.mark.slow),
    ],
)
def test_workers_make_the_same_micro_batches(backbone: TinyBackbone, workers: int, start_method: str | None) -> None:
    data = StepData(EpochStream(ragged(backbone), 6, 0), backbone, 6, steps=4, tokens=200)
    alone = taken(StepLoader(data, 0, workers=0))
    assert len({len(step) for step in alone}) > 1, "steps differ in their number of micro-batches"
    together = StepLoader(data, 1, workers, start_method=start_method)
    assert all(equal(a, b) for a, b in zip(taken(together), alone[1:], strict=True))


def test_a_resumed_loader_starts_at_its_step_and_keeps_the_length_of_the_whole_fit(backbone: TinyBackbone) -> None:
    data = StepData(EpochStream(solved_rows(backbone, 16), 4, 0), backbone, 3, steps=6)
    whole = taken(StepLoader(data, 0, workers=0))
    for start in range(7):
        resumed = StepLoader(data, start, workers=0)
        assert len(resumed) == 6
        rest = taken(resumed)
        assert len(rest) == 6 - start
        assert all(equal(one, other) for one, other in zip(rest, whole[start:], strict=True))


def test_no_more_is_made_ahead_than_workers_hold(backbone: TinyBackbone) -> None:
    planned: list[int] = []

    class Noted(StepData):
        def plan(self, step: int) -> Any:
            planned.append(step)
            return super().plan(step)

    data = Noted(EpochStream(solved_rows(backbone, 16), 4, 0), backbone, 1, steps=50)
    made = iter(StepLoader(data, 0, workers=1))
    assert len(list(next(made)["micro"])) == 4
    assert max(planned) <= 1 + loader.AHEAD, "micro-batches under way are bounded, so steps are"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_travel_in_the_fits_numbers(backbone: TinyBackbone, dtype: torch.dtype) -> None:
    stream = EpochStream(ragged(backbone), 6, 0)
    for batch in StepData(stream, backbone, 3, 2, pixels=dtype)[0]:
        assert batch.get("pixel_values", torch.zeros(0, dtype=dtype)).dtype == dtype
        assert not any(batch[k].is_floating_point() for k in batch if k != "pixel_values")


def test_pixels_in_bfloat16_change_nothing_in_a_bfloat16_fit(backbone: TinyBackbone) -> None:
    stream = EpochStream(ragged(backbone), 6, 0)
    full, half = (list(StepData(stream, backbone, 6, 1, pixels=d)[0]) for d in (torch.float32, torch.bfloat16))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(backbone.answer_logits(full[0])[0], backbone.answer_logits(half[0])[0])


def test_waiting_is_counted_by_the_step(backbone: TinyBackbone) -> None:
    [item] = StepLoader(StepData(EpochStream(ragged(backbone), 6, 0), backbone, 2, 1), 0, workers=0)
    before = item["micro"].waited
    assert len(list(item["micro"])) == 3 and item["micro"].waited > before > 0
    assert isinstance(item["micro"].counts, Counts)


class Signalled(Dataset[int]):
    """A worker that gets a job's signals."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, k: int) -> int:
        for number in loader.BATCH_SIGNALS:
            os.kill(os.getpid(), number)
        return k


def test_workers_leave_a_schedulers_signals_to_the_main_process(tmp_path: Path) -> None:
    def save_and_requeue(*_: object) -> None:
        (tmp_path / str(os.getpid())).touch()

    before = {number: signal.signal(number, save_and_requeue) for number in loader.BATCH_SIGNALS}
    try:
        made = DataLoader(Signalled(), batch_size=None, num_workers=1, multiprocessing_context="fork",
                          worker_init_fn=begin_worker)  # fmt: skip
        assert list(made) == [0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not list(tmp_path.iterdir())
