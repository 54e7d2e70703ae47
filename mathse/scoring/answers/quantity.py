"""A number with at most a unit: "-1 1/2 cm", "1,200", "5万", "3*10^5", "3 dozen", "3 h 30 min"; in exact fractions."""

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
    "km/h": ("speed", 5), "m/s": ("speed", 18),
}  # fmt: skip
_SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "百": 100, "千": 1_000, "万": 10**4, "亿": 10**8,
}  # fmt: skip
_ONES = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_NUMERALS = dict(zip("零一二三四五六七八九", range(10), strict=True)) | {"两": 2, "〇": 0}
_PLACES = {"十": 10, "百": 100, "千": 1_000}

_SYMBOLS = {spelling: symbol for symbol, spellings in _UNITS.items() for spelling in (symbol, *spellings) if spelling}
_POWERS = {"square": 2, "sq": 2, "平方": 2, "^2": 2, "2": 2, "cubic": 3, "cu": 3, "立方": 3, "^3": 3, "3": 3}
_UNIT = re.compile(
    r"(?:(?P<before>square|sq|cubic|cu|平方|立方)\.? ?)?"
    rf"(?P<name>[a-z]+(?: [a-z]+){{0,2}}(?:/[a-z]+)?|°c|[°%]|[{HAN}/]{{1,4}})(?P<after>\^?[23])?"
)
# After a number these change its value, or what is said of it, and so are no unit.
_NO_UNITS = re.compile(
    r"\b(?:thousand|million|billion|trillion|hundred|dozen|sqrt|sin|cos|tan|log|and|or|plus|minus|times|squared|cubed"
    r"|hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?|factorial"
    r"|not|wrong|incorrect|false|isn|than|more|less|least|most|over|of)\b"
    rf"|[万亿千百十半或和至不错对非的多余]|平方|立方|次方|左右|以[上下]|^[a-z]{{1,2}}\b|^[{HAN}]*/"
)
_NUMBER = re.compile(
    r"[¥€£]? ?(?P<sign>[-+]?) ?(?:(?P<whole>[0-9]+) (?=[0-9]+ ?/))?"
    r"(?P<top>[0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+(?![0-9]))(?:\.[0-9]+)?|[0-9]+\.?[0-9]*|\.[0-9]+)"
    r"(?: ?/ ?(?P<bottom>-?[0-9]+(?:\.[0-9]+)?))?"
)
_POWER_OF_TEN = re.compile(r" ?(?:\* ?10 ?\^ ?(?:\{|\()?|e)(?P<exponent>[-+]?[0-9]{1,3})(?:\}|\))?(?![0-9.])")
_SCALE = re.compile(rf" ?({'|'.join(_SCALES)})(?![a-z])(?<!千(?=[克米瓦]))")  # 千克 and 千米 are units
_NUMERIC = re.compile(r"(?:sqrt|root[2-9]|pi|[-+*/^()0-9. ])*(?<=[)0-9i ])")
_HAN_NUMBER = "(?:[零〇一二两三四五六七八九十百万亿]|千(?![克米瓦])){1,12}"
_CHINESE_FRACTION = re.compile(rf"(百|[0-9]{{1,9}}|{_HAN_NUMBER})分之([0-9]{{1,9}}|{_HAN_NUMBER})")
_ENGLISH_NUMBER = re.compile(
    r"(?:(?:{0})(?:[ -]and(?=[ -](?:{0})(?![a-z])))?(?:[ -]|(?![a-z]))){{1,12}}(?<![ -])".format(
        "|".join(sorted([*_ONES, *_TENS, *(name for name in _SCALES if name.isascii())], key=len, reverse=True))
    )
)
_HAN_NUMBER_AT_START = re.compile(_HAN_NUMBER)
_PART = re.compile(rf"([0-9]+(?:\.[0-9]+)?) ?([a-z]{{1,10}}|[{HAN}]{{1,3}}) ?")  # of "3 h 30 min"


class Quantity(NamedTuple):
    """A value and the plain symbol of its unit; "" for none."""

    value: Fraction
    unit: str


def quantity(plain: str) -> Quantity | None:
    """The quantity that a plain text is; None for anything that is not one number with at most a unit."""
    match = _NUMBER.match(plain)
    if match is None:
        return _spelt_out(plain)
    if (compound := _compound(plain)) is not None:
        return compound
    bottom = Fraction(match["bottom"] or 1)
    if bottom == 0:
        return None
    value = int(match["whole"] or 0) + Fraction(match["top"].replace(",", "").replace(" ", "")) / bottom
    rest = plain[match.end() :]
    if power := _POWER_OF_TEN.match(rest):  # "*10^5"
        value, rest = value * Fraction(10) ** int(power["exponent"]), rest[power.end() :]
    elif scale := _SCALE.match(rest):  # "万元" -> 10000, "元"
        value, rest = value * _SCALES[scale[1]], rest[scale.end() :]
    unit = _unit(rest) if rest else ""
    return None if unit is None else Quantity(-value if match["sign"] == "-" else value, unit)


def equal_quantities(left: Quantity, right: Quantity, tolerance: Fraction = Fraction(0)) -> bool:
    """A unit that only one side names is ignored; units of one kind are converted, others differ. 50% is 50 and 0.5.

    ``tolerance``: by what share of ``right`` the value of ``left`` may be off.
    """

    def equal(value: Fraction, reference: Fraction) -> bool:
        return abs(value - reference) <= tolerance * abs(reference)

    if left.unit and right.unit:
        if left.unit == right.unit:
            return equal(left.value, right.value)
        a, b = _in_smallest_unit(left), _in_smallest_unit(right)
        return a is not None and b is not None and a[:2] == b[:2] and equal(a[2], b[2])
    if left.unit == "%":
        return equal(left.value, right.value) or equal(left.value / 100, right.value)
    if right.unit == "%":
        return equal(left.value, right.value) or equal(left.value, right.value / 100)
    return equal(left.value, right.value)


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


def _compound(plain: str) -> Quantity | None:
    """ "3 h 30 min", "5 ft 6 in", "2小时15分钟": parts of one kind, from the largest unit to the smallest."""
    parts: list[tuple[Fraction, str]] = []
    end = 0
    while len(parts) < 4 and (match := _PART.match(plain, end)):
        symbol = _SYMBOLS.get(match[2], _SYMBOLS.get(match[2].removesuffix("s"), ""))
        if symbol not in _SIZES:
            return None
        parts.append((Fraction(match[1]), symbol))
        end = match.end()
    kinds = {_SIZES[symbol][0] for _, symbol in parts}
    sizes = [_SIZES[symbol][1] for _, symbol in parts]
    if end != len(plain) or len(parts) < 2 or len(kinds) != 1 or sizes != sorted(set(sizes), reverse=True):
        return None
    total = sum(value * size for (value, _), size in zip(parts, sizes, strict=True))
    return Quantity(Fraction(total) / sizes[-1], parts[-1][1])


def _spelt_out(plain: str) -> Quantity | None:
    """ "三分之二", "百分之五十", "twenty-one", "一百二十", with at most a unit."""
    negative = plain.startswith(("负", "negative ", "minus "))
    text = plain.removeprefix("负").removeprefix("negative ").removeprefix("minus ") if negative else plain
    if fraction := _CHINESE_FRACTION.fullmatch(text):
        top, bottom = _numeral(fraction[2]), 100 if fraction[1] == "百" else _numeral(fraction[1])
        if not bottom or top is None:
            return None
        value, unit = (Fraction(top), "%") if fraction[1] == "百" else (Fraction(top, bottom), "")
    elif match := _ENGLISH_NUMBER.match(text) or _HAN_NUMBER_AT_START.match(text):
        english, rest = match[0].isascii(), text[match.end() :]
        number = _english(match[0]) if english else _numeral(match[0])
        known = (
            english or rest in _SYMBOLS or rest in ("个", "人")
        )  # after a Chinese numeral no unknown noun counts as a unit
        symbol = "" if not rest else _unit(rest) if known else None
        if number is None or symbol is None:
            return None
        value, unit = Fraction(number), symbol
    else:
        return None
    return Quantity(-value if negative else value, unit)


def _english(text: str) -> int | None:
    """ "twenty-one" -> 21, "two hundred and five thousand" -> 205,000; None for "one two" or "twenty eleven"."""
    total, group, allowed = 0, 0, 1_000  # ``allowed``: what the next word may add to the group must be smaller
    for name in re.split("[ -]", text):
        if name == "and":
            continue
        if name in _ONES or name in _TENS:
            value = _ONES.get(name, _TENS.get(name, 0))
            if value >= allowed:
                return None
            group, allowed = group + value, 10 if name in _TENS else 0
        elif name in ("hundred", "dozen"):
            group, allowed = max(group, 1) * _SCALES[name], 100
        else:
            total, group, allowed = total + max(group, 1) * _SCALES[name], 0, 1_000
    return total + group


def _numeral(text: str) -> int | None:
    """ "二十三" -> 23, "一百零五" -> 105, "三万" -> 30,000, "35" -> 35; None for "一二" and for the short "一百二"."""
    if text.isascii():
        return int(text)
    total, section, digit, place = 0, 0, -1, 0  # ``digit``: read and not yet placed; ``place``: of the last one placed
    for sign in text:
        if sign in "零〇" and len(text) > 1:
            place = 0
        elif sign in _NUMERALS:
            if digit >= 0:
                return None
            digit = _NUMERALS[sign]
        elif sign in _PLACES:
            if digit < 0 and sign != "十":
                return None
            section, digit, place = section + (1 if digit < 0 else digit) * _PLACES[sign], -1, _PLACES[sign]
        else:
            group = section + max(digit, 0)
            if not group:
                return None
            total, section, digit, place = (total + group) * _SCALES[sign], 0, -1, 0
    if digit >= 0 and place > 10:
        return None  # "一百二" is 120 where spoken, and 102 where a zero was left out
    return total + section + max(digit, 0)
