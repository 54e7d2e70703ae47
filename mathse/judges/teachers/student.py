"""``teacher=student``: the student as its own teacher, for runs without a stronger model.

PAPER: GPT-4o teaches; one sentence has "the model" reflect on its own mistakes (``evolution.reflect.writer=student``).
Here the current student does all three jobs, and the base model writes the distilled solutions. Only the judge filters
them, so combine this teacher with ``judge=answer`` or a trained ORM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mathse.inference import prompts
from mathse.inference.generate import PromptBatch, Writer, generate_batches
from mathse.inference.rows import judge_row, reflect_row, solve_row
from mathse.models.row import Row
from mathse.types import Draft, Problem, ReasoningPath, Verdict


class StudentTeacher:
    """``learns_from`` sets the student. The first attempt is greedy, later attempts are sampled."""

    name = "student"

    def __init__(self) -> None:
        self._student: Callable[[], Writer] | None = None
        self._generator: Any = None

    def learns_from(self, student: Callable[[], Writer], generator: Any) -> None:
        """Set the student.

        Args:
            student: returns the current student at each call.
            generator: its batch size, maximal length and sampling settings are used.
        """
        self._student, self._generator = student, generator

    def prompt_version(self, job: str, problem: Problem) -> str:
        return prompts.version(job, self._open().prompt_style, problem)

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        model = self._open()
        return self._write(model, [solve_row(model.prompt_style, problem) for problem in problems])

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        model = self._open()
        rows = [
            judge_row(model.prompt_style, problem, path.text, see_answer=True, see_image=True)
            for problem, path in zip(problems, paths, strict=True)
        ]
        texts = self._write(model, rows)
        return [prompts.parse_feedback(text or "", path.id, self.name) for path, text in zip(paths, texts, strict=True)]

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        model = self._open()
        rows = [reflect_row(model.prompt_style, problem, path.text, feedback) for problem, path, feedback in drafts]
        return self._write(model, rows, attempt)

    def _open(self) -> Writer:
        if self._student is None:
            raise RuntimeError("StudentTeacher has no student yet; call learns_from before its first use")
        return self._student()

    def _write(self, model: Writer, rows: Sequence[Row], attempt: int = 0) -> list[str | None]:
        """Return a text per row; None if the text is blank."""
        # A second greedy attempt would return the first attempt's text again.
        sampling = self._generator.sampling if attempt else {"temperature": 0.0}
        options = {"max_new_tokens": self._generator.max_new_tokens, "seed": attempt, **sampling}
        size = self._generator.batch_size
        asks = (PromptBatch(rows[k : k + size], options) for k in range(0, len(rows), size))
        texts: list[str | None] = []
        for batch in generate_batches(model, asks):
            for (text,) in batch:
                texts.append(text if text.strip() else None)
        return texts
