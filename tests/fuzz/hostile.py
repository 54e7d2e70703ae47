"""What the fuzz tests draw from, and how: hypothesis, seeded, so that two runs try the same inputs.

The fast part of a test tries a few inputs in `make test`, the slow part the issue's thousands in `make test-slow`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

T = TypeVar("T")

# Pieces of which answers, formulas, critiques and commands are made, whole and broken.
PIECES = (
    "The answer to this question is",
    "the final answer is ",
    "答案:",
    "所以",
    "不对",
    "wrong",
    "Answer: ",
    "\\boxed{",
    "}",
    "{",
    "\\frac{",
    "\\sqrt[3]{",
    "\\text{",
    "\\left(",
    "\\right]",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\\\",
    "&",
    "$",
    "$$",
    "\\(",
    "\\]",
    "^",
    "_",
    "1",
    "12",
    "-0.5",
    "1e309",
    "9" * 400,
    "1/0",
    "1/3",
    "0x10",
    "½",
    "①③",
    "π",
    "°",
    "∠ABC",
    "%",
    "km/h",
    "千米",
    "(A)",
    "B.",
    "(A) (B)",
    "A, C",
    "[1, 2)",
    "∪",
    "x=1 or x=2",
    "∞",
    "NaN",
    "None",
    "True",
    "<think>",
    "</think>",
    "<|im_end|>",
    "<script>alert(1)</script>",
    "<img src=x onerror=1>",
    "&lt;",
    "Step 1: ",
    "Step 4: The answer is ",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u00a0",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\x00",
    "\x1b[31m",
    "\ud83d",
    "é",
    "e\u0301",
    "𝟙",
    "٣",
    "{}",
    '{"status": "correct"',
    '"error_step": null',
    ", ",
    ": ",
    '"',
    "'",
    "[",
    "]",
    "(" * 50,
    "[" * 2000,
    "+",
    "-",
    "*",
    "**",
    "=",
)

texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(st.characters(), max_size=40),  # lone surrogates included
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
json_texts = st.one_of(json_values.map(lambda value: json.dumps(value)), texts)


def fuzz(drawn: st.SearchStrategy[T], check: Callable[[T], object], examples: int) -> None:
    """Call ``check`` with so many inputs; one that fails is made as small as it can be, and shown."""

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(drawn)
    def run(value: T) -> None:
        check(value)

    run()
