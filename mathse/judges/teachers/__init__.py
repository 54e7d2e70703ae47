"""Teachers write solutions, annotate paths and rewrite wrong drafts. The paper's teacher is GPT-4o.

replay.py      the problems' own solutions, without an API
openai_api.py  any model behind an OpenAI-compatible API
student.py     the student as its own teacher

The teachers of the built-in tasks are mathse/data/synthetic/teacher.py and mathse/data/words/teacher.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from mathse.inference import prompts
from mathse.judges.teachers.replay import ReplayTeacher
from mathse.types import Draft, Problem, ReasoningPath, Verdict

__all__ = [
    "MAX_ROWS_A_CALL",
    "PaidTeacher",
    "PromptedTeacher",
    "ReplayTeacher",
    "Teacher",
    "group_into_calls",
    "prompt_version",
]

Rows = TypeVar("Rows", bound=Sized)

MAX_ROWS_A_CALL = 64  # for a teacher without ``rows_at_once``; a kill loses at most the answers of one call


class Teacher(Protocol):
    """Writes solutions, annotates paths and rewrites wrong drafts, a list of rows a call.

    A teacher that cannot be reached raises TeacherError.
    """

    name: str

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        """Return a solution per problem; None for an answer that is not usable, which is counted."""
        ...

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        """Return a verdict per path; the n-th path belongs to the n-th problem."""
        ...

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        """Return a rewrite per draft; None for an answer that is not usable, which is counted.

        ``attempt`` counts the tries at a draft from 0.
        """
        ...


@runtime_checkable
class PaidTeacher(Teacher, Protocol):
    """A teacher with a price. It stores each answer when it arrives, so a call may have many rows.

    ``rows_at_once`` is the number of rows that a call should have.
    """

    rows_at_once: int

    def account_in(self, folder: Path) -> None:
        """Keep the account in this run folder; called before the first request."""
        ...

    def usage(self) -> dict[str, Any]:
        """Return the totals of the account, for summary.json."""
        ...


@runtime_checkable
class PromptedTeacher(Teacher, Protocol):
    """A teacher that is a model and reads a prompt. Lineage records the prompt's version."""

    def prompt_version(self, job: str, problem: Problem) -> str:
        """Return the name and version of the prompt for ``job``, "generate" or "reflect"."""
        ...


def prompt_version(teacher: Teacher, job: str, problem: Problem) -> str:
    """Return the name and version of the prompt that the teacher reads, for lineage."""
    if isinstance(teacher, PromptedTeacher):
        return teacher.prompt_version(job, problem)
    return prompts.version(job, "full")


def group_into_calls(teacher: Teacher, batches: Sequence[Rows]) -> Iterator[list[Rows]]:
    """Group batches, in their order, into calls to the teacher. A call has at least one batch, and otherwise at most as
    many rows as the teacher takes."""
    max_rows = teacher.rows_at_once if isinstance(teacher, PaidTeacher) else MAX_ROWS_A_CALL
    call: list[Rows] = []
    for batch in batches:
        if call and sum(map(len, call)) + len(batch) > max_rows:
            yield call
            call = []
        call.append(batch)
    if call:
        yield call
