"""A number with at most a unit: "-1 1/2 cm", "1,200", "5万", "3*10^5", "3 dozen", "3 h 30 min"; in exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from mathse.scoring.answers.numerals import SCALES, leading_numeral, with_parts
from mathse.scoring.answers.plain import HAN
from mathse.scoring.answers.question import UNASKED, Question
from mathse.scoring.answers.units import CURRENCIES, NO_UNIT, PERCENT, Unit, measured, part_units, unit_of

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
# of "3 h 30 min", "3小时20分"
_PART = re.compile(rf"(?:and )?([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]{{1,10}}|[{HAN}]{{1,3}}),? ?")
_MAX_PARTS = 4


class Quantity(NamedTuple):
    """A value and its unit; None for none."""

    value: Fraction
    unit: Unit | None


def quantity(plain: str, question: Question = UNASKED) -> Quantity | None:
    """The quantity that a plain text is; None for anything that is not one number with at most a unit."""
    text = plain.casefold()
    sign = next((sign for sign in _NEGATIVE if text.startswith(sign)), "")
    below = _BELOW_ZERO.search(text)
    if sign and below:
        return None
    bare = plain[len(sign) : below.start() if below else None].strip()
    for read in (_in_parts, _spelt_out, _in_digits):
        if (found := read(bare, question)) is not None:
            return Quantity(-found.value, found.unit) if sign or below else found
    return None


def _spelt_out(plain: str, question: Question) -> Quantity | None:
    """ "三分之二", "百分之五十", "twenty-one", "一百二十", "两个半", "0.333...", with at most a unit."""
    text = plain.casefold()
    numeral = leading_numeral(text)
    if numeral is None:
        return None
    value, rest = numeral.value, plain[numeral.end :]
    if numeral.percent:
        return None if rest else Quantity(value, PERCENT)
    if rest and rest[0] not in " 半" and not text[0].isascii() and not _fits_numeral(rest, question):
        return None
    return _with_unit(value, rest, None, question)


def _in_digits(plain: str, question: Question) -> Quantity | None:
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
    value, end, _ = with_parts(rest.casefold(), value, 0)
    money = CURRENCIES.get(match["money"] or match["inside"] or "")
    return _with_unit(-value if match["sign"] == "-" else value, rest[end:], money, question)


def equal_quantities(
    left: Quantity, right: Quantity, tolerance: Fraction = Fraction(0), question: Question = UNASKED
) -> bool:
    """A unit that only one side names is ignored; units of one kind are converted, others differ. 50% is 0.5, and 50 as
    well; 0.25% is not 0.25, unless percents are asked for.

    ``tolerance``: by what share of ``right`` the value of ``left`` may be off.
    """

    def equal(value: Fraction, reference: Fraction) -> bool:
        return abs(value - reference) <= tolerance * abs(reference)

    if left.unit and right.unit:
        return left.unit.powers == right.unit.powers and equal(
            left.value * left.unit.size, right.value * right.unit.size
        )
    if PERCENT not in (left.unit, right.unit):
        return equal(left.value, right.value)
    shares = (q.value / 100 if q.unit == PERCENT else q.value for q in (left, right))
    bare = left.value if right.unit == PERCENT else right.value
    return equal(*shares) or (abs(bare) > 1 or question.about_percent) and equal(left.value, right.value)


def without_unit(plain: str) -> tuple[str, Unit | None]:
    """An expression of numbers, roots and pi, and its unit: "2sqrt(3) cm" -> ("2sqrt(3)", cm); (plain, None) else."""
    number = _NUMERIC.match(plain)
    rest = plain[number.end() :] if number else ""
    unit = measured(rest.strip()) if rest.strip() and (len(rest) > 1 or rest in "mgs°%") else None
    if number is None or unit is None:
        return plain, None
    return number[0].strip(), None if unit == NO_UNIT else unit


def _with_unit(value: Fraction, rest: str, money: Unit | None, question: Question) -> Quantity | None:
    if not rest:
        return Quantity(value, money)
    if rest.startswith("半") or rest.endswith("半") and len(rest) == 2:  # 3个半
        value, rest = value + Fraction(1, 2), rest.strip("半")
    unit = unit_of(rest, value, question) if rest else NO_UNIT
    if unit is None or money is not None and unit != money:
        return None
    return Quantity(value, None if unit == NO_UNIT else unit)


def _fits_numeral(rest: str, question: Question) -> bool:
    """Behind a Chinese numeral no unknown noun counts as a unit: 三角形 is not 3, and 二人 is 2."""
    return measured(rest) is not None or rest[0] in "个人只条名位次" or question.counts([rest])


def _in_parts(plain: str, _: Question) -> Quantity | None:
    """ "3 h 30 min", "5 ft 6 in", "2小时15分钟": parts of one kind, from the largest unit to the smallest."""
    parts: list[tuple[Fraction, tuple[Unit, ...]]] = []
    end = 0
    while len(parts) < _MAX_PARTS and (match := _PART.match(plain, end)):
        units = tuple(part_units(match[2]))
        if not units:
            return None
        parts.append((Fraction(match[1]), units))
        end = match.end()
    if end != len(plain) or len(parts) < 2:
        return None
    for units in product(*(units for _, units in parts)):
        sizes = [unit.size for unit in units]
        if len({unit.powers for unit in units}) == 1 and sizes == sorted(set(sizes), reverse=True):
            total = sum((value * size for (value, _), size in zip(parts, sizes, strict=True)), Fraction(0))
            return Quantity(total / sizes[-1], units[-1])
    return None
