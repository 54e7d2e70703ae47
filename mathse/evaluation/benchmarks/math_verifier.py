"""A second opinion on every verdict: math-verify (Hugging Face, Apache-2.0), which reads the whole response.

It sees the response and the reference but not the official extraction, so it also reveals wrong extractions. It runs in
the scoring process, with its own time-outs (signals) disabled.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib import metadata
from typing import Any

from mathse.evaluation.benchmarks.bounded import Overrun, Workers

MAX_RESPONSE = 2_000  # characters of a response, from its end
LETTERS = tuple("ABCDEFGHIJ")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def version() -> str | None:
    """Return "math-verify 0.9.0"; None if it is not installed."""
    try:
        return f"math-verify {metadata.version('math-verify')}"
    except metadata.PackageNotFoundError:
        return None


@cache
def _workers() -> Workers:
    return Workers("verify")


def second_opinions(questions: Sequence[tuple[list[str], str, bool]]) -> list[bool | None]:
    """Decide for each (references, response, letter) whether the response ends in one of the references.

    Args:
        questions: ``letter``: the question has options, and a single capital letter is an answer.

    Returns None for a question without reference, without math-verify, or without a verdict within 1 s.
    """
    has_package = version() is not None
    opinions: list[bool | None] = []
    to_ask: dict[int, list[Any]] = {}  # position -> question for the scoring process
    for k, (references, response, letter) in enumerate(questions):
        known_references = [text for text in references if text.strip()]
        end = response[-MAX_RESPONSE:]
        opinions.append(None)
        if known_references and has_package:
            if end.strip():
                to_ask[k] = [known_references, end, letter]
            else:
                opinions[k] = False  # an empty response is wrong

    _workers().ask_all(to_ask.values())
    for k, question in to_ask.items():
        with suppress(Overrun):
            opinions[k] = bool(_workers().ask(question))
    return opinions


def load() -> Callable[[Any], bool]:
    """Return ``verdict([references, response, letter])``. Call it in the scoring process."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    expression = [math_verify.ExprExtractionConfig()]
    numbers = [math_verify.LatexExtractionConfig(), *expression]
    options = math_verify.StringExtractionConfig(strings=(*LETTERS, *(f"({c})" for c in LETTERS)))

    @lru_cache(maxsize=4096)
    def parse_reference(reference: str) -> list[Any]:
        # Most references are numbers; parsing LaTeX takes a hundred times as long.
        if _NUMBER.fullmatch(reference):
            return list(math_verify.parse(reference, expression, parsing_timeout=None))
        math = reference if "$" in reference else f"${reference}$"
        return list(math_verify.parse(math, numbers, parsing_timeout=None))

    def verdict(question: tuple[list[str], str, bool]) -> bool:
        references, response, letter = question
        parsed = math_verify.parse(response, [*numbers, options] if letter else numbers, parsing_timeout=None)
        if letter and all(isinstance(value, str) and value.strip("()").upper() in LETTERS for value in parsed):
            return any(str(value).strip("()").upper() in references for value in parsed)
        return any(
            math_verify.verify(parse_reference(reference), parsed, timeout_seconds=None) for reference in references
        )

    # The first question builds tables, which must not count as an answer's time.
    verdict((["\\frac{1}{2}", "B"], "The answer is $\\frac{2}{4}$.", True))
    return verdict
