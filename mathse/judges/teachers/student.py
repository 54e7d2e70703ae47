"""The student as its own teacher: what it can learn with no stronger model at hand.

PAPER: GPT-4o teaches; one sentence has "the model" reflect on its own mistakes (``evolution.reflect.writer=student``).
Here the student as it stands does all three jobs: the base solves what is distilled, and the judge decides what of it
is kept, so ``judge=answer`` or a trained ORM belongs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mathse.inference import prompts
from mathse.models.row import Row
from mathse.types import Problem, PromptStyle, ReasoningPath, Verdict


class Model(Protocol):
    """A backbone, or a student behind a server."""

    @property
    def prompt_style(self) -> PromptStyle: ...

    def generate(self, rows: Sequence[Row], **how: Any) -> list[list[str]]: ...


class StudentTeacher:
    """``learns_from`` says who the student is; the first try at anything is greedy, later ones are sampled."""

    name = "student"

    def __init__(self) -> None:
        self._student: Callable[[], Model] | None = None
        self._how: Any = None

    def learns_from(self, student: Callable[[], Model], how: Any) -> None:
        """``student`` gives the model as it stands at each call; ``how``: a generator, whose batch size, length and
        sampling are its."""
        self._student, self._how = student, how

    def prompt_version(self, job: str, problem: Problem) -> str:
        return prompts.version(job, self._model().prompt_style, problem)

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        model = self._model()
        return self._written(
            model, [Row(question=prompts.generation_prompt(p, model.prompt_style), images=p.images) for p in problems]
        )

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        model = self._model()
        rows = []
        for problem, path in zip(problems, paths, strict=True):
            question, history = prompts.judge_prompt(problem, path.text, model.prompt_style, see_answer=True)
            rows.append(Row(question=question, images=problem.images, history=history))
        words = [prompts.parse_feedback(text or "") for text in self._written(model, rows)]
        return [Verdict(path.id, *word, judge=self.name) for path, word in zip(paths, words, strict=True)]

    def reflect(
        self,
        problems: Sequence[Problem],
        drafts: Sequence[ReasoningPath],
        feedback: Sequence[Verdict | None],
        attempt: int = 0,
    ) -> list[str | None]:
        model = self._model()
        rows = [
            Row(question=prompts.reflection_prompt(p, draft.text, word, model.prompt_style), images=p.images)
            for p, draft, word in zip(problems, drafts, feedback, strict=True)
        ]
        return self._written(model, rows, attempt)

    def _model(self) -> Model:
        if self._student is None:
            raise RuntimeError("a StudentTeacher is told its student by learns_from before it is asked")
        return self._student()

    def _written(self, model: Model, rows: Sequence[Row], attempt: int = 0) -> list[str | None]:
        """A text a row; None where the model says nothing."""
        sampling = self._how.sampling if attempt else {"temperature": 0.0}
        texts: list[str] = []
        for k in range(0, len(rows), self._how.batch_size):
            batch = rows[k : k + self._how.batch_size]
            done = model.generate(batch, max_new_tokens=self._how.max_new_tokens, seed=attempt, **sampling)
            texts += [row[0] for row in done]
        return [text if text.strip() else None for text in texts]
