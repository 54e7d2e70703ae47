"""A fit's loader: each step's rows as padded micro-batches, made in this process or ahead of time by workers.

The main process knows rows, lengths and what runs where, and holds the model. Workers know how a row is encoded, and
nothing else: they are sent the few rows of a micro-batch and send its tensors back, so neither weights nor a training
set is copied into them, and what is under way is bounded by micro-batches.
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
from mathse.training.packing import packed

CACHE = 192 * 2**20  # bytes of encoded rows kept from one epoch to the next
AHEAD = 2  # micro-batches that each worker makes ahead of time
BATCH_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)  # with which a scheduler speaks to a job


class Entry(NamedTuple):
    """A row of a micro-batch."""

    key: int | None  # in the cache of encoded rows; None: made for this step only
    row: Row
    learns: bool = True  # False: there to fill up, without a loss


class Counts(NamedTuple):
    """What a rank computes in a step or micro-batch. Rows that only fill up count as padding."""

    rows: int
    tokens: int  # prompts and responses, images' tokens included
    padded: int  # positions that the model computes: in each micro-batch rows x longest
    targets: int  # response tokens


Plan = tuple[list[list[Entry]], Counts | None]  # a step's micro-batches, and counts of all of them
Made = tuple[dict[str, Tensor], Counts]  # a padded micro-batch
Observe = Callable[[dict[str, Tensor]], None]


class RowEncoder(Dataset[Made]):
    """Item: a list of entries -> their padded micro-batch, shortest row first, and its counts.

    ``pixels``: the dtype in which an image's numbers travel; what computes in bfloat16 rounds them first of all.
    ``kept``: the rows' hidden states, by the entries' keys; None: rows are encoded.
    """

    def __init__(
        self, backbone: Backbone, pixels: torch.dtype = torch.float32, kept: LayerStates | None = None
    ) -> None:
        self.encoder, self.pixels, self.kept = backbone.encoder(), pixels, kept
        self._encoded: BoundedCache[Encoded] = BoundedCache(CACHE)

    def __getitem__(self, entries: Sequence[Entry]) -> Made:
        encoded = self._encode(entries)
        rows = [row if entry.learns else without_loss(row) for entry, row in zip(entries, encoded, strict=True)]
        learning = [len(row.ids) for entry, row in zip(entries, rows, strict=True) if entry.learns]
        batch = self.encoder.pad(sorted(rows, key=lambda row: len(row.ids)))
        return batch, Counts(len(learning), sum(learning), batch["input_ids"].numel(), count_targets(batch))

    def _encode(self, entries: Sequence[Entry]) -> list[Encoded]:
        cached = {e.key: self._encoded[e.key] for e in entries if e.key is not None and e.key in self._encoded}
        made = iter(self._made([entry for entry in entries if entry.key not in cached]))
        rows = []
        for entry in entries:
            if entry.key in cached:
                rows.append(cached[entry.key])
                continue
            rows.append(row := next(made))
            if entry.key is not None:
                self._encoded.put(entry.key, row, row.nbytes)
        return rows

    def _made(self, new: Sequence[Entry]) -> list[Encoded]:
        if self.kept is not None:
            return [self.kept.read(entry.key) for entry in new if entry.key is not None]
        # all at once: a processor is called a batch at a time
        encoded = self.encoder.encode([entry.row for entry in new]) if new else []
        return [row.with_pixels_in(self.pixels) for row in encoded]


class MicroBatches:
    """The micro-batches of one step, in order, once; each is taken from ``made`` when it is asked for.

    ``counts``: of all of them together; None: there is one, which counts itself. ``waited``: seconds spent in waiting
    for those that were taken so far. ``observe`` is called with each as it is taken.
    """

    def __init__(self, made: Iterator[Made], plan: Callable[[], Plan], observe: Observe = lambda micro: None) -> None:
        self.observe = observe
        start = time.perf_counter()
        self._first, self._made = next(made), made
        self.waited = time.perf_counter() - start
        entries, counts = plan()  # known only now: a loader plans a step when its first micro-batch is asked for
        self._count, self.counts = len(entries), counts if counts is not None else self._first[1]

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
    """What each step of a fit sees: ``plan(step)`` says which rows make up this rank's micro-batches.

    Of several ``ranks`` each has its share of a step's rows; ``rank`` says which. Where they run the parts of a sharded
    model ``together``, each has as many micro-batches as the others, and a picture in each where another rank may have
    one. What a rank lacks is filled up with rows that have no loss.
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
        self._lengths: dict[int, Length] = {}  # by key; a row is counted once a fit

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> MicroBatches:
        plan = self.plan(step)
        return MicroBatches(map(self.rows.__getitem__, plan[0]), lambda: plan)

    def plan(self, step: int) -> Plan:
        """The entries of each micro-batch, and counts of all; None where there is one, which counts itself."""
        entries = [Entry(key, row) for key, row in self.stream.keyed_rows(step)]
        if self.ranks == 1 and self.most_tokens is None and len(entries) <= self.most_rows:
            return [entries], None
        lengths = self._counted(entries)
        totals = [length.total for length in lengths]
        share = packed(totals, self.most_rows, self.most_tokens, self.ranks, self.together)[self.rank]

        # What fills up: the shortest row, of those with a picture where there is one.
        pictured = [bool(entry.row["images"]) for entry in entries]
        filling = min(range(len(entries)), key=lambda i: (not pictured[i], totals[i]))
        plan, padded = [], 0
        for group in share:
            blind = self.ranks > 1 and self.together and pictured[filling] and not any(pictured[i] for i in group)
            micro = [entries[i] for i in group]
            widths = [totals[i] for i in group]
            if blind or not group:
                micro.append(entries[filling]._replace(learns=False))
                widths.append(totals[filling])
            plan.append(micro)
            padded += len(widths) * max(widths)
        learning = [lengths[i] for group in share for i in group]
        tokens, targets = sum(length.total for length in learning), sum(length.response for length in learning)
        return plan, Counts(len(learning), tokens, padded, targets)

    def _counted(self, entries: Sequence[Entry]) -> list[Length]:
        new = [entry.row for entry in entries if entry.key not in self._lengths]
        counted = iter(self.rows.encoder.lengths(new) if new else [])
        lengths = [self._lengths[e.key] if e.key in self._lengths else next(counted) for e in entries]
        self._lengths |= {e.key: length for e, length in zip(entries, lengths, strict=True) if e.key is not None}
        return lengths


class StepLoader:
    """The loader of one fit: all its steps are one epoch, and a resumed fit starts at its step. Item: ``{"micro":
    MicroBatches}``.

    Its length stays that of the whole fit: Lightning counts batches from the fit's start. ``start_method``: of the
    worker processes ("fork", "spawn", "forkserver"); None: the platform's. ``observe``: see MicroBatches.
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
        planned: deque[Plan] = deque()  # of steps whose first micro-batch was asked for

        def ahead() -> Iterator[list[Entry]]:
            for step in range(self.start, len(self.data)):
                planned.append(self.data.plan(step))
                yield from planned[-1][0]

        options: dict[str, Any] = {}
        if self.workers:
            options = {
                "multiprocessing_context": self.start_method,
                "prefetch_factor": AHEAD,
                "worker_init_fn": begin_worker,
            }
        made = iter(
            DataLoader(
                self.data.rows,
                batch_size=None,
                sampler=ahead(),  # which may be any iterable
                num_workers=self.workers,
                pin_memory=self.pinned,
                **options,
            )
        )
        for _ in range(self.start, len(self.data)):
            yield {"micro": MicroBatches(made, planned.popleft, self.observe)}


def begin_worker(worker: int) -> None:
    """In a worker: it ends with the process that started it, and what a scheduler tells a job (to save itself, to go
    on) is for the main process.

    A forked worker inherits the main process's handlers and would do what they do once more; the default action would
    end it and so the fit. SIGTERM is torch's: it ends a worker.
    """
    end_with_parent(os.getppid())
    for number in BATCH_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def count_targets(batch: dict[str, Tensor]) -> int:
    """Response tokens of a padded batch; a label is the next position's, so that the first one predicts nothing."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def without_loss(row: Encoded) -> Encoded:
    """The same ids and pictures with nothing to learn: all of it is prompt."""
    return replace(row, prompt=row.ids, response=[])
