"""How the answers of a task are read and compared, chosen by the task's domain (mathse/data/domains).

    form         a right answer is                                                 tolerance, unit
    expression   the same number, choice, tuple, set, interval or expression       of a number
    number       the same number                                                   yes
    choice       the same option, by its letter or its text
    text         the same short text; of two numbers, the same number              yes
    list         the same items in any order, each compared as a text              yes

Whatever the form, a problem with choices is answered by one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mathse.scoring.answers.compare import choice_index, same_answer
from mathse.scoring.answers.extract import announces, extract_answer
from mathse.scoring.answers.options import option_letter
from mathse.scoring.answers.plain import MAX_ANSWER, plain
from mathse.scoring.answers.quantity import Quantity, equal_quantities, quantity
from mathse.scoring.answers.question import read_question
from mathse.scoring.answers.text import items, same_text

Form = Literal["expression", "number", "choice", "text", "list"]
UnitRule = Literal["optional", "needed", "ignored"]
MAX_ITEMS = 32  # of a list
SHORT = 80  # characters of a response that may be an answer and no more


@dataclass(frozen=True)
class AnswerRule:
    """``tolerance``: by what share of the reference a number may be off; 0.05 is ChartQA's "relaxed accuracy".

    ``unit``: of a number, "optional" (one that only one side names is ignored), "needed" (one that the reference has),
    or "ignored". ``question``: the question of the problem that is being compared, where it is known.
    """

    form: Form = "expression"
    tolerance: float = 0.0
    unit: UnitRule = "optional"
    question: str = ""

    def extract(self, response: str) -> str | None:
        """The final answer of a response, as written, or None. A short line in words is an answer too where words
        are."""
        line = response.strip()
        if self.form in ("text", "list") and 0 < len(line) <= SHORT and "\n" not in line and not announces(line):
            return line.rstrip(".")
        return extract_answer(response)

    def same(self, prediction: str | None, reference: str, choices: Sequence[str] = ()) -> bool:
        """Whether ``prediction`` is the ``reference`` answer, each an option's letter or text where there are
        ``choices``. No answer equals an empty reference."""
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
        if self.form == "choice":  # the options stand in the picture
            letter = option_letter(plain(reference))
            return same_answer(prediction, reference) if letter else same_text(prediction, reference)
        if self.form == "list":
            return self._same_items(prediction, reference)
        return self._same_text_or_number(prediction, reference)

    def _same_text_or_number(self, prediction: str, reference: str) -> bool:
        return same_text(prediction, reference) or self._same_number(prediction, reference)

    def _same_number(self, prediction: str, reference: str) -> bool:
        """Never where one of the two is no number."""
        left, right = (quantity(plain(text), read_question(self.question)) for text in (prediction, reference))
        if left is None or right is None:
            return False
        if self.unit == "needed" and right.unit and not left.unit:
            return False
        if self.unit == "ignored":
            left, right = Quantity(left.value, None), Quantity(right.value, None)
        return equal_quantities(left, right, Fraction(str(self.tolerance)))

    def _choice(self, text: str, choices: Sequence[str]) -> int | None:
        """Which of the choices a text names: in words by the rule for texts, else as in mathematics."""
        if self.form == "number" or len(text) > MAX_ANSWER:
            return choice_index(text, choices)
        by_text = [k for k, choice in enumerate(choices) if len(choice) > 1 and same_text(text, choice)]
        return by_text[0] if len(by_text) == 1 else choice_index(text, choices)

    def _same_items(self, prediction: str, reference: str) -> bool:
        """Each item of the reference is one of the prediction's, and no other is there."""
        left, untaken = items(prediction), items(reference)
        if len(left) != len(untaken) or len(left) > MAX_ITEMS:
            return False
        for item in left:
            match = next((k for k, other in enumerate(untaken) if self._same_text_or_number(item, other)), None)
            if match is None:
                return False
            del untaken[match]
        return True


MATHEMATICAL = AnswerRule()
