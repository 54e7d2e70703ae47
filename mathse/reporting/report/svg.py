"""The few shapes that the report's charts are drawn with. Colours are classes of chart.css: light, dark and print.

Without a plotting library: such a chart is a seventh of the size of matplotlib's, and drawn a hundred times as fast.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files

WIDE, NARROW = 960, 358  # px of a chart on a desk's screen and on a telephone's

_COLOUR = re.compile(r"(--[\w-]+): (#\w+)")  # a name and its colour
_BY_NAME = re.compile(r"([\w-]+): var\((--[\w-]+)\)")  # a property that has a name's colour

# Control characters (but tab and newline) are not allowed in XML; lone surrogates have no UTF-8 form.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def safe(value: object) -> str:
    """Any text, also a hostile model's, as HTML and XML text or attribute value."""
    return escape(printable(str(value)), quote=True)


def printable(text: str) -> str:
    """A text without the characters that a page cannot hold."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element; ``content`` is markup, attribute values are escaped. ``class_`` is class, ``_`` in names is ``-``."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{safe(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{pairs}>{content}</{name}>"


def text(x: float, y: float, content: object, class_: str = "", anchor: str = "start") -> str:
    """A line of text with its baseline at ``y``; anchor start, middle or end."""
    return tag(
        "text", safe(content), x=x, y=y, class_=class_ or None, text_anchor=None if anchor == "start" else anchor
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def whisker(x: float, low: float, high: float, class_: str, width: int | None = None) -> str:
    """An interval in the look of its curve, but never dashed as some are: it would look shorter than it is."""
    style = "stroke-dasharray:none" + (f";stroke-width:{width}" if width is not None else "")
    return tag("line", x1=x, y1=low, x2=x, y2=high, class_=class_, style=style)


def rect(x: float, y: float, width: float, height: float, class_: str, hint: str = "") -> str:
    """A filled box, with a tooltip where there is a hint."""
    return tag(
        "rect",
        tag("title", safe(hint)) if hint else "",
        x=x,
        y=y,
        width=max(width, 0),
        height=max(height, 0),
        class_=class_,
    )


def path(points: Iterable[tuple[float, float]], class_: str) -> str:
    """An open line through the points."""
    return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def paths(lines: Iterable[Iterable[tuple[float, float]]], class_: str) -> str:
    """Open lines that do not meet, as one shape."""
    drawn = ("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in lines)
    return tag("path", d="".join(drawn), class_=class_)


def link(target: str, content: str, spoken: str) -> str:
    """Shapes that lead somewhere; without a target they stay as they are. ``spoken``: where, for a screen reader."""
    return tag("a", content, href=target, aria_label=spoken) if target else content


def chart(width: float, height: float, body: str, label: str) -> str:
    """A whole chart; ``label`` is what a screen reader says, with the numbers in it."""
    role = "group" if "<a " in body else "img"  # what stands in an image is not read out, and a link must be
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_short(width)} {_short(height)}" '
        f'role="{role}" aria-label="{safe(label)}" style="max-width:{_short(width)}px">{body}</svg>'
    )


def standalone(svg: str) -> str:
    """The chart as a file of its own, with its style inside and a ground to stand on."""
    head, _, body = svg.partition(">")
    return f'{head}><style>{chart_style()}</style><rect class="ground" width="100%" height="100%"/>{body}\n'


def chart_style() -> str:
    """chart.css with each colour written twice: plain, then by its name.

    Names are what a dark page and a printer change. A viewer that knows no names (librsvg, Inkscape) keeps the plain
    colour; with names alone it would paint everything black.
    """
    style = files("mathse.reporting.report").joinpath("chart.css").read_text(encoding="utf-8")
    light = dict(_COLOUR.findall(style.partition("@media")[0]))
    return _BY_NAME.sub(lambda m: f"{m[1]}: {light[m[2]]}; {m[0]}", style)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values that cover [low, high], about so many."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def percent(share: float | None, digits: int = 1) -> str:
    """0.642 -> "64.2%"; nothing -> an en dash."""
    return "\N{EN DASH}" if share is None else f"{share * 100:.{digits}f}%"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, signed: "+5.8", "\N{MINUS SIGN}0.4"."""
    rounded = round(difference * 100, digits) + 0.0
    return f"{'+' if rounded > 0 else chr(0x2212) if rounded < 0 else '±'}{abs(rounded):.{digits}f}"


def gain(before: float, after: float, digits: int = 1) -> str:
    """How far ``after`` lies above ``before``, in points, as a reader subtracts the two figures that ``percent`` shows.

    0.51625 and 0.7675 are shown as 51.6% and 76.8%, so their difference is shown as +25.2, not as +25.1. Every
    difference of two shown figures goes by this rule; the ends of an interval are shown by ``points``.
    """
    return points(shown_difference(before * 100, after * 100, digits) / 100, digits)


def shown_difference(before: float, after: float, digits: int) -> float:
    """``after`` less ``before``, each as it is shown with so many digits behind the point."""
    return round(round(after, digits) - round(before, digits), digits) + 0.0


def span(interval: Iterable[float]) -> str:
    """An interval of shares, in per cent: "[61.7, 66.6]"."""
    low, high = interval
    return f"[{low * 100:.1f}, {high * 100:.1f}]"


def spread(wanted: list[float], gap: float) -> list[float]:
    """Positions near the wanted ones with ``gap`` between neighbours, so that labels don't overlap."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    for before, i in zip(order, order[1:], strict=False):
        placed[i] = max(placed[i], placed[before] + gap)
    shift = sum(p - w for p, w in zip(placed, wanted, strict=True)) / max(len(wanted), 1)
    return [p - shift for p in placed]


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
