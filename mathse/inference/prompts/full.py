"""The full prompts: one text file a job, language and version, in ``texts/``.

``{slot}`` stands for a question, a path, an answer. A line whose slot is empty is left out, and so is the blank line
after it, so one file serves with and without a reference answer or feedback. A change of wording is a new file with the
next version; the newest is used, and its number is in each row's lineage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

from mathse.data.language import language as language_of
from mathse.scoring.answers import MARKER
from mathse.types import Problem

Language = Literal["en", "zh"]
MARKERS: dict[Language, str] = {"en": MARKER, "zh": "本题的答案是"}  # both are read by mathse.scoring.answers

_NAME = re.compile(r"(?P<job>\w+)\.(?P<language>en|zh)\.v(?P<version>\d+)\.txt")
_SLOT = re.compile(r"\{(\w+)\}")


class Text(NamedTuple):
    version: int
    template: str


@cache
def _newest() -> dict[tuple[str, str], Text]:
    newest: dict[tuple[str, str], Text] = {}
    for file in files("mathse.inference.prompts").joinpath("texts").iterdir():
        if (name := _NAME.fullmatch(file.name)) is not None:
            key, number = (name["job"], name["language"]), int(name["version"])
            if key not in newest or newest[key].version < number:
                newest[key] = Text(number, file.read_text(encoding="utf-8").removesuffix("\n"))
    return newest


def text(job: str, language: Language) -> Text:
    """The newest text of a job."""
    return _newest()[job, language]


def filled(job: str, language: Language, slots: Mapping[str, str | None]) -> str:
    """A job's text with its slots filled; what a slot holds is not searched for slots."""
    values = {"marker": MARKERS[language], **slots}
    lines: list[str] = []
    left_out = False
    for line in text(job, language).template.split("\n"):
        if any(values[name] is None for name in _SLOT.findall(line)):
            left_out = True
        elif line or not left_out:
            lines.append(line)
            left_out = False
    return _SLOT.sub(lambda slot: str(values[slot[1]]), "\n".join(lines))


def language(problem: Problem) -> Language:
    """The language of a problem's prompts: those of a problem that is neither English nor Chinese are English."""
    return "zh" if language_of(problem.question, problem.choices) == "zh" else "en"
