"""A task domain: its prompts, the comparison of its answers, and the steps of its reasoning.

Prompts are text files, one for each job, language and version, in the domain's folder. ``{slot}`` is replaced by a
question, a path, an answer. A line with an empty slot is left out together with a blank line behind it, so that the
same file serves with and without a reference answer or feedback. A change of wording is a new file with the next
version; the newest version is used, and its number is in each row's lineage. Texts without a subject, ``repair`` and
``reflect_short``, are in ``any/`` for all domains; a domain may have its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from mathse.config.task_domains import SLOT, TaskDomainConfig, check_texts, find_newest_texts, find_texts_folder
from mathse.data.language import language
from mathse.errors import ConfigError
from mathse.scoring.answers import MARKER, AnswerRule
from mathse.scoring.metrics import first_step
from mathse.types import Problem

# The closing sentence, which mathse.scoring.answers reads; a text in another language has its own or the English one.
MARKERS = {"en": MARKER, "zh": "本题的答案是"}
MAX_PATH_CHARS = 20_000  # characters of a path that are split into steps
# A line of a path without step numbers. A displayed formula counts as a single line.
_LINE = re.compile(r"(?:\\\[.{1,1000}?\\\]|\$\$[^$]{1,1000}\$\$|[^\n])+", re.DOTALL)


class PromptText(NamedTuple):
    """The template of a prompt and its version."""

    version: int
    template: str


@cache
def texts_in(texts: str) -> Mapping[tuple[str, str], PromptText]:
    """Read the newest text of each (job, language) of a domain, and the texts for all domains.

    Raises ConfigError for a folder without prompts.
    """
    if mistake := next(check_texts(texts), None):
        raise ConfigError(f"task_domain.texts = {texts!r}: {mistake}")
    newest: dict[tuple[str, str], PromptText] = {}
    # The domain's own texts come last and replace the texts for all domains.
    for folder in filter(None, (Path(__file__).parent / "any", find_texts_folder(texts))):
        for key, (version, file) in find_newest_texts(folder).items():
            newest[key] = PromptText(version, file.read_text(encoding="utf-8").removesuffix("\n"))
    return newest


def fill(template: str, slots: Mapping[str, str | None]) -> str:
    """Fill the slots of a template. The content of a slot is not searched for slots."""
    lines: list[str] = []
    left_out = False  # whether the line before was left out
    for line in template.split("\n"):
        if any(slots[name] is None for name in SLOT.findall(line)):
            left_out = True
        elif line or not left_out:
            lines.append(line)
            left_out = False
    return SLOT.sub(lambda slot: str(slots[slot[1]]), "\n".join(lines))


class TaskDomain:
    """A domain built from its settings.

    A domain with answers or steps that no setting describes extends this class and overrides ``extract``,
    ``same_answer`` or ``steps``. Prompts are read at the first use.
    """

    def __init__(self, settings: TaskDomainConfig) -> None:
        self.name = settings.name
        self.rule = AnswerRule(settings.answer.form, settings.answer.tolerance, settings.answer.unit)
        self._texts = settings.texts
        # A step begins with a name such as "Step", its number, and a colon or point.
        names = "|".join(map(re.escape, settings.step))
        self._step = re.compile(rf"(?:^|(?<=\s))(?:\*\*)?(?:{names})\s*\d{{1,3}}\s*[:：.]", re.IGNORECASE)

    # --- answers and steps ---

    def extract(self, response: str) -> str | None:
        """Extract the final answer of a response as written, or None."""
        return self.rule.extract(response)

    def same_answer(self, prediction: str | None, reference: str, choices: Sequence[str] = ()) -> bool:
        """Compare a prediction with the reference answer; no answer equals an empty reference."""
        return self.rule.same(prediction, reference, choices)

    def about(self, question: str) -> TaskDomain:
        """Copy the domain with a rule that knows the question: its counted nouns, and a set or a pair as its answer."""
        domain = copy(self)
        domain.rule = replace(self.rule, question=question)
        return domain

    def steps(self, path: str) -> list[tuple[int | None, str]]:
        """Split a path into (number as written, text) of its steps, or into its lines if it numbers no step.

        The number is None for a line, and for text before the first step.
        """
        text = path[:MAX_PATH_CHARS]
        starts = [match.start() for match in self._step.finditer(text)]
        if not starts:
            return [(None, line) for line in _LINE.findall(text) if line.strip()]
        steps: list[tuple[int | None, str]] = []
        if before := text[: starts[0]].strip():
            steps.append((None, before))
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            step = text[start:end].strip()
            steps.append((first_step(step), step))
        return steps

    # --- prompts ---

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages of the domain's prompts, English first."""
        languages = {name for job, name in texts_in(self._texts) if job == "generate"}
        return tuple(sorted(languages, key=lambda name: (name != "en", name)))

    def language(self, problem: Problem) -> str:
        """Choose the language of a problem's prompts: its own if the domain has it, else the domain's first."""
        of_problem = language(problem.question, problem.choices)
        return of_problem if of_problem in self.languages else self.languages[0]

    def text(self, job: str, written_in: str) -> PromptText:
        """Give the newest text of a job in a language, or in English if that language lacks it."""
        texts = texts_in(self._texts)
        return texts[job, written_in] if (job, written_in) in texts else texts[job, "en"]

    def prompt(self, job: str, problem: Problem, slots: Mapping[str, str | None]) -> str:
        """Fill a job's prompt, with the closing sentence of its language."""
        written_in = self.language(problem)
        marker = MARKERS.get(written_in, MARKERS["en"])
        return fill(self.text(job, written_in).template, {"marker": marker, **slots})
