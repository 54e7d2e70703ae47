"""Worked solutions of word problems, a checker of paths, and paths with a made-up error.

    Step 1: 32 + 42 = 74.
    Step 2: 74 - 35 = 39.
    Step 3: The answer to this problem is 39.

The short form has only the sums ("45 / 9 = 5").

A path may take another way to its answer than the equation, and may be prose. So the checker looks at the numbers of a
step. A step is wrong if it holds a false sum. In a path with a wrong answer, a step is also wrong if its result is no
result of the equation. A path with true sums and the right answer is right, on any way.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from fractions import Fraction

from mathse.data.json_records import BadRow
from mathse.data.step_check import StepCheck
from mathse.data.words.equation import (
    Operation,
    calculate,
    evaluate_steps,
    number_text,
    operations_of,
    resolve_operand,
)
from mathse.scoring.answers import MARKER, extract_answer, same_answer

MAX_CHARS = 4000  # a longer path is no solution of a word problem, and its steps are not checked
_N = r"-?\$?\d{1,12}(?:,\d{3})*(?:\.\d{1,6})?"
_SUM = re.compile(rf"(?P<terms>{_N}(?:\s*[-+*/x×÷]\s*\$?\d[\d,]*(?:\.\d+)?){{1,6}})\s*=\s*(?P<result>{_N})")
_STEP = re.compile(r"^\s*(?:Step\s+(\d{1,2})\s*[:.])", re.MULTILINE)
_SIGNS = str.maketrans({"x": "*", "×": "*", "÷": "/", ",": "", "$": ""})
_ALL_SIGNS = "+-*/"


def write_solution(operations: Sequence[Operation]) -> str:
    """Write the worked solution. Raises BadRow for a number with too many decimal places."""
    steps = evaluate_steps(operations)
    lines = [write_step(*step) for step in steps]
    lines.append(f"{MARKER} {number_text(steps[-1][3])}.")
    return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))


def write_short_solution(operations: Sequence[Operation]) -> str:
    """Write the sums, a line each; the last result is the answer. Raises BadRow as ``write_solution``."""
    return "\n".join(write_step(*step).removesuffix(".") for step in evaluate_steps(operations))


def write_step(left: Fraction, sign: str, right: Fraction, result: Fraction) -> str:
    """Write a step as "32 + 42 = 74." """
    return f"{number_text(left)} {sign} {number_text(right)} = {number_text(result)}."


def check(operations: Sequence[Operation], text: str) -> StepCheck:
    """Check a path against the problem's equation.

    The analysis marks each step up to the first wrong step, and gives the expected step: "1 ok | 2 no: 74 - 35 = 39".
    """
    reference = evaluate_steps(operations)
    answer = number_text(reference[-1][3])
    if len(text) > MAX_CHARS:
        return StepCheck(1, "1 no: too long")
    steps = steps_of(text)
    right_answer = same_answer(extract_answer(text), answer)
    missing = list(reference)  # steps of the equation that the path does not hold yet
    parts: list[str] = []
    for k, step in enumerate(steps, 1):
        sums = [_evaluate_sum(match) for match in _SUM.finditer(step)]
        results = {result for _, result in sums}
        is_true = all(value == result for value, result in sums)
        if not right_answer:
            # The answer itself is wrong, or a result that the equation does not have.
            is_answer = extract_answer(step) is not None and not sums
            is_true = is_true and not is_answer and results <= {result for *_, result in reference}
        if not is_true:
            return StepCheck(k, " | ".join([*parts, f"{k} no: {_describe_expected(missing, answer)}"]))
        missing = [entry for entry in missing if entry[3] not in results]
        parts.append(f"{k} ok")
    # The path ends before its answer.
    if not right_answer:
        k = len(steps) + 1
        return StepCheck(k, " | ".join([*parts, f"{k} no: {_describe_expected(missing, answer)}"]))
    return StepCheck(None, " | ".join(parts))


def check_sums(text: str) -> StepCheck | None:
    """Check a path without its equation: all sums must be true, and the answer must be the result of the last sum.

    None for a path without a sum or without an answer.
    """
    answer = extract_answer(text)
    if answer is None or len(text) > MAX_CHARS:
        return None
    last: str | None = None  # the result of the last sum, as written
    parts: list[str] = []
    steps = steps_of(text)
    for k, step in enumerate(steps, 1):
        for match in _SUM.finditer(step):
            value, result = _evaluate_sum(match)
            if value != result:
                right = "no number" if value is None else f"{float(value):.12g}"
                return StepCheck(k, " | ".join([*parts, f"{k} no: the left side comes to {right}"]))
            last = match["result"]
        parts.append(f"{k} ok")
    if last is None:
        return None
    if not same_answer(answer, last):
        parts[-1] = f"{len(steps)} no: the last sum comes to {last}"
        return StepCheck(len(steps), " | ".join(parts))
    return StepCheck(None, " | ".join(parts))


def _describe_expected(missing: Sequence[tuple[Fraction, str, Fraction, Fraction]], answer: str) -> str:
    return write_step(*missing[0]).removesuffix(".") if missing else answer


def steps_of(text: str) -> list[str]:
    """Split a path into the texts behind "Step 1:", "Step 2:"; without such marks into its lines."""
    marks = list(_STEP.finditer(text))
    if not marks:
        return [line for line in text.splitlines() if line.strip()]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]


def _evaluate_sum(match: re.Match[str]) -> tuple[Fraction | None, Fraction]:
    """Evaluate the left side of a sum, None if it has no value, and read its right side."""
    result = Fraction(match["result"].translate(_SIGNS))
    try:
        return evaluate_steps(operations_of(match["terms"].translate(_SIGNS)))[-1][3], result
    except BadRow:
        return None, result


# --- made-up errors ---------------------------------------------------------------------------------------------------


def corrupt(operations: Sequence[Operation], draw: random.Random) -> str:
    """Write a path with a made-up error, and later steps consistent with it.

    Half of the paths have a wrong operation or a wrong operand, a quarter a miscalculation, and a quarter are right.
    """
    kind = draw.choices(("operation", "sum", "none"), (0.5, 0.25, 0.25))[0]
    return write_wrong_solution(operations, kind, draw)


def write_wrong_solution(operations: Sequence[Operation], kind: str, draw: random.Random) -> str:
    """Write the worked solution with an error of a ``kind``: operation, sum, or none."""
    wrong = draw.randrange(len(operations))
    operands = [*(operation.left for operation in operations), *(operation.right for operation in operations)]
    numbers = sorted({operand for operand in operands if isinstance(operand, Fraction)})
    results: list[Fraction] = []
    lines = []
    for k, operation in enumerate(operations):
        left, right = resolve_operand(operation.left, results), resolve_operand(operation.right, results)
        sign = operation.sign
        if k == wrong and kind == "operation":
            left, sign, right = _choose_other(left, sign, right, numbers, draw)
        result = _round(calculate(left, sign, right) if right or sign != "/" else left)
        if k == wrong and kind == "sum":
            result = _near_miss(result, draw)
        results.append(result)
        lines.append(write_step(_round(left), sign, _round(right), result))
    lines.append(f"{MARKER} {number_text(results[-1])}.")
    return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))


def _choose_other(
    left: Fraction, sign: str, right: Fraction, numbers: Sequence[Fraction], draw: random.Random
) -> tuple[Fraction, str, Fraction]:
    """Choose a plausible wrong operation: another sign, exchanged operands, or another number of the problem.

    Its result differs from the right result and has at most two decimal places.
    """
    result = calculate(left, sign, right)
    choices = [(left, other, right) for other in _ALL_SIGNS if other != sign]
    choices += [(right, sign, left)] if sign in "-/" else []
    choices += [(left, sign, other) for other in numbers] + [(other, sign, right) for other in numbers]
    usable = []
    for a, s, b in choices:
        if s == "/" and not b:
            continue
        other = calculate(a, s, b)
        if other != result and (other * 100).denominator == 1:
            usable.append((a, s, b))
    return draw.choice(usable) if usable else (left, "+", right + 1)


def _round(number: Fraction) -> Fraction:
    """Round to two decimal places, as a student would continue from a wrong number."""
    return Fraction(round(number * 100), 100)


def _near_miss(number: Fraction, draw: random.Random) -> Fraction:
    """Change the last digit or the tens of a number by a little, as in a slip."""
    step = Fraction(1, number.denominator) if number.denominator > 1 else Fraction(1)
    return number + step * draw.choice([-10, -2, -1, 1, 2, 10])
