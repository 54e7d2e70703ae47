"""The student as its own teacher: for runs without a stronger model.

PAPER: GPT-4o teaches; one sentence has "the model" reflect on its own mistakes (``evolution.reflect.writer=student``).
Here the current student does all three jobs: the base solves what is distilled. Only the judge filters that, so choose
``judge=answer`` or a trained ORM with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mathse.inference import prompts
from mathse.inference.generate import Ask, Writer, generated
from mathse.inference.rows import judge_row, reflect_row, solve_row
from mathse.models.row import Row
from mathse.types import Problem, ReasoningPath, Verdict


class StudentTeacher:
    """``learns_from`` sets the student. A first attempt is greedy, later ones are sampled."""

    name = "student"

    def __init__(self) -> None:
        self._student: Callable[[], Writer] | None = None
        self._generator: Any = None

    def learns_from(self, student: Callable[[], Writer], generator: Any) -> None:
        """``student`` returns the current student at each call; batch size, length and sampling are the generator's."""
        self._student, self._generator = student, generator

    def prompt_version(self, job: str, problem: Problem) -> str:
        return prompts.version(job, self._model().prompt_style, problem)

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        model = self._model()
        return self._written(model, [solve_row(model.prompt_style, problem) for problem in problems])

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        model = self._model()
        rows = [
            judge_row(model.prompt_style, problem, path.text, see_answer=True, see_image=True)
            for problem, path in zip(problems, paths, strict=True)
        ]
        parsed = [prompts.parse_feedback(text or "") for text in self._written(model, rows)]
        return [Verdict(path.id, *feedback, judge=self.name) for path, feedback in zip(paths, parsed, strict=True)]

    def reflect(
        self,
        problems: Sequence[Problem],
        drafts: Sequence[ReasoningPath],
        feedback: Sequence[Verdict | None],
        attempt: int = 0,
    ) -> list[str | None]:
        model = self._model()
        rows = [
            reflect_row(model.prompt_style, problem, draft.text, verdict)
            for problem, draft, verdict in zip(problems, drafts, feedback, strict=True)
        ]
        return self._written(model, rows, attempt)

    def _model(self) -> Writer:
        if self._student is None:
            raise RuntimeError("StudentTeacher has no student yet; call learns_from before its first use")
        return self._student()

    def _written(self, model: Writer, rows: Sequence[Row], attempt: int = 0) -> list[str | None]:
        """A text a row; None where the model writes nothing."""
        # a second greedy attempt would write the same again
        sampling = self._generator.sampling if attempt else {"temperature": 0.0}
        options = {"max_new_tokens": self._generator.max_new_tokens, "seed": attempt, **sampling}
        size = self._generator.batch_size
        batches = generated(model, (Ask(rows[k : k + size], options) for k in range(0, len(rows), size)))
        texts = [of_row[0] for batch in batches for of_row in batch]
        return [text if text.strip() else None for text in texts]
