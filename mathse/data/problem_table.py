"""Many problems with little memory: their text lies in one buffer, from 64 MiB on in a temporary file, and is read when
a problem is asked for. A problem that is not asked for costs about 200 bytes, so a set of 10^6 problems fits any
machine.
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
    """Problems by id, in the order in which they were added, each with the file and line it came from.

    Inside the table a problem is known by its number in the order of adding, from 0.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # by problem id
        self._ends = array("Q", [0])  # where the text before each problem ends: problem k is [ends[k], ends[k + 1])
        self._lines = array("Q")
        self._file_numbers = array("L")  # into _files, by problem
        self._files: list[str] = []
        self._buffer = bytearray()
        self._spilled: IO[bytes] | None = None  # holds all of the text, once it is there
        self.domain: Any = None  # of every problem, see Problem.domain

    def add(self, problem: Problem, file: str, line: int) -> None:
        """Raises KeyError where its id is there already."""
        if problem.id in self._numbers:
            raise KeyError(problem.id)
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        self._numbers[problem.id] = len(self._numbers)
        self._lines.append(line)
        self._file_numbers.append(len(self._files) - 1)

        p = problem
        values = [p.id, p.question, p.images, p.answer, p.choices, p.solution, p.source, p.metadata]
        data = json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._ends.append(self._ends[-1] + len(data))
        if self._spilled is None and len(self._buffer) + len(data) > IN_MEMORY:
            self._spilled = tempfile.TemporaryFile(prefix="mathse-")  # noqa: SIM115  (lives as long as the table)
            self._spilled.write(self._buffer)
            self._buffer = bytearray()
        if self._spilled is None:
            self._buffer += data
        else:
            self._spilled.write(data)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, problem_id: object) -> bool:
        return problem_id in self._numbers

    def ids(self) -> list[str]:
        return list(self._numbers)

    def get(self, problem_id: str) -> Problem | None:
        number = self._numbers.get(problem_id)
        return None if number is None else self.at(number)

    def at(self, number: int) -> Problem:
        """The problem that was added as the ``number``-th, from 0."""
        start, end = self._ends[number], self._ends[number + 1]
        if self._spilled is None:
            data = bytes(self._buffer[start:end])
        else:
            self._spilled.flush()
            # pread: forked worker processes share the file's position, so nobody may rely on it.
            data = os.pread(self._spilled.fileno(), end - start, start)
        problem_id, question, images, answer, choices, solution, source, metadata = json.loads(data)
        return Problem(
            problem_id, question, tuple(images), answer, tuple(choices), solution, source, metadata, self.domain
        )

    def location(self, problem_id: str) -> tuple[str, int]:
        """The file and line that a problem came from. Raises KeyError for an unknown id."""
        number = self._numbers[problem_id]
        return self._files[self._file_numbers[number]], self._lines[number]

    def select(self, ids: Iterable[str]) -> ProblemList:
        """These problems, in this order."""
        return ProblemList(self, array("L", (self._numbers[i] for i in ids)))


class ProblemList(Sequence[Problem]):
    """Some problems of a table; each is read when it is asked for."""

    def __init__(self, table: ProblemTable, numbers: array[int]) -> None:
        self._table, self._numbers = table, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> ProblemList: ...
    def __getitem__(self, index: int | slice) -> Problem | ProblemList:
        if isinstance(index, slice):
            return ProblemList(self._table, self._numbers[index])
        return self._table.at(self._numbers[index])

    def __iter__(self) -> Iterator[Problem]:
        return map(self._table.at, self._numbers)

    def ids(self) -> list[str]:
        """The problems' ids, none of them read."""
        table_ids = self._table.ids()
        return [table_ids[number] for number in self._numbers]

    def without(self, ids: set[str]) -> ProblemList:
        """The list without these problems."""
        removed = {self._table._numbers[i] for i in ids if i in self._table}
        return ProblemList(self._table, array("L", (number for number in self._numbers if number not in removed)))


def without(problems: Sequence[Problem], ids: set[str]) -> Sequence[Problem]:
    """``problems`` without those of ``ids``, whatever kind of sequence it is."""
    if not ids:
        return problems
    return problems.without(ids) if isinstance(problems, ProblemList) else [p for p in problems if p.id not in ids]


def ids_of(problems: Sequence[Problem]) -> list[str]:
    """The ids of ``problems``, whatever kind of sequence it is."""
    return problems.ids() if isinstance(problems, ProblemList) else [p.id for p in problems]


class ProblemsById(MutableMapping[str, Problem]):
    """The problems of a table by id, as a mapping; further ones can be added."""

    def __init__(self, table: ProblemTable) -> None:
        self._table = table
        self._added: dict[str, Problem] = {}

    def __getitem__(self, problem_id: str) -> Problem:
        problem = self._added.get(problem_id) or self._table.get(problem_id)
        if problem is None:
            raise KeyError(problem_id)
        return problem

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
