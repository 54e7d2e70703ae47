"""The rule that extracts and compares the answers of a task; the task's domain chooses it (mathse/data/domains).

    form         a right answer is                                                 tolerance and unit
    expression   the same number, choice, tuple, set, interval or expression       for numbers
    number       the same number                                                   yes
    choice       the same option, by its letter or its text                        no
    text         the same short text, or the same number                           for numbers
    list         the same items in any order, each compared as a text              for numbers

A problem with choices has a choice as its answer, in every form.

Short answers in words have a normal form of their own: "the heart" is "heart", "H_2O" is "H2O", "(C) sulfur" is
"Sulfur". In mathematics "the heart" and "heart" would be two names, and H_2O is not H2O.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mathse.scoring.answers.compare import choice_index, same_answer
from mathse.scoring.answers.extract import announces, extract_answer
from mathse.scoring.answers.options import read_option_letter
from mathse.scoring.answers.plain import MAX_ANSWER, to_plain
from mathse.scoring.answers.quantity import Quantity, are_equal_quantities, read_quantity
from mathse.scoring.answers.question import read_question

Form = Literal["expression", "number", "choice", "text", "list"]
UnitRule = Literal["optional", "needed", "ignored"]
MAX_ITEMS = 32  # of a list
MAX_LINE = 80  # characters of a response that may be a bare answer

# The signs of subscripts, LaTeX, Markdown and quotations.
_SIGNS = re.compile(r"[_{}$*`\"'“”‘’]")
# Signs that separate words as a blank does.
_SEPARATING_SIGNS = re.compile(r"[,;:!?()\[\]/。，；：！？（）、-]+")
_ARTICLE = re.compile(r"^(?:the |an (?=[a-z]{2})|a (?=[a-z]{2}))")  # "a cell" is "cell"; "a b" has two names
_ITEM_SEPARATOR = re.compile(r"\s*(?:[,;、，；]|\band\b|和)\s*")
_THOUSANDS_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class AnswerRule:
    """A rule for the answers of a task.

    ``tolerance``: allowed difference of a number, as a share of the reference; 0.05 is ChartQA's "relaxed accuracy".
    ``unit``: the unit of a number is "optional" (a unit on a single side is ignored), "needed" (if the reference has
    one) or "ignored". ``question``: question of the problem, "" if unknown.
    """

    form: Form = "expression"
    tolerance: float = 0.0
    unit: UnitRule = "optional"
    question: str = ""

    def extract(self, response: str) -> str | None:
        """Extract the final answer of a response as written, or None. In the forms text and list, a short line in
        words is an answer too."""
        line = response.strip()
        if self.form in ("text", "list") and 0 < len(line) <= MAX_LINE and "\n" not in line and not announces(line):
            return line.rstrip(".")
        return extract_answer(response)

    def same(self, prediction: str | None, reference: str, choices: Sequence[str] = ()) -> bool:
        """Compare a prediction with the reference answer; with choices, each may be an option's letter or text. No
        answer equals an empty reference."""
        if prediction is None or not reference.strip():
            return False
        if self.form == "expression":
            return same_answer(prediction, reference, choices, self.question) or (
                self.tolerance > 0 and not choices and self._same_number(prediction, reference)
            )
        if choices and (expected := self._choice(reference, choices)) is not None:
            return self._choice(prediction, choices) == expected
        if len(prediction) > MAX_ANSWER or len(reference) > MAX_ANSWER:
            return prediction.strip() == reference.strip()
        if self.form == "number":
            return self._same_number(prediction, reference)
        if self.form == "choice":  # the picture shows the options
            letter = read_option_letter(to_plain(reference))
            return same_answer(prediction, reference) if letter else same_text(prediction, reference)
        if self.form == "list":
            return self._same_items(prediction, reference)
        return self._same_text_or_number(prediction, reference)

    def _same_text_or_number(self, prediction: str, reference: str) -> bool:
        return same_text(prediction, reference) or self._same_number(prediction, reference)

    def _same_number(self, prediction: str, reference: str) -> bool:
        """Whether both answers are numbers, and equal within the tolerance."""
        question = read_question(self.question)
        left, right = read_quantity(to_plain(prediction), question), read_quantity(to_plain(reference), question)
        if left is None or right is None:
            return False
        if self.unit == "needed" and right.unit and not left.unit:
            return False
        if self.unit == "ignored":
            left, right = Quantity(left.value, None), Quantity(right.value, None)
        return are_equal_quantities(left, right, Fraction(str(self.tolerance)))

    def _choice(self, text: str, choices: Sequence[str]) -> int | None:
        """Find the choice that a text names: first by the rule for texts, then by the rules of mathematics."""
        if self.form == "number" or len(text) > MAX_ANSWER:
            return choice_index(text, choices)
        by_text = [k for k, choice in enumerate(choices) if len(choice) > 1 and same_text(text, choice)]
        return by_text[0] if len(by_text) == 1 else choice_index(text, choices)

    def _same_items(self, prediction: str, reference: str) -> bool:
        """Whether both lists have the same items, in any order."""
        predicted, unmatched = split_items(prediction), split_items(reference)
        if len(predicted) != len(unmatched) or len(predicted) > MAX_ITEMS:
            return False
        # Pair each predicted item with the first equal item of the reference that has no partner.
        for item in predicted:
            match = next((k for k, other in enumerate(unmatched) if self._same_text_or_number(item, other)), None)
            if match is None:
                return False
            del unmatched[match]
        return True


def normalise_text(text: str) -> str:
    """Remove from a short text its case, leading article, quotes, subscript signs and typography.

    In a text with digits the signs between words stay: -5 is not 5, and 1/2 not 12.
    """
    text = _SIGNS.sub("", to_plain(unicodedata.normalize("NFKC", text)).casefold())
    if not re.search("[0-9]", text):
        text = _SEPARATING_SIGNS.sub(" ", text)
    text = " ".join(text.split()).rstrip(".")
    return _ARTICLE.sub("", text)


def same_text(left: str, right: str) -> bool:
    """Whether two short texts have the same normal form; an empty form equals none."""
    normal = normalise_text(left)
    return normal != "" and normal == normalise_text(right)


def split_items(text: str) -> list[str]:
    """Split a list into its items: "[red, green and 1,200]" gives red, green, 1,200."""
    text = text.strip()
    if _BRACKETS.get(text[:1]) == text[-1:]:
        text = text[1:-1]
    # The comma of a number is hidden during the split.
    parts = _ITEM_SEPARATOR.split(_THOUSANDS_COMMA.sub("\0", text))
    return [part.replace("\0", ",").strip() for part in parts if part.strip()]


MATHEMATICAL = AnswerRule()
