"""Teachers: whoever writes solutions, annotates paths and rewrites wrong drafts. In the paper, GPT-4o.

replay.py      the problems' own solutions: no API
openai_api.py  any model behind an OpenAI-compatible API
student.py     the student as its own teacher
(mathse/data/synthetic/teacher.py has that of the built-in task)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from mathse.inference import prompts
from mathse.judges.teachers.replay import ReplayTeacher
from mathse.types import Problem, ReasoningPath, Verdict

__all__ = ["AT_ONCE", "PaidTeacher", "PromptedTeacher", "ReplayTeacher", "Teacher", "in_calls", "prompt_version"]

Batch = TypeVar("Batch", bound=Sized)

AT_ONCE = 64  # rows a call to a teacher without ``rows_at_once``; a kill loses at most these answers


class Teacher(Protocol):
    """All lists run in parallel: the n-th path, draft or feedback belongs to the n-th problem.

    ``solve`` and ``reflect`` give a text per problem; None: no usable answer, an outcome that is counted. ``annotate``
    gives a verdict per path. ``attempt`` counts the tries at a draft from 0. A teacher that cannot be reached raises
    TeacherError.
    """

    name: str

    def solve(self, problems: Sequence[Problem]) -> list[str | None]: ...

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]: ...

    def reflect(
        self,
        problems: Sequence[Problem],
        drafts: Sequence[ReasoningPath],
        feedback: Sequence[Verdict | None],
        attempt: int = 0,
    ) -> list[str | None]: ...


@runtime_checkable
class PaidTeacher(Teacher, Protocol):
    """A teacher whose answers cost something. It stores them itself as they come, so a call may have many rows.

    ``rows_at_once``: the number of rows that one call should have. ``account_in``: called before the first request,
    with the run folder to write the account into. ``usage``: the account in numbers, for summary.json.
    """

    rows_at_once: int

    def account_in(self, folder: Path) -> None: ...

    def usage(self) -> dict[str, Any]: ...


@runtime_checkable
class PromptedTeacher(Teacher, Protocol):
    """A teacher that is a model and reads a prompt, whose version lineage records. ``job``: "generate" or "reflect"."""

    def prompt_version(self, job: str, problem: Problem) -> str: ...


def prompt_version(teacher: Teacher, job: str, problem: Problem) -> str:
    """The name and version of the prompt that the teacher reads, for lineage."""
    if isinstance(teacher, PromptedTeacher):
        return teacher.prompt_version(job, problem)
    return prompts.version(job, "full")


def in_calls(teacher: Teacher, batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Batches in order, grouped into calls to the teacher: as many rows as a call should have, one batch at least."""
    most = teacher.rows_at_once if isinstance(teacher, PaidTeacher) else AT_ONCE
    call: list[Batch] = []
    for batch in batches:
        if call and sum(map(len, call)) + len(batch) > most:
            yield call
            call = []
        call.append(batch)
    if call:
        yield call
