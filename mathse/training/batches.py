"""What a fit sees, step by step: a pure function of (rows, seed, step), so a resumed fit sees the same.

A stream gives the rows of one optimiser step (a global batch); ``StepData`` turns a rank's share of them into padded
micro-batches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mathse.models.base import IGNORED, Backbone, Encoded
from mathse.models.cache import BoundedCache
from mathse.models.row import Row
from mathse.seeds import derive, rng

WINDOW = 8  # batches among which rows are grouped by length
TOLERATED_PADDING = 0.25
CACHE = 192 * 2**20  # bytes of encoded rows kept from one epoch to the next


class Stream(Protocol):
    """``keyed_rows(step)``: the rows of a step, each with a cache key (None: made for this step only)."""

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]: ...


class EpochStream:
    """The same rows over and over, in an order drawn anew each epoch, grouped by length where that pays."""

    def __init__(self, rows: Sequence[Row], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.lengths = [length(row) for row in rows]
        self._window: tuple[int, list[list[int]]] = (-1, [])  # its number, and its batches of row numbers
        self._epoch: tuple[int, list[int]] = (-1, [])  # its number, and the order of its rows

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]:
        return [(i, self.rows[i]) for i in self._batches(step // WINDOW)[step % WINDOW]]

    def _batches(self, window: int) -> list[list[int]]:
        """The row numbers of this window's batches: consecutive draws, sorted by length and shuffled only where much of
        the batches would be padding. Sorting makes batches of one kind of question each, from which the student
        learned markedly worse, so it is not done where it saves little."""
        if self._window[0] != window:
            count = WINDOW * self.batch_size
            drawn = [self._drawn(k) for k in range(window * count, (window + 1) * count)]
            batches = [drawn[k : k + self.batch_size] for k in range(0, count, self.batch_size)]
            if padding(batches, self.lengths) > TOLERATED_PADDING:
                drawn.sort(key=lambda i: self.lengths[i])
                batches = [drawn[k : k + self.batch_size] for k in range(0, count, self.batch_size)]
                rng(self.seed, "window", window).shuffle(batches)
            self._window = (window, batches)
        return self._window[1]

    def _drawn(self, position: int) -> int:
        """The number of the row at ``position`` in the endless sequence of epochs."""
        epoch, k = divmod(position, len(self.rows))
        if self._epoch[0] != epoch:
            order = list(range(len(self.rows)))
            rng(self.seed, "epoch", epoch).shuffle(order)
            self._epoch = (epoch, order)
        return self._epoch[1][k]


class OnceStream:
    """Each row once, in order of length: for validation."""

    def __init__(self, rows: Sequence[Row], batch_size: int) -> None:
        order = sorted(range(len(rows)), key=lambda i: length(rows[i]))
        self.batches = [[(i, rows[i]) for i in order[k : k + batch_size]] for k in range(0, len(order), batch_size)]

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]:
        return self.batches[step]


class MixedStream:
    """Rows from ``stream``, a share of them replaced by rows that ``make`` writes for this step.

    The share is 1 for the first 45 % of the steps, then falls in a line to ``final_share`` over the next 30 %
    (measured: made-up errors first, then real ones, taught the ORM best).
    """

    def __init__(
        self, stream: EpochStream, make: Callable[[random.Random], Row], final_share: float, steps: int
    ) -> None:
        self.stream, self.make, self.final_share, self.steps = stream, make, final_share, steps

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]:
        progress = (step / self.steps - 0.45) / 0.30
        share = 1 - (1 - self.final_share) * min(1.0, max(0.0, progress))
        real = list(self.stream.keyed_rows(step))
        count = round(share * len(real))
        draw = rng(self.stream.seed, "made", step)
        made = [(None, self.make(draw)) for _ in range(count)]
        draw.shuffle(real)
        return [*made, *real[count:]]


class StepData(Dataset[dict[str, Any]]):
    """Item ``step``: {"micro": padded micro-batches, "targets": number of response tokens in them}.

    Of several ``ranks`` each has its share of a step's rows; ``rank`` says which. The ranks run the parts of a sharded
    model together, so each has as many micro-batches as the others, and a picture in each where another rank may have
    one. What a rank lacks is filled up with rows that have no loss.
    """

    def __init__(
        self, stream: Stream, backbone: Backbone, micro_batch_size: int, steps: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self.stream, self.backbone, self.micro, self.steps = stream, backbone, micro_batch_size, steps
        self.rank, self.ranks = rank, ranks
        self._encoded: BoundedCache[Encoded] = BoundedCache(CACHE)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        keyed = self.stream.keyed_rows(step)
        groups = self._share_of_rank(keyed) if self.ranks > 1 else self._micro_batches(keyed)
        micro = [self.backbone.pad(rows) for rows in groups]
        return {"micro": micro, "targets": sum(count_targets(batch) for batch in micro)}

    def _micro_batches(self, keyed: Sequence[tuple[int | None, Row]]) -> list[list[Encoded]]:
        """The rows of each micro-batch, of similar length."""
        rows = self._encode(keyed)
        rows.sort(key=lambda e: len(e.ids))
        return [rows[k : k + self.micro] for k in range(0, len(rows), self.micro)]

    def _share_of_rank(self, keyed: Sequence[tuple[int | None, Row]]) -> list[list[Encoded]]:
        """``_micro_batches`` of this rank's rows; the k-th ones of all ranks are of similar length."""
        keyed = sorted(keyed, key=lambda entry: length(entry[1]))
        # Rows sorted by length are dealt out like cards, so that the ranks' k-th micro-batches take equally long.
        micro = self._micro_batches(keyed[self.rank :: self.ranks])
        most_rows = -(-len(keyed) // self.ranks)  # of the rank that has most
        missing = -(-most_rows // self.micro) - len(micro)
        filling = next((entry for entry in keyed if entry[1]["images"]), keyed[0])
        if missing or (filling[1]["images"] and not all(any(e.features for e in rows) for rows in micro)):
            row = without_loss(self._encode([filling])[0])
            micro = [rows if not row.features or any(e.features for e in rows) else [*rows, row] for rows in micro]
            micro += [[row]] * missing
        return micro

    def _encode(self, keyed: Sequence[tuple[int | None, Row]]) -> list[Encoded]:
        cached = {key: self._encoded[key] for key, _ in keyed if key is not None and key in self._encoded}
        new = [row for key, row in keyed if key not in cached]
        encoded = iter(self.backbone.encode(new) if new else [])  # all at once: a processor is called a batch at a time
        rows = []
        for key, _ in keyed:
            row = cached[key] if key in cached else next(encoded)
            if key is not None and key not in cached:
                self._encoded.put(key, row, row.nbytes)
            rows.append(row)
        return rows


class StepLoader:
    """The loader of one fit: all its steps are one epoch, and a resumed fit starts at its step.

    Its length stays that of the whole fit: Lightning counts batches from the fit's start.
    """

    def __init__(self, data: StepData, start: int, workers: int) -> None:
        self.data, self.start, self.workers = data, start, workers

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Any:
        steps = range(self.start, len(self.data))
        return iter(DataLoader(self.data, batch_size=None, sampler=steps, num_workers=self.workers))


def length(row: Row) -> int:
    """Characters of a row: a cheap proxy for its tokens."""
    before = sum(len(question) + len(answer) for question, answer in row.get("history", ()))
    return before + len(row["question"]) + len(row.get("response", ""))


def padding(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """The share of these batches that would be padding."""
    total = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    return 1 - sum(lengths[i] for b in batches for i in b) / max(1, total)


def count_targets(batch: dict[str, Tensor]) -> int:
    """Response tokens of a padded batch; a label is the next position's, so that the first one predicts nothing."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def without_loss(row: Encoded) -> Encoded:
    """The same ids and pictures with nothing to learn: all of it is prompt."""
    return replace(row, prompt=row.ids, response=[])


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's dropout; rank 0's is that of a single process."""
    return derive(seed, "step", step, *([rank] if rank else [])) % 2**63
