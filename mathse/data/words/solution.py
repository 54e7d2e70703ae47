"""Worked solutions of word problems, the check of a path step by step, and paths with one made-up error.

    Step 1: 32 + 42 = 74.
    Step 2: 74 - 35 = 39.
    Step 3: The answer to this problem is 39.

or in short, the sums alone ("45 / 9 = 5").

A path may come by its answer on another way than the equation's, and in prose. So a step is judged by its numbers: it
is wrong where a sum that it writes is false; and in a path whose answer is wrong, where it comes to a number that the
equation does not lead through. A path whose sums hold and whose answer is right is right, whichever way it went.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mathse.data.json_records import BadRow
from mathse.data.words.equation import Earlier, Operation, calculated, number_text, operations_of, worked_out
from mathse.scoring.answers import MARKER, extract_answer, same_answer

MAX_CHARS = 4000  # a longer path is no solution of a word problem, and its steps are not read
_N = r"-?\$?\d{1,12}(?:,\d{3})*(?:\.\d{1,6})?"
_SUM = re.compile(rf"(?P<terms>{_N}(?:\s*[-+*/x×÷]\s*\$?\d[\d,]*(?:\.\d+)?){{1,6}})\s*=\s*(?P<result>{_N})")
_STEP = re.compile(r"^\s*(?:Step\s+(\d{1,2})\s*[:.])", re.MULTILINE)
_SIGNS = str.maketrans({"x": "*", "×": "*", "÷": "/", ",": "", "$": ""})
_ALL_SIGNS = "+-*/"


def written(operations: Sequence[Operation]) -> str:
    """The worked solution. Raises BadRow where a number of it has too many decimal places."""
    steps = worked_out(operations)
    lines = [sentence(*step) for step in steps]
    lines.append(f"{MARKER} {number_text(steps[-1][3])}.")
    return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))


def written_short(operations: Sequence[Operation]) -> str:
    """The sums alone, a line each; the result of the last is the answer. Raises BadRow as ``written``."""
    return "\n".join(sentence(*step).removesuffix(".") for step in worked_out(operations))


def sentence(left: Fraction, sign: str, right: Fraction, result: Fraction) -> str:
    """ "32 + 42 = 74." """
    return f"{number_text(left)} {sign} {number_text(right)} = {number_text(result)}."


@dataclass(frozen=True)
class StepCheck:
    """The first wrong step (None: all right), and the check of each step up to it as text."""

    error_step: int | None
    analysis: str


def check(operations: Sequence[Operation], text: str) -> StepCheck:
    """Check a path against the problem's equation.

    The analysis marks each step, and says what belongs in the place of the wrong one: "1 ok | 2 no: 74 - 35 = 39".
    """
    reference = worked_out(operations)
    answer = number_text(reference[-1][3])
    if len(text) > MAX_CHARS:
        return StepCheck(1, "1 no: too long")
    steps = steps_of(text)
    right_answer = same_answer(extract_answer(text), answer)
    missing = list(reference)  # what the path has not come to yet
    parts = []
    for k, step in enumerate(steps, 1):
        sums = [_sum(match) for match in _SUM.finditer(step)]
        is_answer = extract_answer(step) is not None and not sums
        true = all(worth == result for worth, result in sums)
        leads_on = right_answer or all(any(result == r for *_, r in reference) for _, result in sums)
        if is_answer and not right_answer:
            true = False
        if true and leads_on:
            missing = [entry for entry in missing if all(entry[3] != result for _, result in sums)]
            parts.append(f"{k} ok")
            continue
        return StepCheck(k, " | ".join([*parts, f"{k} no: {_expected(missing, answer)}"]))
    if not right_answer:  # it ends before its answer
        k = len(steps) + 1
        return StepCheck(k, " | ".join([*parts, f"{k} no: {_expected(missing, answer)}"]))
    return StepCheck(None, " | ".join(parts))


def check_sums(text: str) -> StepCheck | None:
    """Check a path by itself: every sum that it writes is true, and its answer is what the last one comes to. None
    where it has no sum or no answer, so that there is nothing to check."""
    answer = extract_answer(text)
    if answer is None or len(text) > MAX_CHARS:
        return None
    last: str | None = None  # the result of the last sum, as written
    parts: list[str] = []
    steps = steps_of(text)
    for k, step in enumerate(steps, 1):
        for match in _SUM.finditer(step):
            worth, result = _sum(match)
            if worth != result:
                right = "no number" if worth is None else f"{float(worth):.12g}"
                return StepCheck(k, " | ".join([*parts, f"{k} no: the left side comes to {right}"]))
            last = match["result"]
        parts.append(f"{k} ok")
    if last is None:
        return None
    if not same_answer(answer, last):
        parts[-1] = f"{len(steps)} no: the last sum comes to {last}"
        return StepCheck(len(steps), " | ".join(parts))
    return StepCheck(None, " | ".join(parts))


def _expected(missing: Sequence[tuple[Fraction, str, Fraction, Fraction]], answer: str) -> str:
    return sentence(*missing[0]).removesuffix(".") if missing else answer


def steps_of(text: str) -> list[str]:
    """The steps of a path: what stands behind "Step 1:", "Step 2:"; without such marks its lines."""
    marks = list(_STEP.finditer(text))
    if not marks:
        return [line for line in text.splitlines() if line.strip()]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]


def _sum(match: re.Match[str]) -> tuple[Fraction | None, Fraction]:
    """What the left side of a written sum comes to (None: to no number), and what the text says."""
    result = Fraction(match["result"].translate(_SIGNS))
    try:
        return worked_out(operations_of(match["terms"].translate(_SIGNS)))[-1][3], result
    except BadRow:
        return None, result


# --- made-up errors ---------------------------------------------------------------------------------------------------


def corrupt(operations: Sequence[Operation], draw: random.Random) -> str:
    """A path with a made-up error, later steps consistent with it: half have a wrong operation or a wrong number in it,
    a quarter a miscalculation; a quarter are right."""
    kind = draw.choices(("operation", "sum", "none"), (0.5, 0.25, 0.25))[0]
    return written_wrongly(operations, kind, draw)


def written_wrongly(operations: Sequence[Operation], kind: str, draw: random.Random) -> str:
    """The worked solution with one error of a ``kind``: operation, sum, or none."""
    wrong = draw.randrange(len(operations))
    numbers = sorted({o for op in operations for o in (op.left, op.right) if isinstance(o, Fraction)})
    results: list[Fraction] = []
    lines = []
    for k, operation in enumerate(operations):
        left, right = (
            results[operand.step] if isinstance(operand, Earlier) else operand
            for operand in (operation.left, operation.right)
        )
        sign = operation.sign
        if k == wrong and kind == "operation":
            left, sign, right = _other(left, sign, right, numbers, draw)
        result = _rounded(calculated(left, sign, right) if right or sign != "/" else left)
        if k == wrong and kind == "sum":
            result = _near_miss(result, draw)
        results.append(result)
        lines.append(sentence(_rounded(left), sign, _rounded(right), result))
    lines.append(f"{MARKER} {number_text(results[-1])}.")
    return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))


def _other(
    left: Fraction, sign: str, right: Fraction, numbers: Sequence[Fraction], draw: random.Random
) -> tuple[Fraction, str, Fraction]:
    """Another operation that a student might choose: another sign, the numbers turned round, another number of the
    problem. Its result is another one."""
    result = calculated(left, sign, right)
    choices = [(left, other, right) for other in _ALL_SIGNS if other != sign]
    choices += [(right, sign, left)] if sign in "-/" else []
    choices += [(left, sign, other) for other in numbers] + [(other, sign, right) for other in numbers]
    usable = [
        (a, s, b)
        for a, s, b in choices
        if (s != "/" or b) and calculated(a, s, b) != result and (calculated(a, s, b) * 100).denominator == 1
    ]
    return draw.choice(usable) if usable else (left, "+", right + 1)


def _rounded(number: Fraction) -> Fraction:
    """To two decimal places, as somebody would who goes on from a wrong number."""
    return Fraction(round(number * 100), 100)


def _near_miss(number: Fraction, draw: random.Random) -> Fraction:
    """Another number that a student might write: its last digit, or its tens, differ a little."""
    step = Fraction(1, number.denominator) if number.denominator > 1 else Fraction(1)
    return number + step * draw.choice([-10, -2, -1, 1, 2, 10])
