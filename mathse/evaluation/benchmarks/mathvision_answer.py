"""MATH-Vision's rules: the answer that its script finds in a response, and when two answers are equal.

Written from evaluation/evaluate.py and evaluation/utils.py of mathllm/MATH-V (commit a1f5cc3), oddities included: they
are part of the published numbers. Steps of the script that cannot change anything are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mathse.evaluation.benchmarks.arithmetic import Number

LETTERS = "ABCDE"
_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_BOXED = re.compile(r"oxed\{(.*)\}", re.DOTALL)  # greedy: to the last brace of the text
# Applied in this order, as plain text.
_CLEANED: tuple[tuple[str, str], ...] = (
    (" ", ""), ("\\,", ""), ("∞", "\\infty"), ("+\\infty", "\\infty"), ("\\\\", "\\"), ("\n", ""), ("\\text", ""),
    ("\\mbox", ""), ("bmatrix", "pmatrix"), ("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""),
    ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""),
    # from here on: the rules of the MATH data set
    ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
    ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("$", ""),
)  # fmt: skip
_PERCENT = (("\\%", ""), (" .", " 0."), ("{.", "{0."))
_LAST = tuple((f"({c})", c) for c in "abcde") + tuple((f"{{{c}}}", c) for c in "abcde")
_SHORT_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
# A text whose first thing is a letter: a symbol, which has no value. Not "e", since e^0 is 1.
_SYMBOL_FIRST = re.compile(r"[\s$({+-]*(?:[a-df-z]|e(?=[a-z]))", re.ASCII)

Value = Callable[[str], Number | None]  # round(eval(str(latex2sympy(text))), 2), None where that fails


def extracted_answer(response: str) -> str:
    """The script's ``model_answer``: lower case, without blanks; an answer it cannot find is the whole response."""
    text = response.strip()
    # A letter alone at the start or at the end.
    for c in LETTERS:
        if text.endswith((f" {c}.", f" ({c}).")) or text.startswith((f"{c}\n", f"({c})\n", f"({c}) {c}\n")):
            text = c
    # "... is 12."
    tail = text.split("is ")[-1].rstrip(".")
    try:
        float(tail)
        text = tail
    except ValueError:
        pass
    if "oxed{" not in text:
        for phrase in _PHRASES:
            for spelling in (phrase, phrase.replace("the", "The")):
                before, text = text, text.split(spelling)[-1].strip()
                if spelling in before:
                    text = text.split("\n")[0].split(". ")[0]
    elif text.count("oxed{") > 1:
        text = "\\boxed{" + text.rpartition("oxed{")[2]
    return _replaced(_plain(text), _LAST).rstrip(".").lstrip(":").strip()


def _plain(text: str) -> str:
    """What the script calls find_math_answer."""
    text = text.lower().replace("{}", "")
    # What is in the box, up to a brace that closes nothing, behind the last "=" or "\approx".
    boxed = _BOXED.findall(text)
    text = boxed[-1] if boxed else text
    closing, opening = text.find("}"), text.find("{")
    if closing != -1 and (opening == -1 or closing < opening):
        text = text[:closing]
    text = text.split("=")[-1].split("\\approx")[-1]
    # Spelling: blanks, units, degrees, sizes of fractions and brackets.
    text = _replaced(_replaced(text, _CLEANED).split("\\text{ ")[0], _PERCENT)
    if text.startswith("."):
        text = f"0{text}"
    if len(approximations := text.split("\\approx")) == 2:
        text = approximations[1]
    # One spelling of roots and fractions: \sqrt{2}, \frac{1}{2}.
    if "sqrt" in text:
        text = _braced_fractions(_braced_roots(text).replace(" ", ""))
    text = text.replace(" ", "")
    return _slashed("\\frac{1}{2}" if text == "0.5" else text)


def _replaced(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        text = text.replace(old, new)
    return text


def _braced_roots(text: str) -> str:
    """\\sqrt2 -> \\sqrt{2}"""
    if "\\sqrt" not in text:
        return text
    first, *rest = text.split("\\sqrt")
    return first + "".join("\\sqrt" + (f"{{{r[0]}}}{r[1:]}" if r and r[0] != "{" else r) for r in rest)


def _braced_fractions(text: str) -> str:
    """\\frac12 -> \\frac{1}{2}; the script does so only where there is a root."""
    first, *rest = text.split("\\frac")
    for k, part in enumerate(rest):
        if part[:1] != "{":
            if len(part) < 2:
                return text
            bottom = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            rest[k] = f"{{{part[0]}}}{bottom}"
    return "\\frac".join((first, *rest))


def _slashed(text: str) -> str:
    """3/4 -> \\frac{3}{4}"""
    top, slash, bottom = text.partition("/")
    try:
        whole = f"{int(top)}/{int(bottom)}" if slash else ""
    except ValueError:
        return text
    return f"\\frac{{{int(top)}}}{{{int(bottom)}}}" if whole == text and whole else text


def equal(reference: str, answer: str, value: Value) -> bool:
    """The script's is_equal: the same text, the same tuple of values, or the same value to 2 decimals."""
    reference, answer = reference.lower(), answer.lower()
    if not reference.replace(" ", "") or not answer.replace(" ", ""):
        return False
    if reference.strip() == answer.strip():
        return True
    reference, answer = _valued_tuple(reference, value), _valued_tuple(answer, value)
    if reference == answer:
        return True
    number = value(answer)
    return number is not None and number == value(reference)


def _valued_tuple(text: str, value: Value) -> str:
    """ "(1/2,3)" -> "(0.5,3)"; unchanged where it is no tuple or list, or an element has no value."""
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
    """(True, value) of what needs no parser: a short decimal number, and prose, which never has a value."""
    if match := _SHORT_NUMBER.fullmatch(text):
        number = round(float(text), 2) if match[1] else int(text)
        return True, int(number) if float(text).is_integer() else number
    return bool(_SYMBOL_FIRST.match(text)), None
