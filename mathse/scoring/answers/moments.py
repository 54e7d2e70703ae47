"""Comparison of times of the day and dates: 3:30 pm is 15:30, March 5, 2024 is 2024-03-05 and 2024年3月5日."""

from __future__ import annotations

import re
from typing import NamedTuple

_CLOCK = re.compile(
    r"(?P<before>上午|早上|凌晨|中午|下午|晚上)?(?P<hour>[0-9]{1,2})"
    r"(?:(?P<sign>:|点|时)(?P<minute>[0-9]{2}|[0-9]{1,2}(?=分)|半)?分?(?::00)?[整钟]?)?"
    r" ?(?P<after>[ap]\.? ?m\.?|o'? ?clock)?"
)
_MONTHS = {name: number for number, name in enumerate((
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december"), 1)}  # fmt: skip
_MONTH = "|".join([*_MONTHS, *(f"{name[:3]}\\.?" for name in _MONTHS), "sept\\.?"])
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<month>{_MONTH}) (?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>[0-9]{{4}}))?",
        rf"(?:the )?(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<month>{_MONTH})(?:,? (?P<year>[0-9]{{4}}))?",
        r"(?P<year>[0-9]{4})([-/])(?P<month>[0-9]{1,2})\2(?P<day>[0-9]{1,2})",
        r"(?:(?P<year>[0-9]{4})年)?(?P<month>[0-9]{1,2})月(?P<day>[0-9]{1,2})[日号]",
    )
)


class Moment(NamedTuple):
    """A time of the day in minutes since midnight, or a date as (year or 0, month, day).

    ``half``: whether the half of the day is known. ``sure``: False for 3:30, which may be a ratio, and for 3时30分,
    which may be a duration.
    """

    value: int | tuple[int, int, int]
    half: bool = True
    sure: bool = True


def parse_moment(plain_text: str) -> Moment | None:
    """Parse a time or date; None for any other text."""
    text = plain_text.casefold().strip()
    if not any(map(str.isdigit, text[:8])) and not text[:3].isalpha():
        return None
    # 1) A date, with or without a year.
    for pattern in _DATES:
        if match := pattern.fullmatch(text):
            month = match["month"].rstrip(".")
            number = int(month) if month.isdigit() else next(n for name, n in _MONTHS.items() if name[:3] == month[:3])
            return Moment((int(match["year"] or 0), number, int(match["day"])))
    # 2) A time of the day. Without a half of the day, 3 o'clock may be 3:00 or 15:00.
    match = _CLOCK.fullmatch(text)
    if match is None or not (match["sign"] or match["after"]):
        return None
    hour, minute = int(match["hour"]), 30 if match["minute"] == "半" else int(match["minute"] or 0)
    if match["sign"] == ":" and match["minute"] is None or hour > 24 or minute > 59:
        return None
    after, before = match["after"] or "", match["before"] or ""
    afternoon = after.startswith("p") or before in ("下午", "晚上", "中午")
    morning = after.startswith("a") or before in ("上午", "早上", "凌晨")
    half = afternoon or morning or hour > 12 or match["hour"].startswith("0")
    if afternoon and hour < 12:
        hour += 12
    elif morning and hour == 12:
        hour = 0
    return Moment(60 * hour + minute, half, sure=bool(after or before or match["sign"] == "点"))


def same_moment(left: str, right: str, asked: bool) -> bool | None:
    """Whether two texts are the same time or date.

    Returns None if a text is neither, and for possible ratios unless the question asks for a time (``asked``). A half
    of the day or a year that only one side gives is ignored.
    """
    a, b = parse_moment(left), parse_moment(right)
    if a is None or b is None or not (asked or a.sure or b.sure):
        return None
    if isinstance(a.value, tuple) or isinstance(b.value, tuple):
        if not (isinstance(a.value, tuple) and isinstance(b.value, tuple)):
            return False
        return a.value[1:] == b.value[1:] and (a.value[0] == b.value[0] or 0 in (a.value[0], b.value[0]))
    return a.value == b.value if a.half and b.half else (a.value - b.value) % 720 == 0
