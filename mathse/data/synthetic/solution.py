"""Questions, solutions and the step checker of the synthetic problems.

A solution has four steps, each a template filled with numbers. Step 1 reads the digits, steps 2 and 3 compute, step 4
answers. A step is right if it follows from the picture (step 1) or from the path's OWN earlier steps (steps 2-4). So
the first wrong step is the point where the path leaves the true solution, and later steps that follow from it are no
further errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mathse.scoring.answers import MARKER

Numbers = tuple[int, ...]
MAX_CHARS = 2000  # a longer path is no solution of a synthetic problem, and is not parsed

# Templates of the steps.
_DIGITS = "The digits are {}, {}, {}."
_ADD, _SUBTRACT, _TIMES = "{} + {} = {}.", "{} - {} = {}.", "{} * {} = {}."
_EXTREMES = "The largest is {} and the smallest is {}."
_ANSWER = MARKER + " {}."


@dataclass(frozen=True)
class QuestionKind:
    """A kind of question: its text, the templates of its four steps, and the computations of steps 2 and 3."""

    question: str
    templates: tuple[str, str, str, str]
    second: Callable[[Numbers], Numbers]  # from the three digits
    third: Callable[[Numbers, Numbers], Numbers]  # from the digits and step 2
    hardness: float  # relative error rate of a fallible teacher; the mean over kinds is 1


KINDS: dict[str, QuestionKind] = {
    "sum": QuestionKind(
        "What is the sum of the three digits?",
        (_DIGITS, _ADD, _ADD, _ANSWER),
        lambda d: (d[0], d[1], d[0] + d[1]),
        lambda d, s: (s[2], d[2], s[2] + d[2]),
        0.8,
    ),
    "muladd": QuestionKind(
        "What is the first digit times the second digit plus the third digit?",
        (_DIGITS, _TIMES, _ADD, _ANSWER),
        lambda d: (d[0], d[1], d[0] * d[1]),
        lambda d, s: (s[2], d[2], s[2] + d[2]),
        2.2,
    ),
    "range": QuestionKind(
        "What is the largest digit minus the smallest digit?",
        (_DIGITS, _EXTREMES, _SUBTRACT, _ANSWER),
        lambda d: (max(d), min(d)),
        lambda d, s: (s[0], s[1], s[0] - s[1]),
        0.4,
    ),
    "prod": QuestionKind(
        "What is the largest digit times the smallest digit?",
        (_DIGITS, _EXTREMES, _TIMES, _ANSWER),
        lambda d: (max(d), min(d)),
        lambda d, s: (s[0], s[1], s[0] * s[1]),
        0.6,
    ),
}


def compute_step(kind: str, digits: Numbers, written: Sequence[Numbers]) -> Numbers:
    """Compute the right numbers of step ``len(written) + 1`` from the path's own earlier steps ``written``."""
    step = len(written)
    if step == 0:
        return digits
    if step == 1:
        return KINDS[kind].second(written[0])
    if step == 2:
        return KINDS[kind].third(written[0], written[1])
    return (written[2][-1],)


def write(kind: str, steps: Sequence[Numbers]) -> str:
    """Write the text of steps, a line each."""
    lines = (t.format(*numbers) for t, numbers in zip(KINDS[kind].templates, steps, strict=False))
    return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))


def solve(kind: str, digits: Numbers) -> list[Numbers]:
    """Compute the numbers of the four right steps."""
    steps: list[Numbers] = []
    while len(steps) < 4:
        steps.append(compute_step(kind, digits, steps))
    return steps


# Templates as patterns: each {} is a whole number of at most six digits.
_PATTERNS = {
    template: re.compile(re.escape(template).replace(r"\{\}", r"(-?[0-9]{1,6})"))
    for template in (_DIGITS, _ADD, _SUBTRACT, _TIMES, _EXTREMES, _ANSWER)
}


def parse(kind: str, text: str) -> list[Numbers]:
    """Parse the numbers of the leading steps with the right form; fewer than four if a step is malformed."""
    steps: list[Numbers] = []
    if len(text) > MAX_CHARS:
        return steps
    lines = text.strip().split("\n")
    for k, (line, template) in enumerate(zip(lines, KINDS[kind].templates, strict=False), 1):
        match = _PATTERNS[template].fullmatch(line.strip().removeprefix(f"Step {k}: "))
        if not match or not line.startswith(f"Step {k}: "):
            break
        steps.append(tuple(int(n) for n in match.groups()))
    return steps[:3] if len(lines) > 4 else steps  # text behind the answer makes the last step malformed


def first_error(kind: str, digits: Numbers, steps: Sequence[Numbers]) -> int | None:
    """Find the number (1..4) of the first step that is wrong or missing; None if all four are right."""
    for k in range(4):
        if k >= len(steps) or steps[k] != compute_step(kind, digits, steps[:k]):
            return k + 1
    return None
