"""Many problems with little memory: their text lies in one buffer, from 64 MiB on in a temporary file, and is read when
a problem is asked for. A problem that is not asked for costs about 200 bytes.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import IO, Any, overload

from mathse.types import Problem

IN_MEMORY = 64 << 20  # bytes


class ProblemTable:
    """Problems by id, in the order in which they were added, each with the file and line it came from."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._ends = array("Q", [0])  # where each problem's text ends
        self._lines = array("Q")
        self._file_of = array("L")
        self._files: list[str] = []
        self._held = bytearray()
        self._file: IO[bytes] | None = None

    def add(self, problem: Problem, file: str, line: int) -> None:
        """Raises KeyError where its id is there already."""
        if problem.id in self._places:
            raise KeyError(problem.id)
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        self._places[problem.id] = len(self._places)
        self._lines.append(line)
        self._file_of.append(len(self._files) - 1)
        self._write(json.dumps(_values(problem), ensure_ascii=False).encode("utf-8", "surrogatepass"))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, problem_id: object) -> bool:
        return problem_id in self._places

    def ids(self) -> list[str]:
        return list(self._places)

    def get(self, problem_id: str) -> Problem | None:
        place = self._places.get(problem_id)
        return None if place is None else self.at(place)

    def at(self, place: int) -> Problem:
        """The problem that was added as the ``place``-th, from 0."""
        return _problem(json.loads(self._read(self._ends[place], self._ends[place + 1])))

    def where(self, problem_id: str) -> tuple[str, int]:
        """The file and line that a problem came from. Raises KeyError for one that is not here."""
        place = self._places[problem_id]
        return self._files[self._file_of[place]], self._lines[place]

    def select(self, ids: Iterable[str]) -> ProblemList:
        """These problems, in this order."""
        return ProblemList(self, array("L", (self._places[i] for i in ids)))

    def _write(self, data: bytes) -> None:
        self._ends.append(self._ends[-1] + len(data))
        if self._file is None and len(self._held) + len(data) > IN_MEMORY:
            self._file = tempfile.TemporaryFile(prefix="mathse-")  # noqa: SIM115  (lives as long as the table)
            self._file.write(self._held)
            self._held = bytearray()
        if self._file is None:
            self._held += data
        else:
            self._file.write(data)

    def _read(self, start: int, end: int) -> bytes:
        if self._file is None:
            return bytes(self._held[start:end])
        self._file.flush()
        return os.pread(self._file.fileno(), end - start, start)  # forked readers have no position in common


class ProblemList(Sequence[Problem]):
    """Some problems of a table; each is read when it is asked for."""

    def __init__(self, table: ProblemTable, places: array[int]) -> None:
        self._table, self._chosen = table, places

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> ProblemList: ...
    def __getitem__(self, index: int | slice) -> Problem | ProblemList:
        if isinstance(index, slice):
            return ProblemList(self._table, self._chosen[index])
        return self._table.at(self._chosen[index])

    def __iter__(self) -> Iterator[Problem]:
        return map(self._table.at, self._chosen)

    def ids(self) -> list[str]:
        """The problems' ids, none of them read."""
        known = self._table.ids()
        return [known[place] for place in self._chosen]

    def without(self, ids: set[str]) -> ProblemList:
        """The list without these problems."""
        gone = {self._table._places[i] for i in ids if i in self._table}
        return ProblemList(self._table, array("L", (place for place in self._chosen if place not in gone)))


def without(problems: Sequence[Problem], ids: set[str]) -> Sequence[Problem]:
    """``problems`` without those, whatever kind of sequence it is."""
    if not ids:
        return problems
    return problems.without(ids) if isinstance(problems, ProblemList) else [p for p in problems if p.id not in ids]


def ids_of(problems: Sequence[Problem]) -> list[str]:
    """The ids of ``problems``, whatever kind of sequence it is."""
    return problems.ids() if isinstance(problems, ProblemList) else [p.id for p in problems]


class ById(MutableMapping[str, Problem]):
    """The problems of a table by id, as a mapping; further ones can be added."""

    def __init__(self, table: ProblemTable) -> None:
        self._table = table
        self._added: dict[str, Problem] = {}

    def __getitem__(self, problem_id: str) -> Problem:
        found = self._added.get(problem_id) or self._table.get(problem_id)
        if found is None:
            raise KeyError(problem_id)
        return found

    def __contains__(self, problem_id: object) -> bool:
        return problem_id in self._added or problem_id in self._table

    def __iter__(self) -> Iterator[str]:
        return iter([*self._table.ids(), *self._added])

    def __len__(self) -> int:
        return len(self._table) + len(self._added)

    def __setitem__(self, problem_id: str, problem: Problem) -> None:
        self._added[problem_id] = problem

    def __delitem__(self, problem_id: str) -> None:
        del self._added[problem_id]


def _values(p: Problem) -> list[Any]:
    return [p.id, p.question, p.images, p.answer, p.choices, p.solution, p.source, p.metadata]


def _problem(values: list[Any]) -> Problem:
    identity, question, images, answer, choices, solution, source, metadata = values
    return Problem(identity, question, tuple(images), answer, tuple(choices), solution, source, metadata)
