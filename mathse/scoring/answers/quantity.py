"""A number with at most a unit: "-1 1/2 cm", "1,200", "5万", "3*10^5", "3 dozen"; in exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from mathse.scoring.answers.plain import HAN

# symbol: its other spellings (English plurals in -s are understood); "" is the symbol of "units", which mean nothing
_UNITS: dict[str, tuple[str, ...]] = {
    "": ("unit", "单位"),
    "mm": ("millimeter", "millimetre", "毫米"),
    "cm": ("centimeter", "centimetre", "厘米"),
    "dm": ("decimeter", "decimetre", "分米"),
    "m": ("meter", "metre", "米"),
    "km": ("kilometer", "kilometre", "千米", "公里"),
    "in": ("inch", "inches", "英寸"),
    "ft": ("foot", "feet", "英尺"),
    "yd": ("yard",),
    "mi": ("mile", "英里"),
    "mg": ("milligram", "毫克"),
    "g": ("gram", "克"),
    "kg": ("kilogram", "千克", "公斤"),
    "t": ("ton", "tonne", "吨"),
    "ml": ("milliliter", "millilitre", "毫升"),
    "l": ("liter", "litre", "升"),
    "s": ("sec", "second", "秒", "秒钟"),
    "min": ("minute", "分钟"),
    "h": ("hr", "hour", "小时", "时"),
    "day": ("天", "日"),
    "km/h": ("kmh", "km per hour", "kilometers per hour", "千米/时", "km/hr"),
    "m/s": ("米/秒", "meters per second"),
    "°": ("degree", "deg", "度"),
    "°c": ("degrees celsius", "摄氏度"),
    "rad": ("radian", "弧度"),
    "%": ("percent", "per cent"),
    "dollar": ("usd", "美元"),
    "yuan": ("rmb", "元"),
}
# symbol: (kind, how many of the kind's smallest unit)
_SIZES: dict[str, tuple[str, int]] = {
    "mm": ("length", 1), "cm": ("length", 10), "dm": ("length", 100), "m": ("length", 1_000), "km": ("length", 10**6),
    "in": ("foot", 1), "ft": ("foot", 12), "yd": ("foot", 36), "mi": ("foot", 63_360),
    "mg": ("mass", 1), "g": ("mass", 10**3), "kg": ("mass", 10**6), "t": ("mass", 10**9),
    "ml": ("volume", 1), "l": ("volume", 1_000),
    "s": ("time", 1), "min": ("time", 60), "h": ("time", 3_600), "day": ("time", 86_400),
}  # fmt: skip
_SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "百": 100, "千": 1_000, "万": 10**4, "亿": 10**8,
}  # fmt: skip
_NUMBER_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip
_NUMERALS = dict(zip("零一二三四五六七八九十", range(11), strict=True)) | {"两": 2, "〇": 0}

_SYMBOLS = {spelling: symbol for symbol, spellings in _UNITS.items() for spelling in (symbol, *spellings) if spelling}
_POWERS = {"square": 2, "sq": 2, "平方": 2, "^2": 2, "2": 2, "cubic": 3, "cu": 3, "立方": 3, "^3": 3, "3": 3}
_UNIT = re.compile(
    r"(?:(?P<before>square|sq|cubic|cu|平方|立方)\.? ?)?"
    rf"(?P<name>[a-z]+(?: [a-z]+){{0,2}}(?:/[a-z]+)?|°c|[°%]|[{HAN}/]{{1,4}})(?P<after>\^?[23])?"
)
# After a number these change its value, and so are no unit.
_NO_UNITS = re.compile(
    rf"\b(?:thousand|million|billion|trillion|hundred|dozen|sqrt|sin|cos|tan|log|and|or|plus|minus|times)\b"
    rf"|[万亿千百十半或和至]|^[a-z]{{1,2}}\b|^[{HAN}]*/"
)
_NUMBER = re.compile(
    r"[¥€£]? ?(?P<sign>[-+]?) ?(?:(?P<whole>[0-9]+) (?=[0-9]+ ?/))?"
    r"(?P<top>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+\.?[0-9]*|\.[0-9]+)"
    r"(?: ?/ ?(?P<bottom>-?[0-9]+(?:\.[0-9]+)?))?"
)
_POWER_OF_TEN = re.compile(r" ?(?:\* ?10 ?\^ ?(?:\{|\()?|e)(?P<exponent>[-+]?[0-9]{1,3})(?:\}|\))?(?![0-9.])")
_SCALE = re.compile(rf" ?({'|'.join(_SCALES)})(?![a-z])")
_NUMERIC = re.compile(r"(?:sqrt|pi|[-+*/^()0-9. ])*(?<=[)0-9i ])")
_HAN_NUMBER = "[零〇一二两三四五六七八九十]{1,3}"
_CHINESE_FRACTION = re.compile(rf"(百|[0-9]{{1,9}}|{_HAN_NUMBER})分之([0-9]{{1,9}}|{_HAN_NUMBER})")
_NUMBER_WORD = re.compile(rf"({'|'.join(_NUMBER_WORDS)}|{_HAN_NUMBER})(?![a-z])")


class Quantity(NamedTuple):
    """A value and the plain symbol of its unit; "" for none."""

    value: Fraction
    unit: str


def quantity(plain: str) -> Quantity | None:
    """The quantity that a plain text is; None for anything that is not one number with at most a unit."""
    match = _NUMBER.match(plain)
    if match is None:
        return _spelt_out(plain)
    bottom = Fraction(match["bottom"] or 1)
    if bottom == 0:
        return None
    value = int(match["whole"] or 0) + Fraction(match["top"].replace(",", "")) / bottom
    rest = plain[match.end() :]
    if power := _POWER_OF_TEN.match(rest):  # "*10^5"
        value, rest = value * Fraction(10) ** int(power["exponent"]), rest[power.end() :]
    elif scale := _SCALE.match(rest):  # "万元" -> 10000, "元"
        value, rest = value * _SCALES[scale[1]], rest[scale.end() :]
    unit = _unit(rest) if rest else ""
    return None if unit is None else Quantity(-value if match["sign"] == "-" else value, unit)


def equal_quantities(left: Quantity, right: Quantity) -> bool:
    """A unit that only one side names is ignored; units of one kind are converted, others differ. 50% is 50 and 0.5."""
    if left.unit and right.unit:
        if left.unit == right.unit:
            return left.value == right.value
        a, b = _in_smallest_unit(left), _in_smallest_unit(right)
        return a is not None and a == b
    if "%" in (left.unit, right.unit):
        percent, other = (left.value, right.value) if left.unit == "%" else (right.value, left.value)
        return other in (percent, percent / 100)
    return left.value == right.value


def _in_smallest_unit(quantity: Quantity) -> tuple[str, str, Fraction] | None:
    """(kind, power, value in the kind's smallest unit); None for a unit without others of its kind."""
    symbol, _, power = quantity.unit.partition("^")
    if symbol not in _SIZES:
        return None
    kind, size = _SIZES[symbol]
    return kind, power, quantity.value * size ** int(power or 1)


def without_unit(plain: str) -> tuple[str, str]:
    """An expression of numbers, roots and pi, and its unit: "2sqrt(3) cm" -> ("2sqrt(3)", "cm"); (plain, "") else."""
    number = _NUMERIC.match(plain)
    rest = plain[number.end() :] if number else ""
    unit = _UNIT.fullmatch(rest.strip()) if rest.strip() else None
    if number is None or unit is None or unit["name"] not in _SYMBOLS:
        return plain, ""
    return number[0].strip(), str(_unit(rest))


def _unit(text: str) -> str | None:
    """ "square metres" -> "m^2", "cubes" -> "cube" (an unknown noun counts as its own unit); None: not a unit."""
    match = _UNIT.fullmatch(text.strip())
    if match is None:
        return None
    name = match["name"]
    symbol = _SYMBOLS.get(name, _SYMBOLS.get(name.removesuffix("s")))
    if symbol is None:
        if _NO_UNITS.search(name) or text[0].isascii() and text[0] != " ":  # "2 cubes", but not "2abc"
            return None
        symbol = name.removesuffix("s")
    power = _POWERS.get(match["before"] or match["after"] or "")
    return f"{symbol}^{power}" if symbol and power else symbol


def _spelt_out(plain: str) -> Quantity | None:
    """ "三分之二", "百分之五十", "two", "十二", with at most a unit."""
    negative = plain.startswith(("负", "negative ", "minus "))
    text = plain.removeprefix("负").removeprefix("negative ").removeprefix("minus ") if negative else plain
    if fraction := _CHINESE_FRACTION.fullmatch(text):
        top, bottom = _numeral(fraction[2]), 100 if fraction[1] == "百" else _numeral(fraction[1])
        if not bottom or top is None:
            return None
        value, unit = (Fraction(top), "%") if fraction[1] == "百" else (Fraction(top, bottom), "")
    elif match := _NUMBER_WORD.match(text):
        english, rest = match[1] in _NUMBER_WORDS, text[match.end() :]
        number = _NUMBER_WORDS[match[1]] if english else _numeral(match[1])
        known = english or rest in _SYMBOLS or rest == "个"  # after a Chinese numeral no unknown noun counts as a unit
        symbol = "" if not rest else _unit(rest) if known else None
        if number is None or symbol is None:
            return None
        value, unit = Fraction(number), symbol
    else:
        return None
    return Quantity(-value if negative else value, unit)


def _numeral(text: str) -> int | None:
    """ "二十三" -> 23, "35" -> 35."""
    if text.isascii():
        return int(text)
    tens, ten, ones = text.partition("十")
    if not ten:
        return _NUMERALS.get(text)
    if any(part and part not in _NUMERALS for part in (tens, ones)):
        return None
    return _NUMERALS.get(tens, 1) * 10 + _NUMERALS.get(ones, 0)
