"""The form of a reference answer: a choice, a number with its unit, LaTeX, yes or no, other text.

The data check counts answers by form, and rows of published sets are tagged with it.

answer_form("B", ("12", "13"))   choice, letter B, text 13
answer_form("1,200 cm^2")        number 1200, unit cm^2
answer_form("\\frac{1}{2}")      latex
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mathse.scoring.answers import choice_index

_NUMBER = re.compile(
    r"[$¥€£]?\s*(?P<number>[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:\s?/\s?\d+)?)\s*"
    r"(?P<unit>%|°|(?:\\text\{)?[^\d\s\\{}=<>()+*/^][^\d\\{}=<>()+*]{0,20}(?:\^\{?[23]\}?)?\}?)?"
)
_LETTER = re.compile(r"\(?([A-J])\)?[.:]?")


@dataclass(frozen=True)
class AnswerForm:
    """``kind``: choice, number, latex, yes_no or text. The other fields are None if they do not apply."""

    kind: str
    letter: str | None = None
    text: str | None = None
    number: str | None = None
    unit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


def answer_form(answer: str, choices: tuple[str, ...] = (), unit: str | None = None) -> AnswerForm:
    """Classify a reference answer. ``unit``: the unit, if the set has a field for it."""
    answer = answer.strip()
    if choices and (index := choice_index(answer, choices)) is not None:
        return AnswerForm("choice", chr(ord("A") + index), choices[index].strip(), unit=unit)
    if letter := _LETTER.fullmatch(answer):
        return AnswerForm("choice", letter[1], unit=unit)  # the image shows the choices
    if answer.casefold() in ("yes", "no", "true", "false"):
        return AnswerForm("yes_no", text=answer)
    plain = answer.strip("$ ").removesuffix(".")
    if (match := _NUMBER.fullmatch(plain)) and any(map(str.isdigit, match["number"])):
        number = match["number"].replace(",", "").replace(" ", "").replace("−", "-")
        own_unit = (match["unit"] or "").replace("\\text{", "").strip("{} .")
        return AnswerForm("number", number=number, unit=unit or own_unit or None)
    if "\\" in answer or re.search(r"[=^_{}√]", answer):
        return AnswerForm("latex", text=answer, unit=unit)
    return AnswerForm("text", text=answer, unit=unit)
