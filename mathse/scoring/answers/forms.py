"""Answers of several parts: tuples, sets and lists of solutions, intervals and inequalities, matrices, ratios.

All functions take plain text (see plain.py) and compare parts by the function ``same``. A comparison returns None if
neither answer has its form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeVar

from mathse.scoring.answers.quantity import read_quantity
from mathse.scoring.answers.question import UNASKED, Question

T = TypeVar("T")
Same = Callable[[str, str], bool]
MAX_PARTS = 16

_OPEN, _CLOSE = "([{", ")]}"
_MATRIX = re.compile(
    r"\[?\(?\\begin\{(?P<kind>[bpv]?matrix|array)\}(?:\{[lcr|]*\})?(?P<body>.*?)\\end\{(?P=kind)\}\)?\]?"
)
_SOLUTION = re.compile(r"(?P<name>[a-zA-Z]\w{0,2}?)(?:_?[0-9])? ?= ?(?P<value>[^=]+)")
_OR = re.compile(r" or |或者?|∪", re.IGNORECASE)
_AND = re.compile(r",? and |和|、|;|且", re.IGNORECASE)
_BOUND = re.compile(
    r"(?P<low>[^<>=]+)(?P<first><=?|>=?) ?(?P<name>[a-zA-Z]\w{0,2}) ?(?P<second><=?|>=?)(?P<high>[^<>=]+)"
)
_HALF = re.compile(r"(?P<left>[^<>=]+)(?P<sign><=?|>=?)(?P<right>[^<>=]+)")
_VARIABLE = re.compile(r"[a-zA-Z]")
_THOUSAND = re.compile(r",[0-9]{3}(?![0-9])")
_INFINITE = re.compile(r"[-+]?(?:∞|infinity|oo)")
_RATIO = re.compile(r":|(?<=[0-9]) to (?=[0-9])|(?<=[0-9])比(?=[0-9])")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def same_form(left: str, right: str, same: Same, question: Question = UNASKED) -> bool | None:
    """Whether two answers of several parts are equal; None if neither has a form that this module knows."""
    # The order matters: "(1, 2) or (3, 4)" is a union of intervals before it is a list of solutions.
    for compare in (_same_matrix, _same_interval, _same_ratio):
        if (verdict := compare(left, right, same)) is not None:
            return verdict
    verdict = _same_solutions(left, right, same, question)
    return _same_tuple(left, right, same) if verdict is None else verdict


def split_outside_brackets(text: str, separators: str = ",") -> list[str]:
    """Split a text at separators outside all brackets. The comma inside a number is no separator."""
    parts, depth, start = [], 0, 0
    for k, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        # The comma of 1,200 has a digit before it and exactly three digits behind it.
        in_number = character == "," and _THOUSAND.match(text, k) is not None and text[k - 1 : k].isdigit()
        if depth == 0 and character in separators and not in_number:
            parts.append(text[start:k].strip())
            start = k + 1
    return [*parts, text[start:].strip()]


def _same_parts(left: Sequence[str], right: Sequence[str], same: Same, ordered: bool) -> bool:
    if len(left) != len(right) or len(left) > MAX_PARTS:
        return False
    return all(map(same, left, right)) if ordered else _same_in_any_order(left, right, same)


def _same_in_any_order(left: Sequence[T], right: Sequence[T], same: Callable[[T, T], bool]) -> bool:
    """Pair each part of ``left`` with the first equal part of ``right`` without a partner; whether all have one."""
    untaken = list(right)
    for part in left:
        match = next((k for k, other in enumerate(untaken) if same(part, other)), None)
        if match is None:
            return False
        del untaken[match]
    return not untaken


# --- matrices -------------------------------------------------------------------------------------------------------


def _parse_matrix(text: str) -> list[list[str]] | None:
    """Parse the rows of \\begin{pmatrix}1&2\\\\3&4\\end{pmatrix} or of [[1,2],[3,4]]."""
    if match := _MATRIX.fullmatch(text):
        rows = [row for row in re.split(r"\\\\|\\ ", match["body"]) if row.strip()]
        return [[entry.strip() for entry in row.split("&")] for row in rows]
    if text.startswith(("[[", "((")) and text.endswith(("]]", "))")):
        rows = split_outside_brackets(text[1:-1])
        if all(row[:1] in _OPEN and row[-1:] in _CLOSE and row for row in rows):
            return [split_outside_brackets(row[1:-1]) for row in rows]
    return None


def _same_matrix(left: str, right: str, same: Same) -> bool | None:
    a, b = _parse_matrix(left), _parse_matrix(right)
    if a is None and b is None:
        return None
    if a is None or b is None or len(a) != len(b):
        return False
    return all(_same_parts(x, y, same, ordered=True) for x, y in zip(a, b, strict=True))


# --- intervals ------------------------------------------------------------------------------------------------------


class NumberInterval(NamedTuple):
    """``low`` and ``high`` are plain texts, None for infinity; ``closed`` holds for each whether it belongs."""

    low: str | None
    high: str | None
    closed: tuple[bool, bool]


def _same_interval(left: str, right: str, same: Same) -> bool | None:
    """Compare intervals or unions of intervals, in brackets or as inequalities."""

    def equal(a: NumberInterval, b: NumberInterval) -> bool:
        ends = ((a.low, b.low), (a.high, b.high))
        return a.closed == b.closed and all(x is y is None or bool(x and y and same(x, y)) for x, y in ends)

    a, b = _parse_intervals(left), _parse_intervals(right)
    if a is None or b is None:
        # "(1, 2)" may be a point too, so beside another form only these signs identify an interval.
        one_is_interval = (a is None) != (b is None) and any(sign in left + right for sign in "∪<>∞")
        return False if one_is_interval else None
    return len(a) == len(b) and _same_in_any_order(a, b, equal)


def _parse_intervals(text: str) -> list[NumberInterval] | None:
    intervals = []
    for part in _OR.split(text):
        interval = _parse_interval(part.strip())
        if interval is None:
            return None
        intervals.append(interval)
    return intervals if len(intervals) <= MAX_PARTS else None


def _parse_interval(text: str) -> NumberInterval | None:
    """Parse "[1, 2)", "x ∈ (0, ∞)", "1 < x <= 2" or "x >= 3"."""
    text = re.sub(r"^[a-zA-Z] ?∈ ?", "", text)
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        ends = split_outside_brackets(text[1:-1])
        if len(ends) == 2 and all(ends):
            return _make_interval(ends[0], text[0] == "[", ends[1], text[-1] == "]")
    if match := _BOUND.fullmatch(text):
        low, first, second, high = match["low"].strip(), match["first"], match["second"], match["high"].strip()
        if first[0] != second[0]:
            return None
        if first[0] == ">":
            low, first, second, high = high, second, first, low
        return _make_interval(low, "=" in first, high, "=" in second)
    # Two half-lines: x > 1 and x < 2.
    halves = _AND.sub(",", text).split(",")
    if len(halves) == 2:
        one, other = _parse_interval(halves[0].strip()), _parse_interval(halves[1].strip())
        if one and other:
            return _intersect(one, other)
    if match := _HALF.fullmatch(text):
        name, sign, bound = match["left"].strip(), match["sign"], match["right"].strip()
        if not _VARIABLE.fullmatch(name):
            name, sign, bound = bound, _TURNED[sign], name
        if _VARIABLE.fullmatch(name):
            below, above = (bound, None) if sign[0] == ">" else (None, bound)
            return NumberInterval(below, above, (sign == ">=", sign == "<="))
    return None


def _intersect(one: NumberInterval, other: NumberInterval) -> NumberInterval | None:
    """Intersect two half-lines from opposite sides; None for any other two intervals."""
    if one.low is None:
        one, other = other, one
    if one.low is None or one.high is not None or other.low is not None or other.high is None:
        return None
    return NumberInterval(one.low, other.high, (one.closed[0], other.closed[1]))


def _make_interval(low: str, low_closed: bool, high: str, high_closed: bool) -> NumberInterval:
    """Make an interval. An infinite end becomes None, and open."""
    ends = [None if _INFINITE.fullmatch(end.replace(" ", "")) else end.strip() for end in (low, high)]
    return NumberInterval(ends[0], ends[1], (low_closed and ends[0] is not None, high_closed and ends[1] is not None))


# --- ratios ---------------------------------------------------------------------------------------------------------


def _same_ratio(left: str, right: str, same: Same) -> bool | None:
    """Compare ratios: 4:6 is 2:3 and 2/3."""
    a, b = _RATIO.split(left), _RATIO.split(right)
    if len(a) == len(b) == 1:
        return None
    x, y = ([q.value for part in parts if (q := read_quantity(part.strip()))] for parts in (a, b))
    # A part that is no number: compare part by part.
    if len(x) < len(a) or len(y) < len(b):
        return _same_parts(a, b, same, ordered=True) if len(a) == len(b) else None
    # A single number is a ratio to 1.
    x = [*x, Fraction(1)] if len(x) == 1 else x
    y = [*y, Fraction(1)] if len(y) == 1 else y
    # Ratios are equal if all parts have the same factor.
    return len(x) == len(y) and all(p * y[0] == q * x[0] for p, q in zip(x, y, strict=True))


# --- lists of solutions, sets, tuples -------------------------------------------------------------------------------


class Solutions(NamedTuple):
    """``names``: "x" and "y" for x = 1, y = 2; empty unless every part has a name of its own. ``ordered``: False in
    braces, with "or" or "±", and for several values of the same name."""

    parts: list[str]
    names: list[str]
    ordered: bool


def _same_solutions(left: str, right: str, same: Same, question: Question) -> bool | None:
    a, b = _parse_solutions(left), _parse_solutions(right)
    if a is None and b is None:
        return None
    # A list beside a tuple: x=2, y=3 and "2, 3" are (2, 3).
    pair = None
    if a is None:
        pair = _parse_pair(left)
    elif b is None:
        pair = _parse_pair(right)
    if pair is not None and not question.about_intervals:
        a, b = a or pair, b or pair
        if not (a.ordered and b.ordered):
            return False
    elif a is None or b is None:
        several, single = (b, left) if a is None else (a, right)
        return len(several.parts) == 1 and same(several.parts[0], single) if several else None
    elif question.wants_a_set:
        a, b = a._replace(ordered=bool(a.names)), b._replace(ordered=bool(b.names))
    if len(a.names) == len(b.names) > 1:
        if set(a.names) != set(b.names):
            return False
        values = dict(zip(b.names, b.parts, strict=True))
        return all(same(part, values[name]) for name, part in zip(a.names, a.parts, strict=True))
    in_order = (_sort_by_name(a, question), _sort_by_name(b, question))
    return _same_parts(*in_order, same, a.ordered and b.ordered)


def _sort_by_name(solutions: Solutions, question: Question) -> list[str]:
    """Sort the values of named parts by the question's order of the names, else by the alphabet."""
    if len(solutions.names) < 2:
        return solutions.parts
    names = question.names if set(question.names) == set(solutions.names) else sorted(solutions.names)
    values = dict(zip(solutions.names, solutions.parts, strict=True))
    return [values[name] for name in names]


def _parse_pair(text: str) -> Solutions | None:
    """Parse a pair such as (1, 2) as ordered values without names."""
    parts = _parse_tuple(text) if text.startswith("(") else None
    return None if parts is None else Solutions(parts, [], ordered=True)


def _parse_solutions(text: str) -> Solutions | None:
    """Parse "x_1=1, x_2=3", "{1, 3}", "1 or 3", "±2", "1和3"; None for a single answer without braces."""
    text = re.sub(r"^[a-zA-Z] ?∈ ?(?=\{)", "", text)
    braces = text.startswith("{") and text.endswith("}")
    text = re.sub(r"^either ", "", text, flags=re.IGNORECASE)
    inner = _AND.sub(",", _OR.sub(",", text[1:-1] if braces else text))
    ordered = not braces and not _OR.search(text) and "±" not in text
    parts: list[str] = []
    for part in filter(None, split_outside_brackets(inner)):
        parts += _expand_signs(part)
    if not parts or len(parts) > MAX_PARTS or len(parts) == 1 and not braces:
        return None
    named = [_SOLUTION.fullmatch(part) for part in parts]
    values = [match["value"].strip() if match else part for match, part in zip(named, parts, strict=True)]
    names = [match["name"] for match in named if match]
    if len(names) == len(parts) == len(set(names)):
        return Solutions(values, names, ordered)
    return Solutions(values, [], ordered and len(names) < len(parts))


def _expand_signs(part: str) -> tuple[str, ...]:
    """Expand "1±2" to "1+2" and "1-2", and "±2" to "2" and "-2"."""
    before, sign, after = part.partition("±")
    if not sign:
        return (part,)
    plus = "+" if before.strip() and not before.rstrip().endswith("=") else ""
    return f"{before}{plus}{after}", f"{before}-{after}"


def _same_tuple(left: str, right: str, same: Same) -> bool | None:
    a, b = _parse_tuple(left), _parse_tuple(right)
    if a is None or b is None:
        return None
    return left[-1] == right[-1] and _same_parts(a, b, same, ordered=True)


def _parse_tuple(text: str) -> list[str] | None:
    """Parse the elements of (1, 2) or [1, 2]. A name before the bracket, as in A(1, 2), is left out."""
    if re.match(r"[a-zA-Z]?\(", text):
        start = text.find("(")
    elif text.startswith("["):
        start = 0
    else:
        return None
    if text[-1] != _CLOSE[_OPEN.index(text[start])]:
        return None
    parts = split_outside_brackets(text[start + 1 : -1])
    return parts if len(parts) > 1 and all(parts) else None
