"""Sequences of rows on the disk: a row is read when it is used, and takes eight bytes of memory until then.

``JsonlRows`` is a file. ``Chosen``, ``Chained`` and ``Mapped`` are views of sequences without a copy. All can be
indexed, sliced, iterated repeatedly, and compared with any other sequence.
"""

from __future__ import annotations

import os
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from mathse.runs.store import parse_row
from mathse.types import Record

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class Rows(Sequence[T], Generic[T]):
    """The base class: a slice is a view, and sequences with equal rows in the same order are equal."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Rows[T]: ...
    def __getitem__(self, index: int | slice) -> T | Rows[T]:
        if isinstance(index, slice):
            return Chosen(self, range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._at(index % len(self))

    def _at(self, index: int) -> T:
        raise NotImplementedError

    def __iter__(self) -> Iterator[T]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows)"


class JsonlRows(Rows[R]):
    """The rows of a JSONL file as ``kind``. The open file is read, also after another file has replaced it.

    Raises DataError, with file and line number, when a row that is not a ``kind`` is read.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self._path, self._kind = path, kind
        self._starts = array("Q")  # first byte of each row, and the end of the last row
        self._lines = array("L")  # line number of each row
        self._fd = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)
        end = 0
        with open(self._fd, "rb", closefd=False) as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    self._starts.append(end)
                    self._lines.append(number)
                end += len(line)
        self._starts.append(end)

    def __len__(self) -> int:
        return len(self._lines)

    def _at(self, index: int) -> R:
        start, end = self._starts[index], self._starts[index + 1]
        line = os.pread(self._fd, end - start, start)  # without seek, because forked readers share a file's position
        row: R = parse_row(line, self._path, self._lines[index], self._kind)
        return row


class Chosen(Rows[T]):
    """The rows of another sequence at ``indices``, in this order."""

    def __init__(self, rows: Sequence[T], indices: Iterable[int]) -> None:
        self._rows = rows
        self._indices = indices if isinstance(indices, range) else array("L", indices)

    def __len__(self) -> int:
        return len(self._indices)

    def _at(self, index: int) -> T:
        return self._rows[self._indices[index]]


class Chained(Rows[T]):
    """Concatenated sequences."""

    def __init__(self, *parts: Sequence[T]) -> None:
        flat = chain.from_iterable(p._parts if isinstance(p, Chained) else (p,) for p in parts)
        self._parts: tuple[Sequence[T], ...] = tuple(p for p in flat if len(p))
        self._ends = list(accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _at(self, index: int) -> T:
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._parts)


class Mapped(Rows[T]):
    """``make(a, b, ...)`` for the rows of one or more sequences of equal length."""

    def __init__(self, make: Callable[..., T], *rows: Sequence[Any]) -> None:
        if len(set(map(len, rows))) > 1:
            raise ValueError(f"sequences of different lengths: {[len(r) for r in rows]}")
        self._make, self._sources = make, rows

    def __len__(self) -> int:
        return len(self._sources[0])

    def _at(self, index: int) -> T:
        return self._make(*(rows[index] for rows in self._sources))

    def __iter__(self) -> Iterator[T]:
        return map(self._make, *self._sources)


def match_rows(
    rows: Sequence[T], others: Iterable[Any], key: Callable[[T], str], of: Callable[[Any], str]
) -> array[int]:
    """Return for each row the index of the last element of ``others`` with the same key.

    Args:
        key: returns the key of a row.
        of: returns the key of an element of ``others``.

    Raises:
        KeyError: a row has no match.
    """
    indices = {of(other): index for index, other in enumerate(others)}
    return array("L", (indices[key(row)] for row in rows))
