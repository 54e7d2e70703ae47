"""Expressions as sums of products with exact coefficients: 2/sqrt(3) is 2sqrt(3)/3, and 2x+1 is 1+2x.

Of functions only values are known that such a sum can be: sin, cos and tan of the usual angles in degrees, and
logarithms that are whole. A text without such a form (other functions, more than ``MAX_TERMS`` terms) equals only the
same text. A sum of plain numbers is not worked out: "2+3" is no answer to a question whose answer is 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import isqrt

# The number under the square root; symbols with their powers: (3, (("x", 2),)) is sqrt(3) x^2, and (1, ()) is 1.
Monomial = tuple[int, tuple[tuple[str, int], ...]]
Sum = dict[Monomial, Fraction]  # with their coefficients, none of them zero
ONE: Monomial = (1, ())

# Bounds on time: an answer beyond them has no form.
MAX_TERMS, MAX_POWER, MAX_DIGITS, MAX_RADICAND, MAX_LENGTH, MAX_DEPTH, MAX_ROOT = 24, 16, 12, 10**8, 120, 20, 9
_TOKEN = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<root>sqrt|root[2-9])|(?P<pi>pi)|(?P<greek>alpha|beta|gamma|delta|theta|lambda|omega|phi)"
    r"|(?P<letter>[a-z](?:_[0-9a-z])?)|(?P<sign>[-+*/^()])|(?P<blank> +)"
)
_WORD = re.compile(r"[a-z]{5}|sin|cos|tan|log|ln")
_ANGLE = re.compile(r"(?P<name>sin|cos|tan) ?\(?(?P<degrees>[0-9]{1,4}) ?°\)?")
_SINES = {0: "0", 30: "(1/2)", 45: "(sqrt(2)/2)", 60: "(sqrt(3)/2)", 90: "1"}  # by degrees
_TANGENTS = {0: "0", 30: "(sqrt(3)/3)", 45: "1", 60: "sqrt(3)"}
_LOGARITHM = re.compile(r"log_(?P<base>[0-9]{1,4})[ (]{1,2}(?P<argument>[0-9]{1,12})\)?")
_SINGLE_POWER = re.compile(r"-?[0-9.]+\^\(?-?[0-9/]+\)?")


class _NoForm(Exception):
    """The text is no expression of this module."""


def same_expression(left: str, right: str) -> bool:
    """Whether two plain texts are one expression, or one equation up to a factor."""
    try:
        if "=" in left and "=" in right:
            a, b = _left_minus_right(left), _left_minus_right(right)
            if not a or a.keys() != b.keys():
                return False
            factor = next(b[m] / a[m] for m in a)
            return all(b[m] == factor * a[m] for m in a)
        a, b = _parsed(left), _parsed(right)
    except _NoForm:
        return False
    # A sum of plain numbers is not worked out; a root, a letter or a single power may be.
    comparable = re.search("[a-z]", left + right) or any(map(_SINGLE_POWER.fullmatch, (left, right)))
    return a == b and bool(comparable) and bool(a)


def _left_minus_right(equation: str) -> Sum:
    sides = equation.split("=")
    if len(sides) != 2:
        raise _NoForm
    return _added(_parsed(sides[0]), _parsed(sides[1]), -1)


# --- arithmetic of sums ---------------------------------------------------------------------------------------------


def _added(a: Sum, b: Sum, factor: int = 1) -> Sum:
    total = dict(a)
    for monomial, value in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + factor * value
    return _checked(total)


def _checked(total: Sum) -> Sum:
    """Without the terms that cancelled out. Raises _NoForm beyond the bounds."""
    total = {m: v for m, v in total.items() if v}
    if len(total) > MAX_TERMS or any(len(str(v)) > 4 * MAX_DIGITS for v in total.values()):
        raise _NoForm
    return total


def _multiplied(a: Sum, b: Sum) -> Sum:
    total: Sum = {}
    for (root, symbols), x in a.items():
        for (other_root, other_symbols), y in b.items():
            factor, radicand = _simplified_root(root * other_root)
            powers = dict(symbols)
            for name, power in other_symbols:
                powers[name] = powers.get(name, 0) + power
            if any(abs(power) > MAX_POWER for power in powers.values()):
                raise _NoForm
            monomial = radicand, tuple(sorted((n, p) for n, p in powers.items() if p))
            total[monomial] = total.get(monomial, Fraction(0)) + x * y * factor
    return _checked(total)


def _simplified_root(number: int) -> tuple[int, int]:
    """sqrt(12) = 2 sqrt(3) -> (2, 3)."""
    if not 0 < number <= MAX_RADICAND:
        raise _NoForm
    # Squares of divisors below 1,000 go in front, a larger one only where nothing else is left: a bound on time.
    factor, divisor = 1, 2
    while divisor * divisor <= number and divisor < 1_000:
        if number % (divisor * divisor) == 0:
            factor, number = factor * divisor, number // (divisor * divisor)
        else:
            divisor += 1
    whole = isqrt(number)
    return (factor * whole, 1) if whole * whole == number else (factor, number)


def _inverse(a: Sum) -> Sum:
    """1 / a, for one term, or for two of which at least one is a root."""
    # 1 / (x m + y n) = (x m - y n) / (x^2 m^2 - y^2 n^2); that denominator is one term where m or n is a root.
    if len(a) == 2:
        (m, x), (n, y) = a.items()
        conjugate = {m: x, n: -y}
        product = _multiplied(a, conjugate)
        if len(product) != 1:
            raise _NoForm
        return _multiplied(conjugate, _inverse(product))
    if len(a) != 1:
        raise _NoForm
    ((radicand, symbols), value) = next(iter(a.items()))
    return {(radicand, tuple((name, -power) for name, power in symbols)): 1 / (value * radicand)}


def _power(base: Sum, exponent: Sum) -> Sum:
    if set(exponent) - {ONE}:
        raise _NoForm
    value = exponent.get(ONE, Fraction(0))
    if value.numerator == 1 and 2 <= value.denominator <= MAX_ROOT:
        return _root(base, value.denominator)
    if value.denominator != 1 or abs(value) > MAX_POWER:
        raise _NoForm
    result: Sum = {ONE: Fraction(1)}
    for _ in range(abs(int(value))):
        result = _multiplied(result, base)
    return _inverse(result) if value < 0 else result


def _root(a: Sum, degree: int) -> Sum:
    """The root of a number, for a square root always and else where it is rational; another becomes a symbol."""
    if not a:
        return {}
    if set(a) == {ONE}:
        value = a[ONE]
        if degree == 2 and value > 0:  # sqrt(p/q) = sqrt(pq)/q
            factor, radicand = _simplified_root(value.numerator * value.denominator)
            return {(radicand, ()): Fraction(factor, value.denominator)}
        if degree > 2 and (value > 0 or degree % 2):
            top, bottom = (round(abs(n) ** (1 / degree)) for n in (value.numerator, value.denominator))
            if Fraction(top, bottom) ** degree == abs(value):
                return {ONE: Fraction(top if value > 0 else -top, bottom)}
    return {(1, ((f"root{degree}{sorted(a.items())}", 1),)): Fraction(1)}


def _exact_angle(match: re.Match[str]) -> str:
    """ "sin 150°" -> "(1/2)"; as it is where the value is no root of a small number."""
    degrees = int(match["degrees"]) % 360
    if match["name"] == "tan":
        within, sign = (degrees % 180, "") if degrees % 180 < 90 else (180 - degrees % 180, "-")
        value = _TANGENTS.get(within)
    else:
        degrees = (degrees + 90) % 360 if match["name"] == "cos" else degrees  # cos x = sin(x + 90°)
        sign = "-" if degrees > 180 else ""
        value = _SINES.get(min(degrees % 180, 180 - degrees % 180))
    return match[0] if value is None else f"({sign}{value})"


def _exact_logarithm(match: re.Match[str]) -> str:
    """ "log_2(8)" -> "3"; as it is where it is no whole number."""
    base, argument, power = int(match["base"]), int(match["argument"]), 0
    while base > 1 and argument > 1 and argument % base == 0:
        argument, power = argument // base, power + 1
    return str(power) if base > 1 and argument == 1 else match[0]


# --- parsing --------------------------------------------------------------------------------------------------------


def _parsed(text: str) -> Sum:
    if len(text) > MAX_LENGTH:
        raise _NoForm
    text = _LOGARITHM.sub(_exact_logarithm, _ANGLE.sub(_exact_angle, text)).replace("°", "")
    if _WORD.search(text.replace("sqrt", "").replace("alpha", "").replace("theta", "")):
        raise _NoForm
    tokens, end = [], 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            raise _NoForm
        end = match.end()
        if match.lastgroup != "blank":
            tokens.append((str(match.lastgroup), match[0]))
    if end != len(text) or not tokens:
        raise _NoForm
    parser = _Parser(tokens)
    value = parser.sum()
    if parser.position != len(tokens):
        raise _NoForm
    return value


class _Parser:
    """Recursive descent over (kind, text) tokens, to a depth of ``MAX_DEPTH`` brackets, roots and signs."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0

    def next(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def take(self, *signs: str) -> str | None:
        """The next token if it is one of these signs, and step over it."""
        kind, text = self.next()
        if kind == "sign" and text in signs:
            self.position += 1
            return text
        return None

    def deeper(self, read: Callable[[], Sum]) -> Sum:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoForm
        value = read()
        self.depth -= 1
        return value

    def sum(self) -> Sum:
        total = self.product()
        while sign := self.take("+", "-"):
            total = _added(total, self.product(), 1 if sign == "+" else -1)
        return total

    def product(self) -> Sum:
        if sign := self.take("-", "+"):
            return _added({}, self.deeper(self.product), -1 if sign == "-" else 1)
        value = self.power()
        while True:
            if sign := self.take("*", "/"):
                factor = self.power()
                value = _multiplied(value, _inverse(factor) if sign == "/" else factor)
            elif self.next()[0] in ("number", "root", "pi", "greek", "letter") or self.next()[1] == "(":
                value = _multiplied(value, self.power())  # 2x, 3(x+1)
            else:
                return value

    def power(self) -> Sum:
        base = self.atom()
        if not self.take("^"):
            return base
        sign = self.take("-", "+")
        exponent = self.atom()
        return _power(base, _added({}, exponent, -1) if sign == "-" else exponent)

    def atom(self) -> Sum:
        kind, text = self.next()
        self.position += 1
        if kind == "number" and len(text) <= MAX_DIGITS:
            return _checked({ONE: Fraction(text)})
        if kind in ("pi", "greek", "letter"):
            return {(1, ((text, 1),)): Fraction(1)}
        if kind == "root":
            return _root(self.deeper(self.atom), 2 if text == "sqrt" else int(text[-1]))
        if text == "(":
            value = self.deeper(self.sum)
            if self.take(")"):
                return value
        raise _NoForm
