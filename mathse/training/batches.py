"""The rows of each training step, as a pure function of (rows, seed, step), so that a resumed training has the same.

A stream returns the rows of an optimiser step (a global batch) as they were drawn. Rows are not grouped by length: rows
of equal length are questions of one kind, and students learned markedly worse from such batches.
``mathse.training.packing`` cuts a global batch into micro-batches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from mathse.models.row import Row
from mathse.seeds import derive, rng


class Stream(Protocol):
    """``keyed_rows(step)``: the rows of a step, each with its cache key (None: the row is made for this step only)."""

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]: ...


class EpochStream:
    """The same rows in each epoch, in an order that is drawn for each epoch."""

    def __init__(self, rows: Sequence[Row], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self._epoch: tuple[int, list[int]] = (-1, [])  # number of the last epoch used, and the order of its rows

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]:
        first = step * self.batch_size
        numbers = [self._draw_row(position) for position in range(first, first + self.batch_size)]
        return [(i, self.rows[i]) for i in numbers]

    def _draw_row(self, position: int) -> int:
        """Return the number of the row at ``position`` in the endless sequence of epochs."""
        epoch, k = divmod(position, len(self.rows))
        if self._epoch[0] != epoch:
            order = list(range(len(self.rows)))
            rng(self.seed, "epoch", epoch).shuffle(order)
            self._epoch = (epoch, order)
        return self._epoch[1][k]


class OnceStream:
    """Each row once, in order of length, for validation."""

    def __init__(self, rows: Sequence[Row], batch_size: int) -> None:
        order = sorted(range(len(rows)), key=lambda i: count_characters(rows[i]))
        self.batches = [[(i, rows[i]) for i in order[k : k + batch_size]] for k in range(0, len(order), batch_size)]

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]:
        return self.batches[step]


class MixedStream:
    """Rows of ``stream``; a share of them is replaced by rows that ``make`` writes for this step.

    The share is 1 in the first 45 % of the steps and then falls linearly to ``final_share`` over the next 30 %. In a
    measurement the ORM learned best from synthetic errors first and real errors later.
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


def count_characters(row: Row) -> int:
    """Return the characters of a row, a cheap estimate of its length in tokens."""
    history = sum(len(question) + len(answer) for question, answer in row.get("history", ()))
    longest = max(len(str(row.get(path, ""))) for path in ("response", "rejected", "mismatched"))
    return history + len(row["question"]) + longest


def derive_step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of a step's dropout. Rank 0 has the seed of a single process."""
    return derive(seed, "step", step, *([rank] if rank else [])) % 2**63
