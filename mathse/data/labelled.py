"""Paths that somebody has labelled, from a JSONL file (``.gz`` too): what an ORM learns from, or is measured on.

    {"id": "7", "problem_id": "geo/12", "question": "Find x.", "images": ["images/12.png"], "answer": "B",
     "choices": ["12", "13"], "path": "Step 1: ...", "status": "wrong", "error_step": "Step 2",
     "error_analysis": "The angle is halved twice.", "subject": "geometry"}

"problem_id", "choices", "solution", "error_step", "error_analysis" and "subject" are optional. Image paths are relative
to the file's folder and stay inside it. A row with a "problem_id" and no "question" takes its problem from the run's
own data. Rows of a run's ``orm/feedback.jsonl`` {"path", "verdict"} and ``orm/orm_held.jsonl`` {"path", "label",
"verdict"} are taken as they are; of the latter the label counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mathse.data.records import BadRow, Record, read_lines
from mathse.data.rows import Images, checked_text, problem_of
from mathse.errors import DataError
from mathse.runs.store import to_json
from mathse.types import Lineage, Problem, ReasoningPath, Verdict

PROBLEM = ("question", "images", "answer", "choices", "solution")
OWN = ("id", "path", "status")
FIELDS = (*OWN, "problem_id", *PROBLEM, "error_step", "error_analysis", "subject")
STATUSES = ("correct", "wrong")
NAMED = 5  # bad rows named in an error; the others are counted


@dataclass(frozen=True)
class LabelledPath:
    """A path with its problem and what is true of it; ``line`` of the file it came from."""

    problem: Problem
    path: ReasoningPath
    label: Verdict
    line: int

    @property
    def subject(self) -> str | None:
        """What the problem is about, where somebody has said so."""
        found = self.problem.metadata.get("subject", self.problem.metadata.get("kind"))
        return None if found is None else str(found)


def read_labelled(path: Path, lookup: Callable[[str], Problem]) -> list[LabelledPath]:
    """The rows of a file, all of them good. ``lookup`` gives a problem of the run's data, or raises DataError.

    Raises DataError with file, line and reason of the first bad rows, and for a file without rows.
    """
    found, bad, read = _Found(path, lookup), list[str](), 0
    for record in read_lines(path):
        read += 1
        try:
            found.add(record)
        except DataError as error:
            bad.append(f"{path}:{record.line}: {error}")
    if bad:
        more = [f"... and {len(bad) - NAMED} more"] if len(bad) > NAMED else []
        raise DataError("\n".join([f"{path}: {len(bad)} of {read} rows cannot be used", *bad[:NAMED], *more]))
    if not found.rows:
        raise DataError(f"{path}: holds no rows; each is a path with its label, one JSON object a line")
    return found.rows


class _Found:
    """The rows read so far: a path's id stands once, and a problem's id for one problem."""

    def __init__(self, file: Path, lookup: Callable[[str], Problem]) -> None:
        self.file, self.lookup = file, lookup
        self.images = Images()
        self.rows: list[LabelledPath] = []
        self.lines: dict[str, int] = {}  # by path
        self.problems: dict[str, tuple[Problem, int]] = {}

    def add(self, record: Record) -> None:
        if record.values is None:
            raise BadRow(record.reason)
        of_a_run = isinstance(record.values.get("path"), Mapping)
        problem, path, label = self._of_a_run(record.values) if of_a_run else self._of_a_user(record.values)
        if path.id in self.lines:
            raise BadRow(
                f'"id" {path.id!r:.80} stands already at line {self.lines[path.id]}; ids are unique, rename one'
            )
        known, line = self.problems.setdefault(problem.id, (problem, record.line))
        if known != problem:
            raise BadRow(
                f"problem {problem.id!r:.80} is another one at line {line}; give one of them another problem_id"
            )
        self.lines[path.id] = record.line
        self.rows.append(LabelledPath(known, path, label, record.line))

    def _of_a_run(self, values: Mapping[str, Any]) -> tuple[Problem, ReasoningPath, Verdict]:
        word = values.get("label", values.get("verdict"))
        if word is None:
            raise BadRow('a row of a run has "path" and "label" (or "verdict"), and it has neither of the two')
        path, label = ReasoningPath.from_json(values["path"]), Verdict.from_json(word)
        if not all(isinstance(text, str) for text in (path.id, path.problem_id, path.text)):
            raise BadRow('"id", "problem_id" and "text" of the path are texts; write the row as the run wrote it')
        if label.status not in STATUSES:
            raise BadRow(f"the label's status is {label.status!r:.80}; a label is correct or wrong, leave this row out")
        if label.path_id != path.id:
            raise BadRow(
                f"a label of path {label.path_id!r:.80} stands beside path {path.id!r:.80}; pair each with its own"
            )
        return self.lookup(path.problem_id), path, label

    def _of_a_user(self, values: Mapping[str, Any]) -> tuple[Problem, ReasoningPath, Verdict]:
        _check_names(values)
        identity, text = _text(values, "id"), _text(values, "path")
        problem = self._problem(values)
        if values["status"] not in STATUSES:
            raise BadRow(f'"status" is "correct" or "wrong", got {values["status"]!r:.40}; write one of them')
        step, analysis = (_text(values, key) if values.get(key) else None for key in ("error_step", "error_analysis"))
        path = ReasoningPath(identity, problem.id, text, Lineage("student", "", self.file.name))
        return problem, path, Verdict(identity, values["status"], step, analysis, judge=self.file.name)

    def _problem(self, values: Mapping[str, Any]) -> Problem:
        if "question" not in values:
            if "problem_id" not in values:
                raise BadRow('"question" is missing, and so is "problem_id"; a row has its problem, or names one')
            return self.lookup(_text(values, "problem_id"))
        own = {key: values[key] for key in (*PROBLEM, "subject") if key in values}
        identity = _text(values, "problem_id") if values.get("problem_id") else _content(own)
        return problem_of({"id": identity, **own}, self.file.parent, self.images, self.file.name)


def _check_names(values: Mapping[str, Any]) -> None:
    for name in values:
        near = None if name in FIELDS else next(iter(get_close_matches(name, FIELDS, n=1, cutoff=0.8)), None)
        if near is not None and near not in values:
            raise BadRow(f'unknown key "{name}"; did you mean "{near}"?')
    if missing := [name for name in OWN if name not in values]:
        raise BadRow(f'"{missing[0]}" is missing; a row has {", ".join(OWN)}, and its problem or a problem_id')


def _text(values: Mapping[str, Any], name: str) -> str:
    return checked_text(values[name], f'"{name}"')


def _content(own: Mapping[str, Any]) -> str:
    """An id for a problem without one: rows that ask the same are of one problem."""
    asked = to_json([own.get(key) for key in ("question", "images", "answer", "choices")])
    return f"problem-{hashlib.sha256(asked.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}"


# --- what an ORM learns from and is measured on -----------------------------------------------------------------------


@dataclass(frozen=True)
class ORMData:
    """A user's rows for an ORM (``orm.train``, ``orm.held``): no problem of the one is in the other."""

    train: Sequence[LabelledPath]
    held: Sequence[LabelledPath]


def read_orm_data(train: Path, held: Path, lookup: Callable[[str], Problem]) -> ORMData:
    """Raises DataError for rows that cannot be used, for a file that lacks right or wrong paths, and for a problem that
    is in both files, be it under another id."""
    data = ORMData(*(read_labelled(file, lookup) for file in (train, held)))
    for file, rows in ((train, data.train), (held, data.held)):
        for status in STATUSES:
            if not any(row.label.status == status for row in rows):
                raise DataError(f"{file}: no row's status is {status!r}; an ORM needs right and wrong paths, add some")
    learnt = {mark: row.line for row in reversed(data.train) for mark in _marks(row.problem)}
    shared = [(row, line) for row in data.held if (line := _line_of(row.problem, learnt)) is not None]
    if shared:
        row, line = shared[0]
        raise DataError(
            f"{held}:{row.line}: problem {row.problem.id!r} is in {train}:{line} too ({len(shared):,} of "
            f"{len(data.held):,} rows are of such problems); an ORM is not measured on what it learnt from, move all "
            "paths of a problem into one of the two files"
        )
    return data


def _line_of(problem: Problem, learnt: Mapping[object, int]) -> int | None:
    return next((learnt[mark] for mark in _marks(problem) if mark in learnt), None)


def _marks(problem: Problem) -> tuple[object, object]:
    """What two rows of one problem have in common: its id, or what it asks."""
    return problem.id, (problem.question, problem.images)
