"""Expressions as fractions of sums of products with exact coefficients: 2/sqrt(3) is 2sqrt(3)/3, and 2x+1 is 1+2x.

Letters keep their case, and products of matrices their order. Of functions only values are known that such a sum can
be: sine, cosine, tangent of the usual angles, whole logarithms, factorials, binomials, absolute values of numbers;
sin(x) is a symbol. A text without such a form (more than ``MAX_TERMS`` terms, words) equals only the same
text. A sum of plain numbers is not worked out: "2+3" is no answer to a question that has the answer 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import comb, factorial, gcd, isqrt, lcm
from typing import NamedTuple

from mathse.scoring.answers.names import has_both_orders
from mathse.scoring.answers.question import UNASKED, Question

Powers = tuple[tuple[str, int], ...]  # of symbols
# The number under the square root; symbols that commute, sorted; matrices in their order: (3, (("x", 2),), ()) is
# sqrt(3) x^2, and (1, (), ()) is 1.
Monomial = tuple[int, Powers, Powers]
Sum = dict[Monomial, Fraction]  # with their coefficients, none of them zero
ONE: Monomial = (1, (), ())

# Bounds on time: an answer beyond them has no form.
MAX_TERMS, MAX_POWER, MAX_DIGITS, MAX_RADICAND, MAX_LENGTH, MAX_DEPTH, MAX_ROOT = 24, 16, 12, 10**8, 120, 20, 9
MAX_FACTORIAL, MAX_BINOMIAL = 20, 60
_FUNCTIONS = "arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|lg|log(?:_[0-9a-z])?|exp"
_TOKEN = re.compile(
    r"(?P<number>[0-9]+ [0-9]+/[0-9]+(?![0-9.])|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<root>sqrt|root[2-9])|(?P<choose>binom(?=\())"
    rf"|(?P<function>{_FUNCTIONS})|(?P<pi>pi)|(?P<greek>alpha|beta|gamma|delta|theta|lambda|omega|phi|sigma|Ω)"
    r"|(?P<letter>[a-zA-Z](?:_[0-9a-zA-Z])?)|(?P<sign>[-+*/^()!|°,])|(?P<blank> +)"
)
_KNOWN_WORD = re.compile(rf"sqrt|root[2-9]|binom|alpha|beta|gamma|delta|theta|lambda|omega|sigma|{_FUNCTIONS}")
_WORD = re.compile(r"[a-z]{5}")
_SINES = {0: (0, 1), 30: (1, 1), 45: (1, 2), 60: (1, 3), 90: (2, 1)}  # by degrees: (a, b) is a sqrt(b) / 2
_TANGENTS = {0: (0, 1), 30: (1, 3), 45: (3, 1), 60: (3, 3)}  # (a, b) is a sqrt(b) / 3
_LOGARITHM = re.compile(r"log_(?P<base>[0-9]{1,4})[ (]{1,2}(?P<argument>[0-9]{1,12})\)?")
_COMBINATIONS = re.compile(r"C_([0-9]{1,2})\^([0-9]{1,2})(?![0-9])|C\(([0-9]{1,2}), ?([0-9]{1,2})\)")
# Only these functions of plain numbers are worked out, and only as a whole expression.
_SINGLE = re.compile(r"-?[0-9.]+\^\(?-?[0-9/]+\)?|[0-9]{1,2}!|\|[-+0-9./ ]+\||binom\([0-9 ]+,[0-9 ]+\)")
_CAPITALS = re.compile("[A-Z]+")
_MATRICES = frozenset("ABCDMNPQXYZ")  # capitals that are not commonly quantities


class _NoForm(Exception):
    """The text is no expression of this module."""


class Value(NamedTuple):
    """top / bottom, where the bottom is 1 unless a sum was divided by."""

    top: Sum
    bottom: Sum


class Symbols(NamedTuple):
    """How capitals are read. ``segments``: AB and BA are one segment. ``matrices``: letters that do not commute."""

    segments: bool
    matrices: frozenset[str]


def same_expression(left: str, right: str, question: Question = UNASKED) -> bool:
    """Whether two plain texts are one expression, or one equation up to a factor."""
    left, right = (_COMBINATIONS.sub(_binomial, text) for text in (left, right))
    symbols = _symbols(left, right, question)
    try:
        if "=" in left and "=" in right:
            a, b = _left_minus_right(left, symbols), _left_minus_right(right, symbols)
            if not a or a.keys() != b.keys():
                return False
            factor = next(b[m] / a[m] for m in a)
            return all(b[m] == factor * a[m] for m in a)
        x, y = _parsed(left, symbols), _parsed(right, symbols)
        same = _multiplied(x.top, y.bottom) == _multiplied(y.top, x.bottom)
    except _NoForm:
        return False
    # A sum of plain numbers is not worked out; a root, a letter or a single power may be.
    comparable = re.search("[a-zA-Z]", left + right) or any(map(_SINGLE.fullmatch, (left, right)))
    return same and bool(comparable) and bool(x.top)


def in_radians(degrees: str) -> str:
    """ "90°" -> "90*pi/180", to be compared with an angle in radians."""
    return f"({degrees.replace('°', '')})*pi/180"


def _left_minus_right(equation: str, symbols: Symbols) -> Sum:
    sides = equation.split("=")
    if len(sides) != 2:
        raise _NoForm
    x, y = (_parsed(side, symbols) for side in sides)
    difference = _added(_multiplied(x.top, y.bottom), _multiplied(y.top, x.bottom), -1)
    lowest: dict[str, int] = {}  # y = 6/x is xy = 6
    for _, powers, _ in difference:
        for name, power in powers:
            lowest[name] = min(lowest.get(name, 0), power)
    return _multiplied(difference, {(1, tuple(sorted((n, -p) for n, p in lowest.items() if p)), ()): Fraction(1)})


def _symbols(left: str, right: str, question: Question) -> Symbols:
    """Pairs of capitals and no others are segments, as in AB*CD; where matrices are asked for, all are matrices."""
    runs = _CAPITALS.findall(f"{left} {right}")
    if question.about_matrices or question.about_directions:
        return Symbols(False, frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    if all(len(run) == 2 for run in runs) and not has_both_orders(left) and not has_both_orders(right):
        return Symbols(True, frozenset())
    return Symbols(False, _MATRICES)


# --- arithmetic of sums ---------------------------------------------------------------------------------------------


def _number(value: Fraction | int) -> Value:
    return Value({ONE: Fraction(value)} if value else {}, {ONE: Fraction(1)})


def _symbol(name: str, matrices: frozenset[str] = frozenset()) -> Value:
    powers = ((name, 1),)
    return Value({(1, (), powers) if name[0] in matrices else (1, powers, ()): Fraction(1)}, {ONE: Fraction(1)})


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
    for (root, symbols, word), x in a.items():
        for (other_root, other_symbols, other_word), y in b.items():
            factor, radicand = _simplified_root(root * other_root)
            powers = dict(symbols)
            for name, power in other_symbols:
                powers[name] = powers.get(name, 0) + power
            if any(abs(power) > MAX_POWER for power in powers.values()):
                raise _NoForm
            commuting = tuple(sorted((n, p) for n, p in powers.items() if p))
            monomial = radicand, commuting, _joined(word, other_word)
            total[monomial] = total.get(monomial, Fraction(0)) + x * y * factor
    return _checked(total)


def _joined(word: Powers, other: Powers) -> Powers:
    """Two products of matrices behind each other: A B and B^-1 C are A C."""
    joined = list(word)
    for name, power in other:
        if joined and joined[-1][0] == name:
            power += joined.pop()[1]
        if power:
            joined.append((name, power))
    if len(joined) > MAX_POWER:
        raise _NoForm
    return tuple(joined)


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


def _sum_of(x: Value, y: Value, sign: int) -> Value:
    if x.bottom == y.bottom:
        return Value(_added(x.top, y.top, sign), x.bottom)
    top = _added(_multiplied(x.top, y.bottom), _multiplied(y.top, x.bottom), sign)
    return Value(top, _multiplied(x.bottom, y.bottom))


def _product_of(x: Value, y: Value) -> Value:
    return Value(_multiplied(x.top, y.top), _multiplied(x.bottom, y.bottom))


def _inverse(x: Value) -> Value:
    """1 / x. One term is turned round; of a sum the bottom keeps it, unless its matrices would have to be."""
    if not x.top:
        raise _NoForm
    if len(x.top) == 1:
        ((radicand, symbols, word), value) = next(iter(x.top.items()))
        turned = tuple((name, -power) for name, power in reversed(word))
        monomial = (radicand, tuple((name, -power) for name, power in symbols), turned)
        return Value(_multiplied({monomial: 1 / (value * radicand)}, x.bottom), {ONE: Fraction(1)})
    if any(word for _, _, word in x.top):
        raise _NoForm
    return Value(x.bottom, x.top)


def _rational(x: Value) -> Fraction | None:
    """The number that a value is; None for one with symbols or roots."""
    return x.top.get(ONE, Fraction(0)) if x.bottom.keys() == {ONE} and x.top.keys() <= {ONE} else None


def _key(x: Value) -> str:
    """One text for all values that are equal, but for sums that a common factor would make equal."""
    first = x.bottom[min(x.bottom)]
    parts = (sorted((m, str(v / first)) for m, v in side.items()) for side in x)
    return str([part for part in parts if part != [(ONE, "1")]])


def _power(base: Value, exponent: Value) -> Value:
    value = _rational(exponent)
    if value is not None:
        whole, rest = divmod(abs(value.numerator), value.denominator)
        if whole > MAX_POWER or value.denominator > MAX_ROOT:
            raise _NoForm
        result = _number(1)
        for _ in range(whole):
            result = _product_of(result, base)
        for _ in range(rest):
            result = _product_of(result, _root(base, value.denominator))
        return _inverse(result) if value < 0 else result
    if len(exponent.bottom) > 1:
        raise _NoForm
    result = _number(1)
    for monomial, coefficient in sorted(exponent.top.items()):  # b^(x+1) is b^x b
        one = Value({monomial: coefficient}, exponent.bottom)
        if _rational(one) is not None:
            factor = _power(base, one)
        else:
            times = coefficient.numerator  # e^(2x) is (e^x)^2
            if abs(times) > MAX_POWER:
                raise _NoForm
            step = Value({monomial: Fraction(1, coefficient.denominator)}, exponent.bottom)
            powers = ((f"{_name(base)}^{_key(step)}", times),)
            is_word = any(word for _, _, word in base.top)
            factor = Value({(1, (), powers) if is_word else (1, powers, ()): Fraction(1)}, {ONE: Fraction(1)})
        result = _product_of(result, factor)
    return result


def _name(base: Value) -> str:
    """A symbol by its name, anything else by its key."""
    if len(base.top) == 1 and base.bottom.keys() == {ONE}:
        ((radicand, symbols, word), value) = next(iter(base.top.items()))
        if radicand == value == 1 and len(both := symbols + word) == 1 and both[0][1] == 1:
            return both[0][0]
    return _key(base)


def _root(x: Value, degree: int) -> Value:
    """The root of a number, for a square root always and else where it is rational; another becomes a symbol."""
    value = _rational(x)
    if value == 0:
        return x
    if value is not None:
        if degree == 2 and value > 0:  # sqrt(p/q) = sqrt(pq)/q
            factor, radicand = _simplified_root(value.numerator * value.denominator)
            return Value({(radicand, (), ()): Fraction(factor, value.denominator)}, {ONE: Fraction(1)})
        if degree > 2 and (value > 0 or degree % 2):
            top, bottom = (round(abs(n) ** (1 / degree)) for n in (value.numerator, value.denominator))
            if Fraction(top, bottom) ** degree == abs(value):
                return _number(Fraction(top if value > 0 else -top, bottom))
    if degree == 2 and value is None and x.bottom == {ONE: Fraction(1)}:  # sqrt(8x+4) is 2 sqrt(2x+1)
        content = Fraction(gcd(*(v.numerator for v in x.top.values())), lcm(*(v.denominator for v in x.top.values())))
        if content != 1:
            primitive = Value(_multiplied(x.top, {ONE: 1 / content}), x.bottom)
            return _product_of(_root(_number(content), 2), _root(primitive, 2))
    return _symbol(f"root{degree}{_key(x)}")


def _without_sign(x: Value) -> tuple[Value, int]:
    """A value whose first coefficient is positive, and the sign that was taken off."""
    if not x.top or x.top[min(x.top)] * x.bottom[min(x.bottom)] > 0:
        return x, 1
    return Value({m: -v for m, v in x.top.items()}, x.bottom), -1


def _absolute(x: Value) -> Value:
    positive, _ = _without_sign(x)
    return positive if _rational(x) is not None else _symbol(f"abs{_key(positive)}")


def _function(name: str, argument: Value, in_degrees: bool) -> Value:
    """A function's value; where no root of a small number is it, a symbol."""
    if name == "exp":
        return _power(_symbol("e"), argument)
    degrees = _degrees(argument, in_degrees)
    if name not in ("sin", "cos", "tan") or degrees is None:
        positive, sign = _without_sign(argument)
        odd = name in ("sin", "tan", "cot", "csc", "arcsin", "arctan")
        if odd or name in ("cos", "sec"):
            symbol = _symbol(f"{name}{'°' * in_degrees}{_key(positive)}")
            return _product_of(_number(sign if odd else 1), symbol)
        return _symbol(f"{name}{_key(argument)}")
    if name == "tan":
        within, sign = (degrees % 180, 1) if degrees % 180 < 90 else (180 - degrees % 180, -1)
        factor_and_root, divisor = _TANGENTS.get(within), 3
    else:
        degrees = (degrees + 90) % 360 if name == "cos" else degrees % 360  # cos x = sin(x + 90°)
        sign, divisor = -1 if degrees > 180 else 1, 2
        factor_and_root = _SINES.get(min(degrees % 180, 180 - degrees % 180))
    if factor_and_root is None:
        return _symbol(f"{name}°{degrees}")
    factor, root = factor_and_root
    return _number(0) if not factor else Value({(root, (), ()): Fraction(sign * factor, divisor)}, {ONE: Fraction(1)})


def _degrees(argument: Value, in_degrees: bool) -> int | None:
    """An angle that is a number of degrees, or of pi; None for another."""
    degrees = _rational(argument) if in_degrees else None
    if not in_degrees and argument.bottom.keys() == {ONE} and argument.top.keys() <= {(1, (("pi", 1),), ())}:
        degrees = 180 * sum(argument.top.values(), Fraction(0))
    return int(degrees) if degrees is not None and degrees.denominator == 1 and abs(degrees) < 10_000 else None


def _exact_logarithm(match: re.Match[str]) -> str:
    """ "log_2(8)" -> "3"; as it is where it is no whole number."""
    base, argument, power = int(match["base"]), int(match["argument"]), 0
    while base > 1 and argument > 1 and argument % base == 0:
        argument, power = argument // base, power + 1
    return str(power) if base > 1 and argument == 1 else match[0]


def _binomial(match: re.Match[str]) -> str:
    return f"binom({match[1] or match[3]},{match[2] or match[4]})"


# --- parsing --------------------------------------------------------------------------------------------------------


def _parsed(text: str, symbols: Symbols) -> Value:
    if len(text) > MAX_LENGTH or _WORD.search(_KNOWN_WORD.sub("", text)):
        raise _NoForm
    text = _LOGARITHM.sub(_exact_logarithm, text)
    tokens: list[tuple[str, str]] = []
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            raise _NoForm
        end = match.end()
        if match.lastgroup != "blank":
            tokens.append((str(match.lastgroup), match[0]))
    if end != len(text) or not tokens:
        raise _NoForm
    parser = _Parser(tokens, symbols)
    value = parser.sum()
    if parser.position != len(tokens):
        raise _NoForm
    return value


class _Parser:
    """Recursive descent over (kind, text) tokens, to a depth of ``MAX_DEPTH`` brackets, roots and signs."""

    def __init__(self, tokens: list[tuple[str, str]], symbols: Symbols) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0
        self.symbols = symbols
        self.in_degrees = False  # whether a degree sign was read since a function's name

    def next(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def take(self, *signs: str) -> str | None:
        """The next token if it is one of these signs, and step over it."""
        kind, text = self.next()
        if kind == "sign" and text in signs:
            self.position += 1
            return text
        return None

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise _NoForm

    def deeper(self, read: Callable[[], Value]) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoForm
        value = read()
        self.depth -= 1
        return value

    def sum(self) -> Value:
        total = self.product()
        while sign := self.take("+", "-"):
            total = _sum_of(total, self.product(), 1 if sign == "+" else -1)
        return total

    def product(self) -> Value:
        if sign := self.take("-", "+"):
            return _product_of(_number(-1 if sign == "-" else 1), self.deeper(self.product))
        value = self.power()
        while True:
            if sign := self.take("*", "/"):
                factor = self.signed_power()
                value = _product_of(value, _inverse(factor) if sign == "/" else factor)
            elif self.next()[0] in ("root", "function", "choose", "pi", "greek", "letter") or self.next()[1] == "(":
                value = _product_of(value, self.power())  # 2x, 3(x+1)
            else:
                return value

    def signed_power(self) -> Value:
        """A factor behind a sign: 2*-3."""
        sign = self.take("-")
        return _product_of(_number(-1), self.power()) if sign else self.power()

    def power(self) -> Value:
        base = self.postfixed(self.atom())
        if not self.take("^"):
            return base
        sign = self.take("-", "+")
        exponent = self.postfixed(self.atom())
        return _power(base, _product_of(_number(-1), exponent) if sign == "-" else exponent)

    def postfixed(self, value: Value) -> Value:
        while sign := self.take("!", "°"):
            if sign == "°":
                self.in_degrees = True
                continue
            number = _rational(value)
            if number is None:
                value = _symbol(f"factorial{_key(value)}")
            elif number.denominator == 1 and 0 <= number <= MAX_FACTORIAL:
                value = _number(factorial(int(number)))
            else:
                raise _NoForm
        return value

    def atom(self) -> Value:
        kind, text = self.next()
        self.position += 1
        if kind == "number" and len(text) <= 2 * MAX_DIGITS:
            whole, _, fraction = text.rpartition(" ")
            if fraction.endswith("/0"):
                raise _NoForm
            return _number(int(whole or 0) + Fraction(fraction))
        if kind in ("pi", "greek"):
            return _symbol(text)
        if kind == "letter":
            return self.letter(text)
        if kind == "root":
            return _root(self.deeper(self.atom), 2 if text == "sqrt" else int(text[-1]))
        if kind == "function":
            return self.function(text)
        if kind == "choose":
            return self.binomial()
        if text == "(":
            value = self.deeper(self.sum)
            self.need(")")
            return value
        if text == "|":
            value = self.deeper(self.sum)
            self.need("|")
            return _absolute(value)
        raise _NoForm

    def letter(self, text: str) -> Value:
        following = self.next()[1]
        if self.symbols.segments and text.isupper() and len(text) == 1 and len(following) == 1 and following.isupper():
            self.position += 1
            return _symbol("".join(sorted(text + following)))
        return _symbol(text, self.symbols.matrices)

    def function(self, name: str) -> Value:
        """sin(x), sin x, sin 2x, sin^2 x."""
        exponent = self.deeper(self.exponent) if self.take("^") else _number(1)
        if _rational(exponent) == -1 and name in ("sin", "cos", "tan"):
            name, exponent = f"arc{name}", _number(1)
        self.in_degrees = False
        argument = self.deeper(self.argument)
        value = _function(name, argument, self.in_degrees)
        return _power(value, exponent) if exponent.top != {ONE: Fraction(1)} else value

    def exponent(self) -> Value:
        sign = self.take("-")
        value = self.atom()
        return _product_of(_number(-1), value) if sign else value

    def argument(self) -> Value:
        if self.next()[1] == "(":
            return self.postfixed(self.atom())
        value = self.signed_power()
        while self.next()[0] in ("pi", "greek", "letter"):
            value = _product_of(value, self.power())
        if self.tokens[self.position - 1][0] == "pi" and self.take("/"):  # sin pi/6
            value = _product_of(value, _inverse(self.atom()))
        return value

    def binomial(self) -> Value:
        self.need("(")
        above = self.deeper(self.sum)
        self.need(",")
        below = self.deeper(self.sum)
        self.need(")")
        n, k = _rational(above), _rational(below)
        if n is None or k is None:
            return _symbol(f"binom{_key(above)}{_key(below)}")
        if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= MAX_BINOMIAL:
            raise _NoForm
        return _number(comb(int(n), int(k)))
