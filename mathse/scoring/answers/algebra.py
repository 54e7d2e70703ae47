"""Expressions as fractions of sums of products with exact coefficients: 2/sqrt(3) is 2sqrt(3)/3, and 2x+1 is 1+2x.

Letters keep their case, and products of matrices their order. A function gets a value only if such a sum can express
it: sine, cosine, tangent of the usual angles, whole logarithms, factorials, binomials, absolute values of numbers;
sin(x) is a symbol. A text without such a form (more than ``MAX_TERMS`` terms, words) equals only the same
text. A sum of plain numbers is not evaluated: "2+3" is no answer to a question with the answer 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import comb, factorial, gcd, isqrt, lcm
from typing import NamedTuple

from mathse.scoring.answers.names import has_both_orders
from mathse.scoring.answers.question import UNASKED, Question

Powers = tuple[tuple[str, int], ...]  # (symbol, exponent)
# (radicand of the square root, sorted powers of commuting symbols, powers of matrices in their order):
# (3, (("x", 2),), ()) is sqrt(3) x^2, and (1, (), ()) is 1.
Monomial = tuple[int, Powers, Powers]
Sum = dict[Monomial, Fraction]  # coefficients by monomial; no coefficient is zero
ONE: Monomial = (1, (), ())

# Bounds on time: an answer beyond them has no form. MAX_LENGTH counts characters.
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
# Values by degrees: (a, b) stands for a sqrt(b) / 2 in _SINES, and for a sqrt(b) / 3 in _TANGENTS.
_SINES = {0: (0, 1), 30: (1, 1), 45: (1, 2), 60: (1, 3), 90: (2, 1)}
_TANGENTS = {0: (0, 1), 30: (1, 3), 45: (3, 1), 60: (3, 3)}
_LOGARITHM = re.compile(r"log_(?P<base>[0-9]{1,4})[ (]{1,2}(?P<argument>[0-9]{1,12})\)?")
_COMBINATIONS = re.compile(r"C_([0-9]{1,2})\^([0-9]{1,2})(?![0-9])|C\(([0-9]{1,2}), ?([0-9]{1,2})\)")
# Only these functions of plain numbers are evaluated, and only as a whole expression.
_SINGLE = re.compile(r"-?[0-9.]+\^\(?-?[0-9/]+\)?|[0-9]{1,2}!|\|[-+0-9./ ]+\||binom\([0-9 ]+,[0-9 ]+\)")
_CAPITALS = re.compile("[A-Z]+")
_MATRICES = frozenset("ABCDMNPQXYZ")  # capitals that rarely name a quantity


class _NoForm(Exception):
    """The text has no normal form in this module."""


class Quotient(NamedTuple):
    """The value top / bottom. The bottom is 1 unless the expression divides by a sum."""

    top: Sum
    bottom: Sum


class Symbols(NamedTuple):
    """The meaning of capitals. ``segments``: AB and BA are the same segment. ``matrices``: letters that do not
    commute."""

    segments: bool
    matrices: frozenset[str]


def same_expression(left: str, right: str, question: Question = UNASKED) -> bool:
    """Whether two plain texts are the same expression, or the same equation up to a factor."""
    left, right = _COMBINATIONS.sub(_write_binomial, left), _COMBINATIONS.sub(_write_binomial, right)
    symbols = _choose_symbols(left, right, question)
    try:
        if "=" in left and "=" in right:
            a, b = _subtract_sides(left, symbols), _subtract_sides(right, symbols)
            if not a or a.keys() != b.keys():
                return False
            # Equal equations differ by a constant factor in all coefficients.
            factor = next(b[m] / a[m] for m in a)
            return all(b[m] == factor * a[m] for m in a)
        # Cross-multiply: two fractions are equal if the products of top and other bottom are.
        x, y = _parse(left, symbols), _parse(right, symbols)
        same = _multiply(x.top, y.bottom) == _multiply(y.top, x.bottom)
    except _NoForm:
        return False
    # A sum of plain numbers is not evaluated. An expression with a root, a letter or a single power is.
    comparable = re.search("[a-zA-Z]", left + right) or any(map(_SINGLE.fullmatch, (left, right)))
    return same and bool(comparable) and bool(x.top)


def to_radians(degrees: str) -> str:
    """Write "90°" as "90*pi/180", for a comparison with an angle in radians."""
    return f"({degrees.replace('°', '')})*pi/180"


def _subtract_sides(equation: str, symbols: Symbols) -> Sum:
    """Bring an equation into the form sum = 0, without negative powers: y = 6/x and xy = 6 are the same sum."""
    sides = equation.split("=")
    if len(sides) != 2:
        raise _NoForm
    x, y = (_parse(side, symbols) for side in sides)
    difference = _add(_multiply(x.top, y.bottom), _multiply(y.top, x.bottom), -1)
    # Multiply by the symbols that the sum divides by.
    lowest: dict[str, int] = {}  # lowest exponent, by symbol
    for _, powers, _ in difference:
        for name, power in powers:
            lowest[name] = min(lowest.get(name, 0), power)
    return _multiply(difference, {(1, tuple(sorted((n, -p) for n, p in lowest.items() if p)), ()): Fraction(1)})


def _choose_symbols(left: str, right: str, question: Question) -> Symbols:
    """Decide the meaning of capitals.

    All capitals are matrices if the question asks for matrices or vectors. They are segments if they come in pairs
    only, as in AB*CD.
    """
    runs = _CAPITALS.findall(f"{left} {right}")
    if question.about_matrices or question.about_directions:
        return Symbols(False, frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    if all(len(run) == 2 for run in runs) and not has_both_orders(left) and not has_both_orders(right):
        return Symbols(True, frozenset())
    return Symbols(False, _MATRICES)


# --- arithmetic of sums ---------------------------------------------------------------------------------------------


def _make_number(value: Fraction | int) -> Quotient:
    return Quotient({ONE: Fraction(value)} if value else {}, {ONE: Fraction(1)})


def _make_symbol(name: str, matrices: frozenset[str] = frozenset()) -> Quotient:
    powers = ((name, 1),)
    return Quotient({(1, (), powers) if name[0] in matrices else (1, powers, ()): Fraction(1)}, {ONE: Fraction(1)})


def _add(a: Sum, b: Sum, factor: int = 1) -> Sum:
    total = dict(a)
    for monomial, value in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + factor * value
    return _drop_zeros(total)


def _drop_zeros(total: Sum) -> Sum:
    """Drop the terms that cancelled out. Raises _NoForm beyond the bounds."""
    total = {m: v for m, v in total.items() if v}
    if len(total) > MAX_TERMS or any(len(str(v)) > 4 * MAX_DIGITS for v in total.values()):
        raise _NoForm
    return total


def _multiply(a: Sum, b: Sum) -> Sum:
    total: Sum = {}
    for (root, symbols, word), x in a.items():
        for (other_root, other_symbols, other_word), y in b.items():
            factor, radicand = _simplify_root(root * other_root)
            powers = dict(symbols)
            for name, power in other_symbols:
                powers[name] = powers.get(name, 0) + power
            if any(abs(power) > MAX_POWER for power in powers.values()):
                raise _NoForm
            commuting = tuple(sorted((n, p) for n, p in powers.items() if p))
            monomial = radicand, commuting, _join_words(word, other_word)
            total[monomial] = total.get(monomial, Fraction(0)) + x * y * factor
    return _drop_zeros(total)


def _join_words(word: Powers, other: Powers) -> Powers:
    """Concatenate two products of matrices: A B and B^-1 C make A C."""
    joined = list(word)
    for name, power in other:
        if joined and joined[-1][0] == name:
            power += joined.pop()[1]
        if power:
            joined.append((name, power))
    if len(joined) > MAX_POWER:
        raise _NoForm
    return tuple(joined)


def _simplify_root(number: int) -> tuple[int, int]:
    """Move squares out of the square root of a positive number: sqrt(12) = 2 sqrt(3) gives (2, 3).

    Divisors below 1,000 are moved out, and a larger divisor only if it leaves 1 under the root: a bound on time.
    """
    if number > MAX_RADICAND:
        raise _NoForm
    factor, divisor = 1, 2
    while divisor * divisor <= number and divisor < 1_000:
        if number % (divisor * divisor) == 0:
            factor, number = factor * divisor, number // (divisor * divisor)
        else:
            divisor += 1
    whole = isqrt(number)
    return (factor * whole, 1) if whole * whole == number else (factor, number)


def _add_values(x: Quotient, y: Quotient, sign: int) -> Quotient:
    if x.bottom == y.bottom:
        return Quotient(_add(x.top, y.top, sign), x.bottom)
    top = _add(_multiply(x.top, y.bottom), _multiply(y.top, x.bottom), sign)
    return Quotient(top, _multiply(x.bottom, y.bottom))


def _multiply_values(x: Quotient, y: Quotient) -> Quotient:
    return Quotient(_multiply(x.top, y.top), _multiply(x.bottom, y.bottom))


def _invert(x: Quotient) -> Quotient:
    """Invert x. A single term gets negative powers; a sum becomes the bottom. Raises _NoForm for a sum of matrices."""
    if not x.top:
        raise _NoForm
    if len(x.top) == 1:
        ((radicand, symbols, word), value) = next(iter(x.top.items()))
        # 1 / sqrt(r) is sqrt(r) / r, and (A B)^-1 is B^-1 A^-1.
        matrices = tuple((name, -power) for name, power in reversed(word))
        monomial = (radicand, tuple((name, -power) for name, power in symbols), matrices)
        return Quotient(_multiply({monomial: 1 / (value * radicand)}, x.bottom), {ONE: Fraction(1)})
    if any(word for _, _, word in x.top):
        raise _NoForm
    return Quotient(x.bottom, x.top)


def _to_fraction(x: Quotient) -> Fraction | None:
    """Convert a value without symbols and roots to a number; None for any other value."""
    return x.top.get(ONE, Fraction(0)) if x.bottom.keys() == {ONE} and x.top.keys() <= {ONE} else None


def _make_key(x: Quotient) -> str:
    """Make a text that equal values share, as part of a symbol's name.

    Two fractions that a common factor of top and bottom would make equal get different texts.
    """
    first = x.bottom[min(x.bottom)]
    parts = (sorted((m, str(v / first)) for m, v in side.items()) for side in x)
    return str([part for part in parts if part != [(ONE, "1")]])


def _raise_to(base: Quotient, exponent: Quotient) -> Quotient:
    """Raise a value to a power: by repeated products and roots for a rational exponent, else as symbols."""
    value = _to_fraction(exponent)
    if value is not None:
        # x^(5/2) is x^2 sqrt(x).
        whole, rest = divmod(abs(value.numerator), value.denominator)
        if whole > MAX_POWER or value.denominator > MAX_ROOT:
            raise _NoForm
        result = _make_number(1)
        for _ in range(whole):
            result = _multiply_values(result, base)
        for _ in range(rest):
            result = _multiply_values(result, _take_root(base, value.denominator))
        return _invert(result) if value < 0 else result
    if len(exponent.bottom) > 1:
        raise _NoForm
    # Split the exponent into its terms: b^(x+1) is b^x b.
    result = _make_number(1)
    for monomial, coefficient in sorted(exponent.top.items()):
        term = Quotient({monomial: coefficient}, exponent.bottom)
        if _to_fraction(term) is not None:
            factor = _raise_to(base, term)
        else:
            # Move the whole number out of the term: e^(2x) is the square of the symbol e^x.
            times = coefficient.numerator
            if abs(times) > MAX_POWER:
                raise _NoForm
            step = Quotient({monomial: Fraction(1, coefficient.denominator)}, exponent.bottom)
            powers = ((f"{_name_base(base)}^{_make_key(step)}", times),)
            is_word = any(word for _, _, word in base.top)
            factor = Quotient({(1, (), powers) if is_word else (1, powers, ()): Fraction(1)}, {ONE: Fraction(1)})
        result = _multiply_values(result, factor)
    return result


def _name_base(base: Quotient) -> str:
    """Name the base of a symbolic power: a single symbol by its name, any other value by its key."""
    if len(base.top) == 1 and base.bottom.keys() == {ONE}:
        ((radicand, symbols, word), value) = next(iter(base.top.items()))
        if radicand == value == 1 and len(both := symbols + word) == 1 and both[0][1] == 1:
            return both[0][0]
    return _make_key(base)


def _take_root(x: Quotient, degree: int) -> Quotient:
    """Take a root. Square roots of positive numbers and rational roots are exact; any other root becomes a symbol."""
    value = _to_fraction(x)
    if value == 0:
        return x
    if value is not None:
        if degree == 2 and value > 0:
            # sqrt(p/q) = sqrt(pq)/q
            factor, radicand = _simplify_root(value.numerator * value.denominator)
            return Quotient({(radicand, (), ()): Fraction(factor, value.denominator)}, {ONE: Fraction(1)})
        if degree > 2 and (value > 0 or degree % 2):
            # Round the floating-point root, then check it exactly.
            top, bottom = (round(abs(n) ** (1 / degree)) for n in (value.numerator, value.denominator))
            if Fraction(top, bottom) ** degree == abs(value):
                return _make_number(Fraction(top if value > 0 else -top, bottom))
    if degree == 2 and value is None and x.bottom == {ONE: Fraction(1)}:
        # Move the common factor of the coefficients out: sqrt(8x+4) is 2 sqrt(2x+1).
        content = Fraction(gcd(*(v.numerator for v in x.top.values())), lcm(*(v.denominator for v in x.top.values())))
        if content != 1:
            primitive = Quotient(_multiply(x.top, {ONE: 1 / content}), x.bottom)
            return _multiply_values(_take_root(_make_number(content), 2), _take_root(primitive, 2))
    return _make_symbol(f"root{degree}{_make_key(x)}")


def _split_sign(x: Quotient) -> tuple[Quotient, int]:
    """Split a value into one with a positive first coefficient, and its sign."""
    if not x.top or x.top[min(x.top)] * x.bottom[min(x.bottom)] > 0:
        return x, 1
    return Quotient({m: -v for m, v in x.top.items()}, x.bottom), -1


def _take_absolute(x: Quotient) -> Quotient:
    positive, _ = _split_sign(x)
    return positive if _to_fraction(x) is not None else _make_symbol(f"abs{_make_key(positive)}")


def _apply_function(name: str, argument: Quotient, in_degrees: bool) -> Quotient:
    """Evaluate a function at the usual angles; at any other argument it becomes a symbol."""
    if name == "exp":
        return _raise_to(_make_symbol("e"), argument)
    degrees = _to_degrees(argument, in_degrees)
    if name not in ("sin", "cos", "tan") or degrees is None:
        # sin(-x) is -sin(x), and cos(-x) is cos(x).
        positive, sign = _split_sign(argument)
        odd = name in ("sin", "tan", "cot", "csc", "arcsin", "arctan")
        if odd or name in ("cos", "sec"):
            symbol = _make_symbol(f"{name}{'°' * in_degrees}{_make_key(positive)}")
            return _multiply_values(_make_number(sign if odd else 1), symbol)
        return _make_symbol(f"{name}{_make_key(argument)}")
    if name == "tan":
        # Tangent has the period 180°, and tan(180° - x) is -tan(x).
        within, sign = (degrees % 180, 1) if degrees % 180 < 90 else (180 - degrees % 180, -1)
        factor_and_root, divisor = _TANGENTS.get(within), 3
    else:
        # cos x = sin(x + 90°), sin(180° - x) = sin x, and the sine is negative from 180° on.
        degrees = (degrees + 90) % 360 if name == "cos" else degrees % 360
        sign, divisor = -1 if degrees > 180 else 1, 2
        factor_and_root = _SINES.get(min(degrees % 180, 180 - degrees % 180))
    if factor_and_root is None:
        return _make_symbol(f"{name}°{degrees}")
    factor, root = factor_and_root
    if not factor:
        return _make_number(0)
    return Quotient({(root, (), ()): Fraction(sign * factor, divisor)}, {ONE: Fraction(1)})


def _to_degrees(argument: Quotient, in_degrees: bool) -> int | None:
    """Convert an angle to whole degrees, from degrees or from a multiple of pi; None for any other argument."""
    degrees = _to_fraction(argument) if in_degrees else None
    if not in_degrees and argument.bottom.keys() == {ONE} and argument.top.keys() <= {(1, (("pi", 1),), ())}:
        degrees = 180 * sum(argument.top.values(), Fraction(0))
    return int(degrees) if degrees is not None and degrees.denominator == 1 and abs(degrees) < 10_000 else None


def _replace_logarithm(match: re.Match[str]) -> str:
    """Replace "log_2(8)" by "3". A logarithm that is no whole number stays."""
    base, argument, power = int(match["base"]), int(match["argument"]), 0
    while base > 1 and argument > 1 and argument % base == 0:
        argument, power = argument // base, power + 1
    return str(power) if base > 1 and argument == 1 else match[0]


def _write_binomial(match: re.Match[str]) -> str:
    return f"binom({match[1] or match[3]},{match[2] or match[4]})"


# --- parsing --------------------------------------------------------------------------------------------------------


def _parse(text: str, symbols: Symbols) -> Quotient:
    """Parse a plain text to its normal form. Raises _NoForm for words, other signs, and beyond the bounds."""
    if len(text) > MAX_LENGTH or _WORD.search(_KNOWN_WORD.sub("", text)):
        raise _NoForm
    text = _LOGARITHM.sub(_replace_logarithm, text)
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
    value = parser.read_sum()
    if parser.position != len(tokens):
        raise _NoForm
    return value


class _Parser:
    """Recursive descent parser over (kind, text) tokens, to a depth of ``MAX_DEPTH`` brackets, roots and signs."""

    def __init__(self, tokens: list[tuple[str, str]], symbols: Symbols) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0
        self.symbols = symbols
        self.in_degrees = False  # whether a degree sign follows the name of the function

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def take(self, *signs: str) -> str | None:
        """Consume the next token if it is one of these signs, and return it."""
        kind, text = self.peek()
        if kind == "sign" and text in signs:
            self.position += 1
            return text
        return None

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise _NoForm

    def descend(self, read: Callable[[], Quotient]) -> Quotient:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoForm
        value = read()
        self.depth -= 1
        return value

    def read_sum(self) -> Quotient:
        total = self.read_product()
        while sign := self.take("+", "-"):
            total = _add_values(total, self.read_product(), 1 if sign == "+" else -1)
        return total

    def read_product(self) -> Quotient:
        if sign := self.take("-", "+"):
            return _multiply_values(_make_number(-1 if sign == "-" else 1), self.descend(self.read_product))
        value = self.read_power()
        while True:
            if sign := self.take("*", "/"):
                factor = self.read_signed_power()
                value = _multiply_values(value, _invert(factor) if sign == "/" else factor)
            elif self.peek()[0] in ("root", "function", "choose", "pi", "greek", "letter") or self.peek()[1] == "(":
                value = _multiply_values(value, self.read_power())  # 2x, 3(x+1)
            else:
                return value

    def read_signed_power(self) -> Quotient:
        """Read a factor that may have a sign of its own: 2*-3."""
        sign = self.take("-")
        return _multiply_values(_make_number(-1), self.read_power()) if sign else self.read_power()

    def read_power(self) -> Quotient:
        base = self.read_postfix(self.read_atom())
        if not self.take("^"):
            return base
        sign = self.take("-", "+")
        exponent = self.read_postfix(self.read_atom())
        return _raise_to(base, _multiply_values(_make_number(-1), exponent) if sign == "-" else exponent)

    def read_postfix(self, value: Quotient) -> Quotient:
        while sign := self.take("!", "°"):
            if sign == "°":
                self.in_degrees = True
                continue
            number = _to_fraction(value)
            if number is None:
                value = _make_symbol(f"factorial{_make_key(value)}")
            elif number.denominator == 1 and 0 <= number <= MAX_FACTORIAL:
                value = _make_number(factorial(int(number)))
            else:
                raise _NoForm
        return value

    def read_atom(self) -> Quotient:
        kind, text = self.peek()
        self.position += 1
        if kind == "number" and len(text) <= 2 * MAX_DIGITS:
            whole, _, fraction = text.rpartition(" ")
            if fraction.endswith("/0"):
                raise _NoForm
            return _make_number(int(whole or 0) + Fraction(fraction))
        if kind in ("pi", "greek"):
            return _make_symbol(text)
        if kind == "letter":
            return self.read_letter(text)
        if kind == "root":
            return _take_root(self.descend(self.read_atom), 2 if text == "sqrt" else int(text[-1]))
        if kind == "function":
            return self.read_function(text)
        if kind == "choose":
            return self.read_binomial()
        if text == "(":
            value = self.descend(self.read_sum)
            self.expect(")")
            return value
        if text == "|":
            value = self.descend(self.read_sum)
            self.expect("|")
            return _take_absolute(value)
        raise _NoForm

    def read_letter(self, text: str) -> Quotient:
        following = self.peek()[1]
        if self.symbols.segments and text.isupper() and len(text) == 1 and len(following) == 1 and following.isupper():
            self.position += 1
            return _make_symbol("".join(sorted(text + following)))
        return _make_symbol(text, self.symbols.matrices)

    def read_function(self, name: str) -> Quotient:
        """Read the exponent and the argument of a function: sin(x), sin x, sin 2x, sin^2 x, sin^-1 x."""
        exponent = self.descend(self.read_exponent) if self.take("^") else _make_number(1)
        if _to_fraction(exponent) == -1 and name in ("sin", "cos", "tan"):
            name, exponent = f"arc{name}", _make_number(1)
        self.in_degrees = False
        argument = self.descend(self.read_argument)
        value = _apply_function(name, argument, self.in_degrees)
        return _raise_to(value, exponent) if exponent.top != {ONE: Fraction(1)} else value

    def read_exponent(self) -> Quotient:
        sign = self.take("-")
        value = self.read_atom()
        return _multiply_values(_make_number(-1), value) if sign else value

    def read_argument(self) -> Quotient:
        if self.peek()[1] == "(":
            return self.read_postfix(self.read_atom())
        value = self.read_signed_power()
        while self.peek()[0] in ("pi", "greek", "letter"):
            value = _multiply_values(value, self.read_power())
        if self.tokens[self.position - 1][0] == "pi" and self.take("/"):  # sin pi/6
            value = _multiply_values(value, _invert(self.read_atom()))
        return value

    def read_binomial(self) -> Quotient:
        self.expect("(")
        above = self.descend(self.read_sum)
        self.expect(",")
        below = self.descend(self.read_sum)
        self.expect(")")
        n, k = _to_fraction(above), _to_fraction(below)
        if n is None or k is None:
            return _make_symbol(f"binom{_make_key(above)}{_make_key(below)}")
        if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= MAX_BINOMIAL:
            raise _NoForm
        return _make_number(comb(int(n), int(k)))
