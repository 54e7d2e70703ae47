"""A second opinion on every verdict: math-verify (Hugging Face, Apache-2.0), which reads the whole response itself.

It sees the response and the reference, not the official extraction, so that it also shows where the official extractor
reads something else than the answer. It runs in the scoring process, where its own time-outs (signals) are off.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib import metadata
from typing import Any

from mathse.evaluation.benchmarks.bounded import Overrun, Workers

MAX_RESPONSE = 2_000  # characters of a response that are read, counted from its end
LETTERS = tuple("ABCDEFGHIJ")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def version() -> str | None:
    """ "math-verify 0.9.0", or None where it is not installed."""
    try:
        return f"math-verify {metadata.version('math-verify')}"
    except metadata.PackageNotFoundError:
        return None


@cache
def _workers() -> Workers:
    return Workers("verify")


def second_opinions(questions: Sequence[tuple[list[str], str, bool]]) -> list[bool | None]:
    """Of each (references, response, letter): whether the response ends in one of the references.

    ``letter``: the question has options, and a lone capital letter is an answer. None: no reference, no math-verify, or
    not within 1 s.
    """
    bounded = [
        [references, response[-MAX_RESPONSE:], letter]
        if (references := [text for text in listed if text.strip()]) and version() is not None
        else None
        for listed, response, letter in questions
    ]
    _workers().ask_all(question for question in bounded if question is not None and str(question[1]).strip())
    opinions: list[bool | None] = []
    for question in bounded:
        if question is None or not str(question[1]).strip():
            opinions.append(None if question is None else False)
            continue
        try:
            opinions.append(bool(_workers().ask(question)))
        except Overrun:
            opinions.append(None)
    return opinions


def load() -> Callable[[Any], bool]:
    """``verdict([references, response, letter])``; for the scoring process."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    expression = [math_verify.ExprExtractionConfig()]
    numbers = [math_verify.LatexExtractionConfig(), *expression]
    options = math_verify.StringExtractionConfig(strings=(*LETTERS, *(f"({c})" for c in LETTERS)))

    @lru_cache(maxsize=4096)
    def gold(reference: str) -> list[Any]:
        if _NUMBER.fullmatch(reference):  # most references; LaTeX takes a hundred times as long
            return list(math_verify.parse(reference, expression, parsing_timeout=None))
        math = reference if "$" in reference else f"${reference}$"
        return list(math_verify.parse(math, numbers, parsing_timeout=None))

    def verdict(question: tuple[list[str], str, bool]) -> bool:
        references, response, letter = question
        parsed = math_verify.parse(response, [*numbers, options] if letter else numbers, parsing_timeout=None)
        if letter and all(isinstance(value, str) and value.strip("()").upper() in LETTERS for value in parsed):
            return any(str(value).strip("()").upper() in references for value in parsed)
        return any(math_verify.verify(gold(reference), parsed, timeout_seconds=None) for reference in references)

    # The first question builds tables; it must not count as an answer's time.
    verdict((["\\frac{1}{2}", "B"], "The answer is $\\frac{2}{4}$.", True))
    return verdict
