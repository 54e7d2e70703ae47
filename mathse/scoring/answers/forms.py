"""Answers of several parts: tuples, sets and lists of solutions, intervals and inequalities, matrices, ratios.

Everything works on plain text (see ``plain``); parts are compared by the ``same`` that is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from mathse.scoring.answers.quantity import quantity

Same = Callable[[str, str], bool]
MAX_PARTS = 16

_OPEN, _CLOSE = "([{", ")]}"
_MATRIX = re.compile(
    r"\[?\(?\\begin\{(?P<kind>[bpv]?matrix|array)\}(?:\{[lcr|]*\})?(?P<body>.*?)\\end\{(?P=kind)\}\)?\]?"
)
_SOLUTION = re.compile(r"(?P<name>[a-z]\w{0,2}?)(?:_?[0-9])? ?= ?(?P<value>[^=]+)")
_OR = re.compile(r" or |或者?|∪")
_AND = re.compile(r",? and |和|、|;")
_BOUND = re.compile(r"(?P<low>[^<>=]+)(?P<first><=?|>=?) ?(?P<name>[a-z]\w{0,2}) ?(?P<second><=?|>=?)(?P<high>[^<>=]+)")
_HALF = re.compile(r"(?P<left>[^<>=]+)(?P<sign><=?|>=?)(?P<right>[^<>=]+)")
_VARIABLE = re.compile(r"[a-z]")
_THOUSAND = re.compile(r",[0-9]{3}(?![0-9])")
_INFINITE = re.compile(r"[-+]?(?:∞|infinity|oo)")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def same_form(left: str, right: str, same: Same) -> bool | None:
    """Whether two answers of several parts are equal; None where neither has parts that this module knows."""
    for compare in (_same_matrix, _same_interval, _same_ratio, _same_solutions, _same_tuple):
        if (verdict := compare(left, right, same)) is not None:
            return verdict
    return None


def split(text: str, separators: str = ",") -> list[str]:
    """``text`` at the separators that stand outside all brackets; a comma inside a number parts nothing."""
    parts, depth, start = [], 0, 0
    for k, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and character in separators and not _thousands(text, k):
            parts.append(text[start:k].strip())
            start = k + 1
    return [*parts, text[start:].strip()]


def _thousands(text: str, k: int) -> bool:
    """Whether the comma at ``k`` is one of 1,200: no blank, three digits behind it and no fourth."""
    return text[k] == "," and _THOUSAND.match(text, k) is not None and text[k - 1 : k].isdigit()


def _same_parts(left: Sequence[str], right: Sequence[str], same: Same, ordered: bool) -> bool:
    if len(left) != len(right) or len(left) > MAX_PARTS:
        return False
    if ordered:
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    rest = list(right)
    for part in left:
        place = next((k for k, other in enumerate(rest) if same(part, other)), None)
        if place is None:
            return False
        del rest[place]
    return True


# --- matrices -------------------------------------------------------------------------------------------------------


def _matrix(text: str) -> list[list[str]] | None:
    """The rows of \\begin{pmatrix}1&2\\\\3&4\\end{pmatrix} or of [[1,2],[3,4]]."""
    if match := _MATRIX.fullmatch(text):
        rows = [row for row in re.split(r"\\\\|\\ ", match["body"]) if row.strip()]
        return [[entry.strip() for entry in row.split("&")] for row in rows]
    if text.startswith(("[[", "((")) and text.endswith(("]]", "))")):
        rows = split(text[1:-1])
        if all(row[:1] in _OPEN and row[-1:] in _CLOSE and row for row in rows):
            return [split(row[1:-1]) for row in rows]
    return None


def _same_matrix(left: str, right: str, same: Same) -> bool | None:
    a, b = _matrix(left), _matrix(right)
    if a is None and b is None:
        return None
    if a is None or b is None or len(a) != len(b):
        return False
    return all(_same_parts(x, y, same, ordered=True) for x, y in zip(a, b, strict=True))


# --- intervals ------------------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """``low`` and ``high`` are plain texts, None for infinity; ``closed`` says of each whether it belongs."""

    low: str | None
    high: str | None
    closed: tuple[bool, bool]


def _same_interval(left: str, right: str, same: Same) -> bool | None:
    """An interval, or a union of some, in brackets or as inequalities; two in round brackets may be points as well."""
    a, b = _intervals(left), _intervals(right)
    if a is None or b is None:
        return None if a is None and b is None or not (_unmistakable(left) or _unmistakable(right)) else False
    if len(a) != len(b):
        return False
    rest = list(b)
    for interval in a:
        place = next((k for k, other in enumerate(rest) if _equal_intervals(interval, other, same)), None)
        if place is None:
            return False
        del rest[place]
    return True


def _unmistakable(text: str) -> bool:
    return "∪" in text or "<" in text or ">" in text or "∞" in text


def _equal_intervals(a: Interval, b: Interval, same: Same) -> bool:
    ends = ((a.low, b.low), (a.high, b.high))
    return a.closed == b.closed and all(x is y is None or bool(x and y and same(x, y)) for x, y in ends)


def _intervals(text: str) -> list[Interval] | None:
    found = []
    for part in _OR.split(text):
        interval = _interval(part.strip())
        if interval is None:
            return None
        found.append(interval)
    return found if len(found) <= MAX_PARTS else None


def _interval(text: str) -> Interval | None:
    text = re.sub(r"^[a-z] ?(?:\\in|∈) ?", "", text)
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and len(ends := split(text[1:-1])) == 2 and all(ends):
        low, high = (None if _INFINITE.fullmatch(end.replace(" ", "")) else end for end in ends)
        return Interval(low, high, (text[0] == "[" and low is not None, text[-1] == "]" and high is not None))
    if match := _BOUND.fullmatch(text):
        low, first, second, high = match["low"].strip(), match["first"], match["second"], match["high"].strip()
        if first[0] != second[0]:
            return None
        if first[0] == ">":
            low, first, second, high = high, second, first, low
        return _bounded(low, "=" in first, high, "=" in second)
    if match := _HALF.fullmatch(text):
        name, sign, bound = match["left"].strip(), match["sign"], match["right"].strip()
        if not _VARIABLE.fullmatch(name):
            name, sign, bound = bound, _TURNED[sign], name
        if _VARIABLE.fullmatch(name):
            below, above = (bound, None) if sign[0] == ">" else (None, bound)
            return Interval(below, above, (sign == ">=", sign == "<="))
    return None


def _bounded(low: str, low_closed: bool, high: str, high_closed: bool) -> Interval:
    ends = [None if _INFINITE.fullmatch(end.replace(" ", "")) else end.strip() for end in (low, high)]
    return Interval(ends[0], ends[1], (low_closed and ends[0] is not None, high_closed and ends[1] is not None))


# --- ratios ---------------------------------------------------------------------------------------------------------


def _same_ratio(left: str, right: str, same: Same) -> bool | None:
    """4:6 is 2:3 and 2/3."""
    a, b = left.split(":"), right.split(":")
    if len(a) == len(b) == 1:
        return None
    x, y = _values(a), _values(b)
    if x is None or y is None:
        return _same_parts(a, b, same, ordered=True) if len(a) == len(b) else None
    if 1 in (len(x), len(y)):
        x, y = (x, [*y, Fraction(1)]) if len(x) > 1 else ([*x, Fraction(1)], y)
    return len(x) == len(y) and all(p * y[0] == q * x[0] for p, q in zip(x, y, strict=True))


def _values(parts: Sequence[str]) -> list[Fraction] | None:
    found = [quantity(part.strip()) for part in parts]
    values = [q.value for q in found if q is not None]
    return values if len(values) == len(parts) else None


# --- lists of solutions, sets, tuples -------------------------------------------------------------------------------


class Solutions(NamedTuple):
    """``names``: of x = 1, y = 2, one a part, or empty. ``ordered`` False: in braces, "or", "±", or of one name."""

    parts: list[str]
    names: list[str]
    ordered: bool


def _same_solutions(left: str, right: str, same: Same) -> bool | None:
    a, b = _solutions(left), _solutions(right)
    if a is None or b is None:
        one_sided = (a or b) is not None and len((a or b or Solutions([], [], True)).parts) > 1
        return False if one_sided else None
    if len(set(a.names)) == len(a.parts) > 1 and set(a.names) == set(b.names):
        values = dict(zip(b.names, b.parts, strict=True))
        return all(same(part, values[name]) for name, part in zip(a.names, a.parts, strict=True))
    return _same_parts(a.parts, b.parts, same, a.ordered and b.ordered)


def _solutions(text: str) -> Solutions | None:
    """ "x_1=1, x_2=3", "{1, 3}", "1 or 3", "±2", "1和3"; None for a single answer without braces."""
    braces = text.startswith("{") and text.endswith("}")
    inner = _AND.sub(",", _OR.sub(",", text[1:-1] if braces else text))
    parts = [part for part in split(inner) if part]
    ordered = not braces and not _OR.search(text) and "±" not in text
    parts = [value for part in parts for value in _both_signs(part)]
    if not parts or len(parts) > MAX_PARTS or len(parts) == 1 and not braces:
        return None
    named = [_SOLUTION.fullmatch(part) for part in parts]
    if all(named):
        names = [match["name"] for match in named if match]
        values = [match["value"].strip() for match in named if match]
        return Solutions(values, names if len(set(names)) == len(names) else [], ordered and len(set(names)) > 1)
    return Solutions([_without_name(part) for part in parts], [], ordered)


def _both_signs(part: str) -> tuple[str, ...]:
    """ "1±2" -> "1+2", "1-2"; "±2" -> "2", "-2"."""
    before, sign, after = part.partition("±")
    if not sign:
        return (part,)
    plus = "+" if before.strip() and not before.rstrip().endswith("=") else ""
    return f"{before}{plus}{after}", f"{before}-{after}"


def _without_name(part: str) -> str:
    match = _SOLUTION.fullmatch(part)
    return match["value"].strip() if match else part


def _same_tuple(left: str, right: str, same: Same) -> bool | None:
    a, b = _tuple(left), _tuple(right)
    if a is None or b is None:
        return None
    return left[-1] == right[-1] and _same_parts(a, b, same, ordered=True)


def _tuple(text: str) -> list[str] | None:
    """The elements of (1, 2); a name before it, as in A(1, 2), is left out."""
    start = text.find("(") if re.match(r"[a-z]?\(", text) else text.find("[") if text.startswith("[") else -1
    if start < 0 or text[-1] != _CLOSE[_OPEN.index(text[start])]:
        return None
    parts = split(text[start + 1 : -1])
    return parts if len(parts) > 1 and all(parts) else None
