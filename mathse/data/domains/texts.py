"""The full prompts of a task domain: one text file a job, language and version, in the domain's folder.

``{slot}`` stands for a question, a path, an answer. A line whose slot is empty is left out, and so is the blank line
after it, so one file serves with and without a reference answer or feedback. A change of wording is a new file with the
next version; the newest is used, and its number is in each row's lineage. Texts that name no subject, ``repair`` and
``reflect_short``, stand in ``any/`` for all domains; a domain may have its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mathse.config.task_domains import SLOT, newest_texts, text_problems, texts_folder
from mathse.errors import ConfigError
from mathse.scoring.answers import MARKER

# The closing sentence, read by mathse.scoring.answers; in another language a text has its own, or the English one.
MARKERS = {"en": MARKER, "zh": "本题的答案是"}
OF_ALL_DOMAINS = Path(__file__).parent / "any"


class Text(NamedTuple):
    version: int
    template: str


@cache
def texts_in(texts: str) -> Mapping[tuple[str, str], Text]:
    """(job, language) -> its newest text, those of all domains too. Raises ConfigError for a folder that is none of
    prompts."""
    if mistake := next(text_problems(texts), None):
        raise ConfigError(f"task_domain.texts = {texts!r}: {mistake}")
    folders = filter(None, (OF_ALL_DOMAINS, texts_folder(texts)))
    return {
        key: Text(version, file.read_text(encoding="utf-8").removesuffix("\n"))
        for folder in folders
        for key, (version, file) in newest_texts(folder).items()
    }


def fill(template: str, slots: Mapping[str, str | None]) -> str:
    """A template with its slots filled; what a slot holds is not searched for slots."""
    lines: list[str] = []
    left_out = False
    for line in template.split("\n"):
        if any(slots[name] is None for name in SLOT.findall(line)):
            left_out = True
        elif line or not left_out:
            lines.append(line)
            left_out = False
    return SLOT.sub(lambda slot: str(slots[slot[1]]), "\n".join(lines))
