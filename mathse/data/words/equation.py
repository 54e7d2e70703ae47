"""An equation as a sequence of steps: ``((32.0+42.0)-35.0)`` is 32 + 42 = 74, then 74 - 35 = 39.

Numbers are exact fractions, so that 0.1 + 0.2 is 0.3. A step's operand is a number or the result of an earlier step.
A parser of our own reads arithmetic in infix form ("X=(3*(4+5))", "70-x=27" with a single unknown) or in prefix form
("- + 3 4 5"), because an equation comes from a file and must not be evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mathse.data.json_records import BadRow

MAX_EQUATION, MAX_STEPS = 300, 20  # characters; operations
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)(%?)|([-+*/()=])|([xX]))")
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
MAX_PLACES = 2  # decimal places of a number in a solution; an equation with a longer result is left out


@dataclass(frozen=True)
class Earlier:
    """The result of an earlier step, counted from 0."""

    step: int


Operand = Fraction | Earlier


@dataclass(frozen=True)
class Operation:
    """One step: two operands and a sign of ``+-*/``."""

    sign: str
    left: Operand
    right: Operand


def evaluate_steps(operations: Sequence[Operation]) -> list[tuple[Fraction, str, Fraction, Fraction]]:
    """Evaluate the operations to (left, sign, right, result) of each step. Raises BadRow for a division by zero."""
    results: list[Fraction] = []
    steps = []
    for operation in operations:
        left, right = resolve_operand(operation.left, results), resolve_operand(operation.right, results)
        results.append(calculate(left, operation.sign, right))
        steps.append((left, operation.sign, right, results[-1]))
    return steps


def resolve_operand(operand: Operand, results: Sequence[Fraction]) -> Fraction:
    """Give the number of an operand, with the results of the earlier steps."""
    return results[operand.step] if isinstance(operand, Earlier) else operand


def calculate(left: Fraction, sign: str, right: Fraction) -> Fraction:
    """Apply a sign of ``+-*/``. Raises BadRow for a division by zero."""
    if sign == "/" and right == 0:
        raise BadRow("its equation divides by zero")
    return {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1)}[sign]


def number_of(text: str) -> Fraction:
    """Parse a number with at most twelve digits on either side of the point. Raises BadRow."""
    if re.fullmatch(r"-?\d{1,12}(\.\d{1,12})?", text) is None:
        raise BadRow(f"its equation has {text!r:.40}, which is no number that is read")
    return Fraction(text)


def number_text(number: Fraction) -> str:
    """Format a number as "39" or "0.25". Raises BadRow for more than ``MAX_PLACES`` decimal places."""
    scaled = number * 10**MAX_PLACES
    if scaled.denominator != 1:
        raise BadRow(f"its equation leads through {float(number):.6g}, which has more than {MAX_PLACES} decimal places")
    sign, digits = "-" if scaled < 0 else "", f"{abs(scaled.numerator):0{MAX_PLACES + 1}d}"
    fraction = digits[-MAX_PLACES:].rstrip("0")
    return f"{sign}{digits[:-MAX_PLACES]}{'.' if fraction else ''}{fraction}"


def check_count(operations: Sequence[Operation]) -> None:
    """Raise BadRow for no operation, and for more than ``MAX_STEPS``."""
    if not operations or len(operations) > MAX_STEPS:
        raise BadRow(f"its equation has {len(operations)} operations, and 1 to {MAX_STEPS} are a solution")


def operations_of(equation: str) -> list[Operation]:
    """Parse an equation in infix form into its operations, and solve for x, which may occur once. Raises BadRow."""
    if len(equation) > MAX_EQUATION:
        raise BadRow(f"its equation has {len(equation)} characters, and at most {MAX_EQUATION} are read")
    sides = equation.split("=")
    if len(sides) > 2:
        raise BadRow(f"its equation {equation!r:.80} has {len(sides) - 1} signs of equality")
    trees = [_parse(side) for side in sides if side.strip()]
    if len(trees) != len(sides):
        raise BadRow(f"its equation {equation!r:.80} has a side that says nothing")
    if len(trees) == 1:
        return _list_operations(trees[0])
    counts = [_count_unknowns(tree) for tree in trees]
    if sum(counts) != 1:
        raise BadRow(f"its equation {equation!r:.80} has {sum(counts)} unknowns, and one is solved for")
    unknown, known = trees if counts[0] else reversed(trees)
    return _list_operations(_solve(unknown, known))


def operations_of_prefix(equation: str, numbers: Sequence[str] = ()) -> list[Operation]:
    """Parse an equation in prefix form, ``- + number0 number1 3``; ``numberN`` is ``numbers[N]``. Raises BadRow."""
    tokens = equation.split()
    if len(tokens) > 2 * MAX_STEPS + 1:
        raise BadRow(f"its equation has {len(tokens)} parts, and at most {2 * MAX_STEPS + 1} are read")
    position = 0

    def read() -> _Tree:
        nonlocal position
        if position >= len(tokens):
            raise BadRow(f"its equation {equation!r:.80} breaks off")
        token = tokens[position]
        position += 1
        if token in _INVERSE:
            return (token, read(), read())
        if (index := re.fullmatch(r"number(\d{1,3})", token)) is not None:
            if int(index[1]) >= len(numbers):
                raise BadRow(f"its equation names {token}, and it has {len(numbers)} numbers")
            token = numbers[int(index[1])]
        return number_of(token)

    tree = read()
    if position != len(tokens):
        raise BadRow(f"its equation {equation!r:.80} goes on behind its end")
    return _list_operations(tree)


# --- trees ------------------------------------------------------------------------------------------------------------

_Tree = Fraction | str | tuple[str, "_Tree", "_Tree"]  # a number, "x", or (sign, left, right)


def _parse(text: str) -> _Tree:
    """Parse a side of an equation by recursive descent. Raises BadRow."""
    # 1) Split the text into numbers, percentages, signs and x.
    tokens: list[str] = []
    position = 0
    while position < len(text.rstrip()):
        if (match := _TOKEN.match(text, position)) is None:
            raise BadRow(f"its equation {text!r:.80} has {text[position]!r}, which is not read")
        number, percent, sign, unknown = match.groups()
        tokens += [f"{number}%"] if percent else [number or sign or unknown.lower()]
        position = match.end()

    # 2) Parse expression -> term {+- term}, term -> factor {*/ factor}, factor -> number, x, -factor, (expression).
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def factor(depth: int) -> _Tree:
        if not peek() or depth > MAX_STEPS:
            raise BadRow(f"its equation {text!r:.80} breaks off, or is nested too deeply")
        token = take()
        if token == "(":
            tree = expression(depth + 1)
            if peek() != ")":
                raise BadRow(f"its equation {text!r:.80} lacks a bracket")
            take()
            return tree
        if token == "-":
            inner = factor(depth + 1)
            return -inner if isinstance(inner, Fraction) else ("-", Fraction(0), inner)
        if token == "x":
            return "x"
        if token.endswith("%"):
            return number_of(token[:-1]) / 100
        return number_of("0" + token if token.startswith(".") else token)

    def chain(signs: str, part: str, depth: int) -> _Tree:
        read = factor if part == "factor" else term
        tree = read(depth)
        while peek() and peek() in signs:
            sign = take()
            tree = (sign, tree, read(depth))
        return tree

    def term(depth: int) -> _Tree:
        return chain("*/", "factor", depth)

    def expression(depth: int) -> _Tree:
        return chain("+-", "term", depth)

    tree = expression(0)
    if peek():
        raise BadRow(f"its equation {text!r:.80} has {peek()!r} where it should end")
    return tree


def _count_unknowns(tree: _Tree) -> int:
    if isinstance(tree, tuple):
        return _count_unknowns(tree[1]) + _count_unknowns(tree[2])
    return int(tree == "x")


def _solve(unknown: _Tree, known: _Tree) -> _Tree:
    """Solve ``unknown`` = ``known`` for x, which ``unknown`` holds once."""
    # Move the outer operation to the other side until x is the whole side.
    while isinstance(unknown, tuple):
        sign, left, right = unknown
        if _count_unknowns(left):
            unknown, known = left, (_INVERSE[sign], known, right)
        elif sign in "+*":
            unknown, known = right, (_INVERSE[sign], known, left)
        else:  # a - x = b, a / x = b
            unknown, known = right, (sign, left, known)
    return known


def _list_operations(tree: _Tree) -> list[Operation]:
    """List the operations of a tree in the order of evaluation. Raises BadRow for a tree without an operation."""
    operations: list[Operation] = []

    def walk(node: _Tree) -> Operand:
        if isinstance(node, tuple):
            left, right = walk(node[1]), walk(node[2])
            operations.append(Operation(node[0], left, right))
            return Earlier(len(operations) - 1)
        if isinstance(node, str):
            raise BadRow("its equation has an unknown on no side of an equality")
        return node

    walk(tree)
    check_count(operations)
    return operations
