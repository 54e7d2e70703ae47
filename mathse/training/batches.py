"""What a fit sees, step by step: a pure function of (rows, seed, step), so a resumed fit sees the same.

A stream gives the rows of one optimiser step (a global batch). Batches stay as they are drawn: rows of one length in a
batch are rows of one kind of question, from which students learned markedly worse. How a batch is cut into
micro-batches is said in ``mathse.training.packing``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from mathse.models.row import Row
from mathse.seeds import derive, rng


class Stream(Protocol):
    """``keyed_rows(step)``: the rows of a step, each with a cache key (None: made for this step only)."""

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]: ...


class EpochStream:
    """The same rows over and over, in an order drawn anew each epoch."""

    def __init__(self, rows: Sequence[Row], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self._epoch: tuple[int, list[int]] = (-1, [])  # its number, and the order of its rows

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]:
        numbers = [self._drawn(k) for k in range(step * self.batch_size, (step + 1) * self.batch_size)]
        return [(i, self.rows[i]) for i in numbers]

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


def length(row: Row) -> int:
    """Characters of a row: a cheap proxy for its tokens."""
    before = sum(len(question) + len(answer) for question, answer in row.get("history", ()))
    return before + len(row["question"]) + max(len(row.get("response", "")), len(row.get("rejected", "")))


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's dropout; rank 0's is that of a single process."""
    return derive(seed, "step", step, *([rank] if rank else [])) % 2**63
