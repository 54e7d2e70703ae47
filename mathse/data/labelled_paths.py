"""Labelled paths from a JSONL file (``.gz`` too), which train or measure an ORM.

    {"id": "7", "problem_id": "geo/12", "question": "Find x.", "images": ["images/12.png"], "answer": "B",
     "choices": ["12", "13"], "path": "Step 1: ...", "status": "wrong", "error_step": "Step 2",
     "error_analysis": "The angle is halved twice.", "subject": "geometry"}

"problem_id", "choices", "solution", "error_step", "error_analysis" and "subject" are optional. Image paths are relative
to the file's folder and stay inside it. A row with a "problem_id" and no "question" takes its problem from the run's
own data. Rows of a run's ``orm/feedback.jsonl`` {"path", "verdict"} and ``orm/orm_held.jsonl`` {"path", "label",
"verdict"} need no change; the label of the latter counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.data.domains import MATH, TaskDomain, in_domain
from mathse.data.json_records import BadRow, read_lines
from mathse.data.row_validation import ImageChecks, check_names, problem_from, text_field
from mathse.errors import DataError
from mathse.runs.store import to_json
from mathse.types import Lineage, Problem, ReasoningPath, Verdict

PROBLEM_KEYS = ("question", "images", "answer", "choices", "solution")
REQUIRED = ("id", "path", "status")
FIELDS = (*REQUIRED, "problem_id", *PROBLEM_KEYS, "error_step", "error_analysis", "subject")
STATUSES = ("correct", "wrong")
MAX_NAMED_ROWS = 5  # bad rows named in an error; the others are counted


@dataclass(frozen=True)
class LabelledPath:
    """A path with its problem, its true verdict (the label), and its line in the file."""

    problem: Problem
    path: ReasoningPath
    label: Verdict
    line: int

    @property
    def subject(self) -> str | None:
        """The subject of the problem, None if the data gives none."""
        subject = self.problem.metadata.get("subject", self.problem.metadata.get("kind"))
        return None if subject is None else str(subject)


def read_labelled(path: Path, lookup: Callable[[str], Problem], domain: TaskDomain = MATH) -> list[LabelledPath]:
    """Read the rows of a file, with their problems in the run's task domain.

    Args:
        lookup: gives a problem of the run's data by id, or raises DataError.

    Raises DataError with file, line and reason of the first bad rows, and for a file without rows.
    """
    images = ImageChecks()
    rows: list[LabelledPath] = []
    lines: dict[str, int] = {}  # by path id
    problems: dict[str, tuple[Problem, int]] = {}  # by problem id, with its first line
    bad: list[str] = []
    total = 0
    for record in read_lines(path):
        total += 1
        try:
            if record.values is None:
                raise BadRow(record.reason)
            if isinstance(record.values.get("path"), Mapping):
                problem, reasoning, label = _read_run_row(record.values, lookup)
            else:
                problem, reasoning, label = _read_user_row(record.values, lookup, path, images)
            if reasoning.id in lines:
                raise BadRow(
                    f'"id" {reasoning.id!r:.80} stands already at line {lines[reasoning.id]}; ids are unique, '
                    "rename one"
                )
            # All rows of a problem repeat it in full, and must agree.
            known, line = problems.setdefault(problem.id, (problem, record.line))
            if known != problem:
                raise BadRow(
                    f"problem {problem.id!r:.80} is another one at line {line}; give one of them another problem_id"
                )
        except DataError as error:
            bad.append(f"{path}:{record.line}: {error}")
        else:
            lines[reasoning.id] = record.line
            rows.append(LabelledPath(in_domain(known, domain), reasoning, label, record.line))
    if bad:
        lines_of_error = [f"{path}: {len(bad)} of {total} rows cannot be used", *bad[:MAX_NAMED_ROWS]]
        if len(bad) > MAX_NAMED_ROWS:
            lines_of_error.append(f"... and {len(bad) - MAX_NAMED_ROWS} more")
        raise DataError("\n".join(lines_of_error))
    if not rows:
        raise DataError(f"{path}: holds no rows; each is a path with its label, one JSON object a line")
    return rows


def _read_run_row(
    values: Mapping[str, Any], lookup: Callable[[str], Problem]
) -> tuple[Problem, ReasoningPath, Verdict]:
    """Read a row that a run wrote: {"path", "label"?, "verdict"?}."""
    verdict = values.get("label", values.get("verdict"))
    if verdict is None:
        raise BadRow('a row of a run has "path" and "label" (or "verdict"), and it has neither of the two')
    path, label = ReasoningPath.from_json(values["path"]), Verdict.from_json(verdict)
    if label.status not in STATUSES:
        raise BadRow(f"the label's status is {label.status!r:.80}; a label is correct or wrong, leave this row out")
    if label.path_id != path.id:
        raise BadRow(
            f"a label of path {label.path_id!r:.80} stands beside path {path.id!r:.80}; pair each with its own"
        )
    return lookup(path.problem_id), path, label


def _read_user_row(
    values: Mapping[str, Any], lookup: Callable[[str], Problem], file: Path, images: ImageChecks
) -> tuple[Problem, ReasoningPath, Verdict]:
    """Read a row in the form of this file's docstring."""
    check_names(values, FIELDS)
    if missing := [name for name in REQUIRED if name not in values]:
        raise BadRow(f'"{missing[0]}" is missing; a row has {", ".join(REQUIRED)}, and its problem or a problem_id')
    path_id, text = text_field(values, "id"), text_field(values, "path")

    if "question" in values:
        of_problem = {key: values[key] for key in (*PROBLEM_KEYS, "subject") if key in values}
        if values.get("problem_id"):
            problem_id = text_field(values, "problem_id")
        else:
            # Rows with equal contents are paths of the same problem.
            contents = to_json([of_problem.get(key) for key in ("question", "images", "answer", "choices")])
            digest = hashlib.sha256(contents.encode("utf-8", "backslashreplace")).hexdigest()
            problem_id = f"problem-{digest[:12]}"
        problem = problem_from({"id": problem_id, **of_problem}, file.parent, images, file.name)
    elif "problem_id" in values:
        problem = lookup(text_field(values, "problem_id"))
    else:
        raise BadRow('"question" is missing, and so is "problem_id"; a row has its problem, or names one')

    if values["status"] not in STATUSES:
        raise BadRow(f'"status" is "correct" or "wrong", got {values["status"]!r:.40}; write one of them')
    step, analysis = (text_field(values, key) if values.get(key) else None for key in ("error_step", "error_analysis"))
    path = ReasoningPath(path_id, problem.id, text, Lineage("student", "", file.name))
    return problem, path, Verdict(path_id, values["status"], step, analysis, judge=file.name)


# --- the training and held-out rows of an ORM -------------------------------------------------------------------------


@dataclass(frozen=True)
class ORMData:
    """A user's rows for an ORM (``orm.train``, ``orm.held``), without a problem in common."""

    train: Sequence[LabelledPath]
    held: Sequence[LabelledPath]


def read_orm_data(train: Path, held: Path, lookup: Callable[[str], Problem], domain: TaskDomain = MATH) -> ORMData:
    """Read a user's rows for an ORM.

    Raises DataError for rows that cannot be used, for a file without right or wrong paths, and for a problem in both
    files, also under two ids.
    """
    data = ORMData(*(read_labelled(file, lookup, domain) for file in (train, held)))
    for file, rows in ((train, data.train), (held, data.held)):
        for status in STATUSES:
            if not any(row.label.status == status for row in rows):
                raise DataError(f"{file}: no row's status is {status!r}; an ORM needs right and wrong paths, add some")

    def keys(problem: Problem) -> tuple[object, object]:
        """Two rows have the same problem if either key agrees: the id, or the question with its images."""
        return problem.id, (problem.question, problem.images)

    train_lines: dict[object, int] = {}  # first line of a problem in the training file, by key
    for row in data.train:
        for key in keys(row.problem):
            train_lines.setdefault(key, row.line)
    shared: list[tuple[LabelledPath, int]] = []  # held-out rows, with the line of their problem in the training file
    for row in data.held:
        lines = [train_lines[key] for key in keys(row.problem) if key in train_lines]
        if lines:
            shared.append((row, lines[0]))
    if shared:
        row, line = shared[0]
        raise DataError(
            f"{held}:{row.line}: problem {row.problem.id!r} is in {train}:{line} too ({len(shared):,} of "
            f"{len(data.held):,} rows are of such problems); an ORM is not measured on what it learnt from, move all "
            "paths of a problem into one of the two files"
        )
    return data
