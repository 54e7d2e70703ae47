"""The value of a printed sympy expression, without ``eval``; MATH-Vision's script computes ``eval(str(expr))``.

The script evaluates with the names of Python's ``math``: "4*pi" has a value, "E", "oo", "Abs(-1)" and "x" have none.
This module applies the same Python operators to the same tree. It accepts numbers, operators, comparisons and calls of
``math`` functions, and refuses powers and factorials that are too large for an answer.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

Number = int | float
MAX_BITS = 100_000  # bits of an integer power; the reference answers have at most 30

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_NAMES = {name: value for name, value in vars(math).items() if isinstance(value, float)}
_FUNCTIONS = {name: value for name, value in vars(math).items() if callable(value) and not name.startswith("_")}
_FAST_GROWING = ("factorial", "perm", "comb")  # functions with values that may be too large to compute
_MAX_ARGUMENT = 5_000  # of these functions


class NoNumber(ValueError):
    """The value of a text is no number."""


def number_of(text: str) -> Number:
    """Return the value of ``text``, rounded to 2 decimals as in the official script. Raises NoNumber if it has none."""
    try:
        rounded = round(_value(ast.parse(text, mode="eval").body), 2)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise NoNumber(str(error)) from None
    if not isinstance(rounded, int | float) or isinstance(rounded, int) and rounded.bit_length() > MAX_BITS:
        raise NoNumber("no real number of a writable size")
    return rounded


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | complex() as value):
            return value
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return +_value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = _value(left), _value(right)
            if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
                raise NoNumber("a power too large")
            return base**exponent
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left), _value(right))
        case ast.Compare(left=first, ops=ops, comparators=others):
            # "3 < 4" is True, which rounds to 1; also "1 < 2 < 3".
            values = [_value(operand) for operand in (first, *others)]
            for comparison, left_value, right_value in zip(ops, values, values[1:], strict=False):
                if type(comparison) not in _COMPARE:
                    raise NoNumber("no comparison of numbers")
                if not _COMPARE[type(comparison)](left_value, right_value):
                    return False
            return True
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            values = [_value(argument) for argument in args]
            if name in _FAST_GROWING and any(value > _MAX_ARGUMENT for value in values):
                raise NoNumber(f"{name} of a number too large")
            return _FUNCTIONS[name](*values)
    raise NoNumber(f"{type(node).__name__} has no value")
