"""A table of problems that needs little memory.

The text of all problems lies in a buffer, from 64 MiB on in a temporary file, and a problem is parsed at each access.
Without access a problem costs about 200 bytes, so that a set of 10^6 problems fits any machine.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import IO, Any, overload

from mathse.types import Problem

MAX_BUFFER = 64 << 20  # bytes of text in memory; more text moves to a temporary file


class ProblemTable:
    """Problems by id in the order of adding, each with its file and line.

    Inside the table a problem has a number, from 0 in the order of adding.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # by problem id
        self._ends = array("Q", [0])  # byte offsets: the text of problem k is [ends[k], ends[k + 1])
        self._lines = array("Q")
        self._file_numbers = array("L")  # index into _files, by problem
        self._files: list[str] = []
        self._buffer = bytearray()
        self._spilled: IO[bytes] | None = None  # the temporary file, which holds all of the text once it exists
        self.domain: Any = None  # domain of every problem, see Problem.domain

    def add(self, problem: Problem, file: str, line: int) -> None:
        """Add a problem. Raises KeyError for a repeated id."""
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
        if self._spilled is None and len(self._buffer) + len(data) > MAX_BUFFER:
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
        """Read the problem with this number."""
        start, end = self._ends[number], self._ends[number + 1]
        if self._spilled is None:
            data = bytes(self._buffer[start:end])
        else:
            self._spilled.flush()
            # pread, because forked worker processes share the file's position.
            data = os.pread(self._spilled.fileno(), end - start, start)
        problem_id, question, images, answer, choices, solution, source, metadata = json.loads(data)
        return Problem(
            problem_id, question, tuple(images), answer, tuple(choices), solution, source, metadata, self.domain
        )

    def location(self, problem_id: str) -> tuple[str, int]:
        """Look up the file and line of a problem. Raises KeyError for an unknown id."""
        number = self._numbers[problem_id]
        return self._files[self._file_numbers[number]], self._lines[number]

    def select(self, ids: Iterable[str]) -> ProblemList:
        """Select problems by id, in the order of ``ids``."""
        return ProblemList(self, array("L", (self._numbers[i] for i in ids)))


class ProblemList(Sequence[Problem]):
    """A sequence of problems of a table; each access reads a problem."""

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
        """List the ids without reading a problem."""
        table_ids = self._table.ids()
        return [table_ids[number] for number in self._numbers]

    def without(self, ids: set[str]) -> ProblemList:
        """Copy the list without these problems."""
        removed = {self._table._numbers[i] for i in ids if i in self._table}
        return ProblemList(self._table, array("L", (number for number in self._numbers if number not in removed)))


def without(problems: Sequence[Problem], ids: set[str]) -> Sequence[Problem]:
    """Copy any sequence of problems without the problems of ``ids``."""
    if not ids:
        return problems
    if isinstance(problems, ProblemList):
        return problems.without(ids)
    return [p for p in problems if p.id not in ids]


def ids_of(problems: Sequence[Problem]) -> list[str]:
    """List the ids of any sequence of problems."""
    return problems.ids() if isinstance(problems, ProblemList) else [p.id for p in problems]


class ProblemsById(MutableMapping[str, Problem]):
    """The problems of a table by id, as a mapping that accepts further problems."""

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
