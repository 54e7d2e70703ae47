"""Numbers in words: "twenty-one", "two thirds", "一百零五", "三分之二", "3万5千", "零点五"; and digits that repeat."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "百": 100, "千": 1_000, "万": 10**4, "亿": 10**8,
}  # fmt: skip
_ONES = {name: value for value, name in enumerate((
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
))}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "twelfth": 12, "hundredth": 100, "thousandth": 1_000,
}  # fmt: skip
_ALL_NAMES = (*_ONES, *_TENS, *_PARTS, *SCALES)
NUMBER_WORDS = frozenset({*_ALL_NAMES, *(f"{name}s" for name in _ALL_NAMES)})
_NUMERALS = dict(zip("零一二三四五六七八九", range(10), strict=True)) | {"两": 2, "〇": 0}
_PLACES = {"十": 10, "百": 100, "千": 1_000}

_ENGLISH = re.compile(
    r"(?:(?:{0})(?:[ -]and(?=[ -](?:{0})(?![a-z])))?(?:[ -]|(?![a-z]))){{1,12}}(?<![ -])".format(
        "|".join(sorted([*_ONES, *_TENS, *(name for name in SCALES if name.isascii())], key=len, reverse=True))
    )
)
_PART = rf"(?P<part>{'|'.join(sorted(_PARTS, key=len, reverse=True))})s?(?![a-z])"
_A_SCALE = re.compile(r"an? (?=(?:dozen|hundred|thousand|million|billion|trillion)(?![a-z]))")
_ONE_PART = re.compile(rf"an? {_PART}|half(?![a-z])")
_SO_MANY_PARTS = re.compile(rf"[ -]{_PART}")
_AND_PARTS = re.compile(rf" and (?:an? |(?P<top>one|two|three|five|seven)[ -])?{_PART}")
_HAN_DIGITS = "(?:[零〇一二两三四五六七八九十百万亿]|千(?![克米瓦])){1,12}"
_HAN = re.compile(_HAN_DIGITS)
_HAN_DECIMALS = re.compile(r"点([零〇一二三四五六七八九]{1,9})")
_COUNT = rf"[0-9]{{1,9}}|{_HAN_DIGITS}"
_HAN_FRACTION = re.compile(
    rf"(?:(?P<whole>{_COUNT})又)?(?P<bottom>{_COUNT})分之(?P<top>[0-9]{{1,9}}(?:\.[0-9]{{1,9}})?|{_HAN_DIGITS})"
)
_MIXED_SCALES = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?[亿万千百](?![克米瓦])){2,4}[0-9]{0,3}(?![0-9.])")
_MIXED_SCALE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([亿万千百]?)")
# 0.\overline{3}, 0.\dot{1}\dot{2}, 0.(3), 0.333..., 0.1212...
_REPEATING = re.compile(
    r"(?P<whole>[0-9]{1,9})\.(?P<fixed>[0-9]{0,9}?)"
    r"(?:\\overline\{(?P<line>[0-9]{1,9})\}|\((?P<bracket>[0-9]{1,9})\)"
    r"|\\dot\{?(?P<dot>[0-9])\}?(?:(?P<inner>[0-9]{0,7})\\dot\{?(?P<last>[0-9])\}?)?"
    r"|(?P<written>(?P<once>[0-9])(?P=once){2,9}|(?P<pair>[0-9]{2,6})(?P=pair){1,4})\.\.\.)"
)


class Numeral(NamedTuple):
    """A value, its end in the text, and whether it is a percentage."""

    value: Fraction
    end: int
    percent: bool = False


def read_numeral(text: str) -> Numeral | None:
    """Read the number in words at the beginning of a text in lower case. None for digits, "one two" and "一百二"."""
    if match := _HAN_FRACTION.match(text):
        return _read_han_fraction(match)
    if match := _REPEATING.match(text):
        return Numeral(_read_repeating(match), match.end())
    if match := _MIXED_SCALES.match(text):
        parts = [(Fraction(digits), SCALES.get(scale, 1)) for digits, scale in _MIXED_SCALE.findall(match[0])]
        sizes = [size for _, size in parts]
        # 3万5千 is a number; 3千5万 is none.
        if sizes != sorted(set(sizes), reverse=True):
            return None
        return Numeral(sum((n * size for n, size in parts), Fraction(0)), match.end())
    if match := _A_SCALE.match(text):
        numeral = read_numeral(text[match.end() :])
        return numeral and numeral._replace(end=numeral.end + match.end())
    if match := _ONE_PART.match(text):
        return Numeral(Fraction(1, _PARTS[match["part"] or "half"]), match.end())
    if match := _ENGLISH.match(text):
        value = _read_english(match[0])
        return None if value is None else add_parts(text, Fraction(value), match.end())
    if text.startswith(("一半", "半")):
        return Numeral(Fraction(1, 2), 2 if text[0] == "一" else 1)
    if match := _HAN.match(text):
        value = _read_han(match[0])
        if value is None:
            return None
        if decimals := _HAN_DECIMALS.match(text, match.end()):
            digits = "".join(str(_NUMERALS[sign]) for sign in decimals[1])
            return Numeral(value + Fraction(int(digits), 10 ** len(digits)), decimals.end())
        return Numeral(Fraction(value), match.end())
    return None


def add_parts(text: str, value: Fraction, end: int) -> Numeral:
    """Add the parts behind a number that ends at ``end``, if there are any: "two thirds", "2 and a half"."""
    if parts := _SO_MANY_PARTS.match(text, end):
        return Numeral(value / _PARTS[parts["part"]], parts.end())
    if more := _AND_PARTS.match(text, end):
        return Numeral(value + Fraction(_ONES.get(more["top"], 1), _PARTS[more["part"]]), more.end())
    return Numeral(value, end)


def _read_han_fraction(match: re.Match[str]) -> Numeral | None:
    percent = match["bottom"] == "百" and not match["whole"]
    bottom = {"百": 100, "千": 1_000}.get(match["bottom"]) or _read_han(match["bottom"])
    top = Fraction(match["top"]) if match["top"].isascii() else _read_han(match["top"])
    whole = _read_han(match["whole"] or "0")
    if not bottom or top is None or whole is None:
        return None
    return Numeral(Fraction(top) if percent else whole + Fraction(top) / bottom, match.end(), percent)


def _read_repeating(match: re.Match[str]) -> Fraction:
    block = match["line"] or match["bracket"] or match["once"] or match["pair"]
    block = block or match["dot"] + (match["inner"] or "") + (match["last"] or "")
    fixed = match["fixed"]
    tail = Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(fixed))
    return int(match["whole"]) + Fraction(int(fixed or 0), 10 ** len(fixed)) + tail


def _read_english(text: str) -> int | None:
    """Read "twenty-one" as 21, "two hundred and five thousand" as 205,000; None for "one two" or "twenty eleven"."""
    total, group, allowed = 0, 0, 1_000  # ``allowed``: the next word must add less than this to the group
    for name in re.split("[ -]", text):
        if name == "and":
            continue
        if name in _ONES or name in _TENS:
            value = _ONES.get(name, _TENS.get(name, 0))
            if value >= allowed:
                return None
            group, allowed = group + value, 10 if name in _TENS else 0
        elif name in ("hundred", "dozen"):
            group, allowed = max(group, 1) * SCALES[name], 100
        else:
            total, group, allowed = total + max(group, 1) * SCALES[name], 0, 1_000
    return total + group


def _read_han(text: str) -> int | None:
    """Read "二十三" as 23, "一百零五" as 105, "三万" as 30,000; None for "一二" and for the short "一百二"."""
    if text.isascii():
        return int(text)
    # ``section``: the number below 10,000 so far; ``digit``: the last digit until its place follows, 0 without one;
    # ``place``: the place of the digit before, 0 behind a zero.
    total, section, digit, place = 0, 0, 0, 0
    for sign in text:
        if sign in "零〇":
            if digit:
                return None
            place = 0
        elif sign in _NUMERALS:
            if digit:
                return None
            digit = _NUMERALS[sign]
        elif sign in _PLACES:
            if not digit and sign != "十":
                return None
            section, digit, place = section + (digit or 1) * _PLACES[sign], 0, _PLACES[sign]
        else:
            group = section + digit
            if not group:
                return None
            total, section, digit, place = (total + group) * SCALES[sign], 0, 0, 0
    # "一百二" is 120 in speech, and 102 if a zero was left out.
    if digit and place > 10:
        return None
    return total + section + digit
