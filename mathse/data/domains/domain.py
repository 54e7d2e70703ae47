"""A task domain: what a model is asked, how its answers are compared, what a step of its reasoning is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property

from mathse.config.task_domains import TaskDomain as Settings
from mathse.data.domains.steps import split_steps, step_pattern
from mathse.data.domains.texts import MARKERS, Text, fill, texts_in
from mathse.data.language import language
from mathse.scoring.answers import AnswerRule
from mathse.types import Problem


class TaskDomain:
    """Built of its settings; a domain whose answers or steps no setting describes extends this class and has
    ``extract``, ``same_answer`` or ``steps`` of its own. Prompts are read when the first of them is asked for."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.name
        self.rule = AnswerRule(settings.answer.form, settings.answer.tolerance, settings.answer.unit)
        self._texts = settings.texts
        self._step = step_pattern(settings.step)

    # --- answers and steps ---

    def extract(self, response: str) -> str | None:
        """The final answer of a response, as written, or None."""
        return self.rule.extract(response)

    def same_answer(self, prediction: str | None, reference: str, choices: Sequence[str] = ()) -> bool:
        """Whether ``prediction`` is the ``reference`` answer; no answer equals an empty reference."""
        return self.rule.same(prediction, reference, choices)

    def about(self, question: str) -> TaskDomain:
        """This domain with a rule that knows the question: what it counts, whether it asks for a set or a pair."""
        domain = copy(self)
        domain.rule = replace(self.rule, question=question)
        return domain

    def steps(self, path: str) -> list[tuple[int | None, str]]:
        """A path by its steps, each with its number as written; None for one that has no number."""
        return split_steps(path, self._step)

    # --- prompts ---

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Those that the domain has prompts in; English first, where it is one of them."""
        languages = {name for job, name in texts_in(self._texts) if job == "generate"}
        return tuple(sorted(languages, key=lambda name: (name != "en", name)))

    def language(self, problem: Problem) -> str:
        """The language of a problem's prompts: its own, where the domain has prompts in it, else the domain's first."""
        of_problem = language(problem.question, problem.choices)
        return of_problem if of_problem in self.languages else self.languages[0]

    def text(self, job: str, written_in: str) -> Text:
        """The newest text of a job in a language; where a job of all domains lacks it, in English."""
        texts = texts_in(self._texts)
        return texts[job, written_in] if (job, written_in) in texts else texts[job, "en"]

    def prompt(self, job: str, problem: Problem, slots: Mapping[str, str | None]) -> str:
        """A job's prompt with its slots filled, the closing sentence too."""
        written_in = self.language(problem)
        marker = MARKERS.get(written_in, MARKERS["en"])
        return fill(self.text(job, written_in).template, {"marker": marker, **slots})
