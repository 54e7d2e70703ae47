"""Numbers with an optional unit, in exact fractions: "-1 1/2 cm", "1,200", "5万", "3*10^5", "3 dozen", "3 h 30 min"."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from mathse.scoring.answers.numerals import SCALES, add_parts, read_numeral
from mathse.scoring.answers.plain import HAN
from mathse.scoring.answers.question import UNASKED, Question
from mathse.scoring.answers.units import CURRENCIES, NO_UNIT, PERCENT, Unit, find_measure, find_unit, list_part_units

_NEGATIVE = ("负", "零下", "negative ", "minus ")
_BELOW_ZERO = re.compile(r" below (?:zero|0)$")
_NUMBER = re.compile(
    r"(?P<money>＄|[¥€£])? ?(?P<sign>[-+]?) ?(?P<inside>＄)?(?:(?P<whole>[0-9]+) (?=[0-9]+ ?/))?"
    r"(?P<top>[0-9]{1,3}(?:(?:,[0-9]{3})+(?![0-9])|(?: [0-9]{3})+(?![0-9]))(?:\.[0-9]+)?|[0-9]+\.?[0-9]*|\.[0-9]+)"
    r"(?: ?/ ?(?P<bottom>-?[0-9]+(?:\.[0-9]+)?))?"
)
_POWER_OF_TEN = re.compile(r" ?(?:\* ?10 ?\^ ?(?:\{|\()?|[eE])(?P<exponent>[-+]?[0-9]{1,3})(?:\}|\))?(?![0-9.])")
_TEN_TO_THE = re.compile(r"^([-+]?)(?=10 ?\^)")
_SCALE = re.compile(rf" ?({'|'.join(SCALES)})(?![a-z])(?<!千(?=[克米瓦帕焦卡]))", re.IGNORECASE)  # 千克, 千米 are units
_TENTHS = re.compile("[折成]")  # 8折: 80 % of the price
_NUMERIC = re.compile(r"(?:sqrt|root[2-9]|pi|[-+*/^()0-9. ])*(?<=[)0-9i ])")
# A part of "3 h 30 min" or "3小时20分".
_PART = re.compile(rf"(?:and )?([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]{{1,10}}|[{HAN}]{{1,3}}),? ?")
_MAX_PARTS = 4


class Quantity(NamedTuple):
    """A value and its unit, None without a unit."""

    value: Fraction
    unit: Unit | None


def read_quantity(plain: str, question: Question = UNASKED) -> Quantity | None:
    """Read a plain text as a quantity; None unless it is a single number with at most a unit."""
    text = plain.casefold()
    sign = next((sign for sign in _NEGATIVE if text.startswith(sign)), "")
    below = _BELOW_ZERO.search(text)
    if sign and below:
        return None
    bare = plain[len(sign) : below.start() if below else None].strip()
    for read in (_read_parts, _read_words, _read_digits):
        if (size := read(bare, question)) is not None:
            return Quantity(-size.value, size.unit) if sign or below else size
    return None


def _read_words(plain: str, question: Question) -> Quantity | None:
    """Read a number in words: "三分之二", "百分之五十", "twenty-one", "一百二十", "两个半", "0.333..."."""
    text = plain.casefold()
    numeral = read_numeral(text)
    if numeral is None:
        return None
    value, rest = numeral.value, plain[numeral.end :]
    if numeral.percent:
        return None if rest else Quantity(value, PERCENT)
    if rest and rest[0] not in " 半" and not text[0].isascii() and not _fits_numeral(rest, question):
        return None
    return _add_unit(value, rest, None, question)


def _read_digits(plain: str, question: Question) -> Quantity | None:
    """Read a number in digits, with a power of ten, a scale, a unit or a currency."""
    match = _NUMBER.match(_TEN_TO_THE.sub(r"\g<1>1*", plain))
    if match is None or Fraction(match["bottom"] or 1) == 0 or match["money"] and match["inside"]:
        return None
    top, bottom = Fraction(match["top"].replace(",", "").replace(" ", "")), Fraction(match["bottom"] or 1)
    value, rest = int(match["whole"] or 0) + top / bottom, match.string[match.end() :]
    if power := _POWER_OF_TEN.match(rest):  # "*10^5"
        value, rest = value * Fraction(10) ** int(power["exponent"]), rest[power.end() :]
    elif scale := _SCALE.match(rest):  # "万元" -> 10000, "元"
        value, rest = value * SCALES[scale[1].casefold()], rest[scale.end() :]
    elif _TENTHS.fullmatch(rest) and not question.counts([rest]):
        value, rest = value * 10, "%"
    value, end, _ = add_parts(rest.casefold(), value, 0)
    money = CURRENCIES.get(match["money"] or match["inside"] or "")
    return _add_unit(-value if match["sign"] == "-" else value, rest[end:], money, question)


def are_equal_quantities(
    left: Quantity, right: Quantity, tolerance: Fraction = Fraction(0), question: Question = UNASKED
) -> bool:
    """Compare two quantities.

    A unit on a single side is ignored, units of the same kind are converted, and other units differ. 50% is 0.5, and 50
    too; 0.25% is not 0.25, unless the question asks for percents.

    Args:
        tolerance: allowed difference, as a share of ``right``.
    """

    def equal(value: Fraction, reference: Fraction) -> bool:
        return abs(value - reference) <= tolerance * abs(reference)

    if left.unit and right.unit:
        return left.unit.powers == right.unit.powers and equal(
            left.value * left.unit.size, right.value * right.unit.size
        )
    if PERCENT not in (left.unit, right.unit):
        return equal(left.value, right.value)
    # One side is a percentage: compare as shares, or the bare number with the percents.
    shares = (q.value / 100 if q.unit == PERCENT else q.value for q in (left, right))
    bare = left.value if right.unit == PERCENT else right.value
    return equal(*shares) or (abs(bare) > 1 or question.about_percent) and equal(left.value, right.value)


def split_unit(plain: str) -> tuple[str, Unit | None]:
    """Split an expression of numbers, roots and pi from its unit: "2sqrt(3) cm" gives ("2sqrt(3)", cm).

    Any other text gives (plain, None).
    """
    number = _NUMERIC.match(plain)
    rest = plain[number.end() :] if number else ""
    unit = find_measure(rest.strip()) if rest.strip() and (len(rest) > 1 or rest in "mgs°%") else None
    if number is None or unit is None:
        return plain, None
    return number[0].strip(), None if unit == NO_UNIT else unit


def _add_unit(value: Fraction, rest: str, money: Unit | None, question: Question) -> Quantity | None:
    if not rest:
        return Quantity(value, money)
    # 半 is a half: 3个半.
    if rest.startswith("半") or rest.endswith("半") and len(rest) == 2:
        value, rest = value + Fraction(1, 2), rest.strip("半")
    unit = find_unit(rest, value, question) if rest else NO_UNIT
    if unit is None or money is not None and unit != money:
        return None
    return Quantity(value, None if unit == NO_UNIT else unit)


def _fits_numeral(rest: str, question: Question) -> bool:
    """Whether a noun may follow a Chinese numeral: 二人 is 2, and 三角形 is not 3."""
    return find_measure(rest) is not None or rest[0] in "个人只条名位次" or question.counts([rest])


def _read_parts(plain: str, _: Question) -> Quantity | None:
    """Read parts of the same kind from the largest unit to the smallest: "3 h 30 min", "5 ft 6 in", "2小时15分钟"."""
    parts: list[tuple[Fraction, tuple[Unit, ...]]] = []
    end = 0
    while len(parts) < _MAX_PARTS and (match := _PART.match(plain, end)):
        units = tuple(list_part_units(match[2]))
        if not units:
            return None
        parts.append((Fraction(match[1]), units))
        end = match.end()
    if end != len(plain) or len(parts) < 2:
        return None
    # A short unit may have several meanings: take the first combination of a single kind with falling sizes.
    for units in product(*(units for _, units in parts)):
        sizes = [unit.size for unit in units]
        if len({unit.powers for unit in units}) == 1 and sizes == sorted(set(sizes), reverse=True):
            total = sum((value * size for (value, _), size in zip(parts, sizes, strict=True)), Fraction(0))
            return Quantity(total / sizes[-1], units[-1])
    return None
