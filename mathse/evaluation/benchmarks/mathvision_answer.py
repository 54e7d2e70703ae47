"""MATH-Vision's rules: the script's extraction of an answer, and its comparison of two answers.

They follow evaluation/evaluate.py and evaluation/utils.py of mathllm/MATH-V (commit a1f5cc3), with all peculiarities:
they affect the published numbers. Steps of the script without an effect are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mathse.evaluation.benchmarks.arithmetic import Number

LETTERS = "ABCDE"
_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_BOXED = re.compile(r"oxed\{(.*)\}", re.DOTALL)  # greedy: to the last brace of the text
# Replacements in this order, as plain text.
_CLEAN: tuple[tuple[str, str], ...] = (
    (" ", ""), ("\\,", ""), ("∞", "\\infty"), ("+\\infty", "\\infty"), ("\\\\", "\\"), ("\n", ""), ("\\text", ""),
    ("\\mbox", ""), ("bmatrix", "pmatrix"), ("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""),
    ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""),
    # The rules of the MATH data set:
    ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
    ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("$", ""),
)  # fmt: skip
_PERCENT = (("\\%", ""), (" .", " 0."), ("{.", "{0."))
_LAST = tuple((f"({c})", c) for c in "abcde") + tuple((f"{{{c}}}", c) for c in "abcde")
_SHORT_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
# A text that begins with a letter is a symbol without a value. "e" is an exception: e^0 is 1.
_SYMBOL_FIRST = re.compile(r"[\s$({+-]*(?:[a-df-z]|e(?=[a-z]))", re.ASCII)

Value = Callable[[str], Number | None]  # round(eval(str(latex2sympy(text))), 2); None if that fails


def find_answer(response: str) -> str:
    """Return the script's ``model_answer``, in lower case without blanks; the whole response if it finds no answer."""
    text = response.strip()
    # 1. A single letter at the start or at the end.
    for c in LETTERS:
        if text.endswith((f" {c}.", f" ({c}).")) or text.startswith((f"{c}\n", f"({c})\n", f"({c}) {c}\n")):
            text = c
    # 2. A number at the end: "... is 12."
    tail = text.split("is ")[-1].rstrip(".")
    try:
        float(tail)
        text = tail
    except ValueError:
        pass
    # 3. The text behind an announcing phrase, or the last box.
    if "oxed{" not in text:
        for phrase in _PHRASES:
            for spelling in (phrase, phrase.replace("the", "The")):
                before, text = text, text.split(spelling)[-1].strip()
                if spelling in before:
                    text = text.split("\n")[0].split(". ")[0]
    elif text.count("oxed{") > 1:
        text = "\\boxed{" + text.rpartition("oxed{")[2]
    return _replace_all(_normalize(text), _LAST).rstrip(".").lstrip(":").strip()


def _normalize(text: str) -> str:
    """Apply the script's find_math_answer."""
    text = text.lower().replace("{}", "")
    # The content of the box up to an unmatched closing brace, then the text behind the last "=" or "\approx".
    boxed = _BOXED.findall(text)
    text = boxed[-1] if boxed else text
    closing, opening = text.find("}"), text.find("{")
    if closing != -1 and (opening == -1 or closing < opening):
        text = text[:closing]
    text = text.split("=")[-1].split("\\approx")[-1]
    # Spelling: blanks, units, degrees, sizes of fractions and brackets.
    text = _replace_all(_replace_all(text, _CLEAN).split("\\text{ ")[0], _PERCENT)
    if text.startswith("."):
        text = f"0{text}"
    if len(approximations := text.split("\\approx")) == 2:
        text = approximations[1]
    # Roots and fractions with braces: \sqrt{2}, \frac{1}{2}.
    if "sqrt" in text:
        text = _add_braces_to_fractions(_add_braces_to_roots(text).replace(" ", ""))
    text = text.replace(" ", "")
    return _slash_to_fraction("\\frac{1}{2}" if text == "0.5" else text)


def _replace_all(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        text = text.replace(old, new)
    return text


def _add_braces_to_roots(text: str) -> str:
    """Rewrite \\sqrt2 as \\sqrt{2}."""
    first, *rest = text.split("\\sqrt")
    rewritten = first
    for part in rest:
        argument = f"{{{part[0]}}}{part[1:]}" if part and part[0] != "{" else part
        rewritten += f"\\sqrt{argument}"
    return rewritten


def _add_braces_to_fractions(text: str) -> str:
    """Rewrite \\frac12 as \\frac{1}{2}. The script does this only in texts with a root."""
    first, *rest = text.split("\\frac")
    for k, part in enumerate(rest):
        if part[:1] != "{":
            if len(part) < 2:
                return text
            bottom = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            rest[k] = f"{{{part[0]}}}{bottom}"
    return "\\frac".join((first, *rest))


def _slash_to_fraction(text: str) -> str:
    """Rewrite 3/4 as \\frac{3}{4}."""
    top, slash, bottom = text.partition("/")
    try:
        plain_form = f"{int(top)}/{int(bottom)}" if slash else ""
    except ValueError:
        return text
    # Integers in another form, such as 03/4 or 3/+4, are not rewritten.
    return f"\\frac{{{int(top)}}}{{{int(bottom)}}}" if plain_form and plain_form == text else text


def equal(reference: str, answer: str, value: Value) -> bool:
    """Apply the script's is_equal: equal texts, equal tuples of values, or equal values to 2 decimals."""
    reference, answer = reference.lower(), answer.lower()
    if not reference.replace(" ", "") or not answer.replace(" ", ""):
        return False
    if reference.strip() == answer.strip():
        return True
    reference, answer = _tuple_of_values(reference, value), _tuple_of_values(answer, value)
    if reference == answer:
        return True
    number = value(answer)
    return number is not None and number == value(reference)


def _tuple_of_values(text: str, value: Value) -> str:
    """Rewrite "(1/2,3)" as "(0.5,3)". A text that is no tuple or list, or has an element without value, stays."""
    parts = text[1:-1].split(",")
    if len(parts) < 2 or (text[0], text[-1]) not in (("(", ")"), ("[", "]")):
        return text
    values = []
    for part in parts:
        number = part if "infty" in part or part in ("a", "-a") else value(part)
        if number is None:
            return text
        values.append(str(number))
    return f"{text[0]}{','.join(values)}{text[-1]}"


def quick_value(text: str) -> tuple[bool, Number | None]:
    """Return (True, value) of a text that needs no parser: a short decimal number, or prose, which has no value."""
    if match := _SHORT_NUMBER.fullmatch(text):
        number = round(float(text), 2) if match[1] else int(text)
        return True, int(number) if float(text).is_integer() else number
    return bool(_SYMBOL_FIRST.match(text)), None
