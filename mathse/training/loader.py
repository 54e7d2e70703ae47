"""The loader of a training: each step's rows as padded micro-batches, made in this process or in workers.

The main process has the rows, their lengths, the plan of each step, and the model. A worker only encodes rows: it
receives the few rows of a micro-batch and returns its tensors. So no worker has a copy of the weights or of the
training set, and memory is bounded by the micro-batches under way.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mathse.models.base import IGNORED, Backbone, Encoded, Length
from mathse.models.cache import BoundedCache
from mathse.models.layer_states import LayerStates
from mathse.models.row import Row
from mathse.training.batches import Stream
from mathse.training.launch import end_with_parent
from mathse.training.packing import pack_rows

MAX_CACHE_BYTES = 192 * 2**20  # encoded rows kept from one epoch to the next, in each process that encodes
AHEAD = 2  # micro-batches that each worker makes ahead of time
BATCH_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)  # signals that a scheduler sends to a job


class BatchRow(NamedTuple):
    """A row of a micro-batch."""

    key: int | None  # in the cache of encoded rows; None: the row is made for this step only
    row: Row
    learns: bool = True  # False: the row fills up a micro-batch and has no loss


class Counts(NamedTuple):
    """Amounts that a rank computes in a step or micro-batch. Rows without a loss count as padding."""

    rows: int
    tokens: int  # of prompts and responses, image tokens included
    padded: int  # positions that the model computes: rows times longest row in each micro-batch
    targets: int  # response tokens


Plan = tuple[list[list[BatchRow]], Counts | None]  # micro-batches of a step, and their counts together
Made = tuple[dict[str, Tensor], Counts]  # a padded micro-batch
Observe = Callable[[dict[str, Tensor]], None]


class RowEncoder(Dataset[Made]):
    """Item: a list of rows -> their padded micro-batch, shortest row first, and its counts.

    Args:
        pixels: dtype of an image's numbers. A model that computes in bfloat16 rounds them first anyway.
        kept: hidden states of the rows by key, which replace encoded rows; None: rows are encoded.
    """

    def __init__(
        self, backbone: Backbone, pixels: torch.dtype = torch.float32, kept: LayerStates | None = None
    ) -> None:
        self.encoder, self.pixels, self.kept = backbone.encoder(), pixels, kept
        self._cache: BoundedCache[Encoded] = BoundedCache(MAX_CACHE_BYTES)

    def __getitem__(self, batch_rows: Sequence[BatchRow]) -> Made:
        rows, tokens = [], []
        for batch_row, encoded in zip(batch_rows, self._encode(batch_rows), strict=True):
            rows.append(encoded if batch_row.learns else remove_loss(encoded))
            if batch_row.learns:
                tokens.append(len(encoded.ids))
        batch = self.encoder.pad(sorted(rows, key=lambda row: len(row.ids)))
        return batch, Counts(len(tokens), sum(tokens), batch["input_ids"].numel(), count_targets(batch))

    def _encode(self, batch_rows: Sequence[BatchRow]) -> list[Encoded]:
        """Return the encoded rows, from the cache where it has them."""
        # A lookup also marks a row as used last.
        cached = {b.key: self._cache[b.key] for b in batch_rows if b.key is not None and b.key in self._cache}
        new = [batch_row for batch_row in batch_rows if batch_row.key not in cached]
        if self.kept is not None:
            encoded = [self.kept.read(batch_row.key) for batch_row in new if batch_row.key is not None]
        elif new:
            # All new rows in a single call, because a processor is fastest on a batch.
            encoded = [row.with_pixels_in(self.pixels) for row in self.encoder.encode([b.row for b in new])]
        else:
            encoded = []

        rows, remaining = [], iter(encoded)
        for batch_row in batch_rows:
            if batch_row.key in cached:
                rows.append(cached[batch_row.key])
                continue
            row = next(remaining)
            rows.append(row)
            if batch_row.key is not None:
                self._cache.put(batch_row.key, row, row.nbytes)
        return rows


class MicroBatches:
    """The micro-batches of a step, which are iterated once. Each is taken from ``made`` when it is needed.

    Args:
        made: the micro-batches of this step and of later steps.
        plan: returns this step's plan.
        observe: called with each micro-batch when it is taken.

    Attributes:
        counts: amounts of all micro-batches together.
        waited: seconds of waiting for the micro-batches taken so far.
    """

    def __init__(self, made: Iterator[Made], plan: Callable[[], Plan], observe: Observe = lambda micro: None) -> None:
        self.observe = observe
        start = time.perf_counter()
        self._first, self._made = next(made), made
        self.waited = time.perf_counter() - start
        # The loader plans a step when the step's first micro-batch is requested, so the plan exists only now.
        micro_batches, counts = plan()
        self._count, self.counts = len(micro_batches), counts if counts is not None else self._first[1]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self.observe(self._first[0])
        yield self._first[0]
        for _ in range(self._count - 1):
            start = time.perf_counter()
            batch, _counts = next(self._made)
            self.waited += time.perf_counter() - start
            self.observe(batch)
            yield batch


class StepData:
    """The data of a training by step: ``plan(step)`` returns the rows of this rank's micro-batches.

    Each of several ranks has its share of a step's rows. Ranks that run the parts of a sharded model ``together`` have
    equally many micro-batches, and each micro-batch has a picture where another rank's may have a picture. Rows
    without a loss fill up the ranks that have too few.

    Args:
        stream: the rows of each step.
        micro_batch_size: most rows of a micro-batch.
        steps: number of steps.
        rank, ranks: number of this rank, and of all ranks.
        tokens: most padded tokens of a micro-batch; None: no limit.
        pixels, kept: see ``RowEncoder``.
        together: whether ranks wait for each other in each micro-batch.
    """

    def __init__(
        self,
        stream: Stream,
        backbone: Backbone,
        micro_batch_size: int,
        steps: int,
        rank: int = 0,
        ranks: int = 1,
        tokens: int | None = None,
        pixels: torch.dtype = torch.float32,
        together: bool = True,
        kept: LayerStates | None = None,
    ) -> None:
        self.stream, self.steps, self.together = stream, steps, together
        self.most_rows, self.most_tokens = micro_batch_size, tokens  # of a micro-batch
        self.rank, self.ranks = rank, ranks
        self.rows = RowEncoder(backbone, pixels, kept)
        self._lengths: dict[int, Length] = {}  # by key, so that a row's tokens are counted once per training

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> MicroBatches:
        plan = self.plan(step)
        return MicroBatches(map(self.rows.__getitem__, plan[0]), lambda: plan)

    def plan(self, step: int) -> Plan:
        """Return the rows of each micro-batch and the counts of all; None: the only micro-batch has the counts."""
        rows = [BatchRow(key, row) for key, row in self.stream.keyed_rows(step)]
        if self.ranks == 1 and self.most_tokens is None and len(rows) <= self.most_rows:
            return [rows], None
        lengths = self._count_lengths(rows)
        totals = [length.total for length in lengths]
        share = pack_rows(totals, self.most_rows, self.most_tokens, self.ranks, self.together)[self.rank]

        # The row that fills up: the shortest with a picture, or the shortest of all where no row has a picture.
        has_picture = [bool(batch_row.row["images"]) for batch_row in rows]
        filling = min(range(len(rows)), key=lambda i: (not has_picture[i], totals[i]))
        plan, padded = [], 0
        for group in share:
            micro = [rows[i] for i in group]
            widths = [totals[i] for i in group]
            waits_for_tower = self.ranks > 1 and self.together and has_picture[filling]
            if not group or (waits_for_tower and not any(has_picture[i] for i in group)):
                micro.append(rows[filling]._replace(learns=False))
                widths.append(totals[filling])
            plan.append(micro)
            padded += len(widths) * max(widths)
        learning = [i for group in share for i in group]
        tokens = sum(lengths[i].total for i in learning)
        targets = sum(lengths[i].response for i in learning)
        return plan, Counts(len(learning), tokens, padded, targets)

    def _count_lengths(self, rows: Sequence[BatchRow]) -> list[Length]:
        """Return the tokens of each row. Rows with a key are counted once."""
        new = [batch_row.row for batch_row in rows if batch_row.key not in self._lengths]
        counted = iter(self.rows.encoder.lengths(new) if new else [])
        lengths = [self._lengths[b.key] if b.key in self._lengths else next(counted) for b in rows]
        self._lengths |= {b.key: length for b, length in zip(rows, lengths, strict=True) if b.key is not None}
        return lengths


class StepLoader:
    """The loader of a training: all steps are a single epoch. Item: ``{"micro": MicroBatches}``.

    Its length is the number of all steps, also in a resumed training, because Lightning counts batches from the first.

    Args:
        start: the first step.
        workers: worker processes; 0: this process makes the micro-batches.
        pinned: whether micro-batches lie in pinned memory.
        start_method: of the workers ("fork", "spawn", "forkserver"); None: the platform's.
        observe: see ``MicroBatches``.
    """

    def __init__(
        self,
        data: StepData,
        start: int,
        workers: int,
        pinned: bool = False,
        start_method: str | None = None,
        observe: Observe = lambda micro: None,
    ) -> None:
        self.observe = observe
        self.data, self.start, self.workers = data, start, workers
        self.pinned, self.start_method = pinned, start_method

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[dict[str, MicroBatches]]:
        plans: deque[Plan] = deque()  # of the steps under way

        def plan_micro_batches() -> Iterator[list[BatchRow]]:
            for step in range(self.start, len(self.data)):
                plans.append(self.data.plan(step))
                yield from plans[-1][0]

        worker_options: dict[str, Any] = {}
        if self.workers:
            worker_options = {
                "multiprocessing_context": self.start_method,
                "prefetch_factor": AHEAD,
                "worker_init_fn": begin_worker,
            }
        made = iter(
            DataLoader(
                self.data.rows,
                batch_size=None,
                sampler=plan_micro_batches(),  # a sampler may be any iterable
                num_workers=self.workers,
                pin_memory=self.pinned,
                **worker_options,
            )
        )
        for _ in range(self.start, len(self.data)):
            yield {"micro": MicroBatches(made, plans.popleft, self.observe)}


def begin_worker(worker: int) -> None:
    """Prepare a worker: it ends with the process that started it, and ignores the signals that a scheduler sends.

    A forked worker inherits the main process's handlers and would save or requeue the job a second time. The default
    action would end the worker and so the training. SIGTERM keeps torch's handler, which ends a worker.
    """
    end_with_parent(os.getppid())
    for number in BATCH_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def count_targets(batch: dict[str, Tensor]) -> int:
    """Return the response tokens of a padded batch. A label is predicted at the position before it."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def remove_loss(row: Encoded) -> Encoded:
    """Return the row with the same ids and pictures, all of them prompt."""
    return replace(row, prompt=row.ids, response=[])
