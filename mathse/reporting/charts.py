"""All pictures: bars, curves with intervals, a staircase, a flow. Each is a function that returns an SVG element.

Colours are classes of ``templates/chart.css``, so the same chart serves a light page, a dark page and print. The charts
need no plotting library. Measured on a staircase with intervals, this module takes 1 ms and 3.4 kB. matplotlib takes
110 ms and 12 kB after an import of 2 s; pygal 13 ms and 17 kB, without the intervals; Vega 240 ms, 11 kB and a package
of 84 MB, or a script of 0.9 MB on every page. No library among them has the flow.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import chain
from statistics import fmean
from typing import Any

from markupsafe import Markup

from mathse.reporting.progress.wording import gain, percent, shorten_number, span
from mathse.runs.layout import stage_order, title
from mathse.scoring.metrics import mean_share

WIDE, NARROW = 960, 358  # px of a chart on a desktop screen and on a telephone
STUDY = 760  # px of a study's picture
HEIGHT = 380  # px of a chart with a single frame
NAME_LINE = 17  # px from the baseline of a name to the next
LETTER_WIDTH = 9  # px of a letter of a name at most
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
ORM_FIGURES = {
    "overall_accuracy": "judged rightly",
    "positive_accuracy": "right paths accepted",
    "negative_accuracy": "wrong paths rejected",
    "error_step_accuracy": "first wrong step named",
}
TRANSITIONS = ("correct_correct", "correct_wrong", "wrong_correct", "wrong_wrong")

# XML allows no control character but tab and newline, and a lone surrogate has no UTF-8 form.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_COLOUR = re.compile(r"(--[\w-]+): (#\w+)")  # a name and its colour
_COLOUR_BY_NAME = re.compile(r"([\w-]+): var\((--[\w-]+)\)")  # a property with the name of a colour

Interval = Sequence[float] | None
Entries = Sequence[Mapping[str, Any]]  # rows of summary.json["stages"]


# --- text -------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Replace the characters that a page cannot contain."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def safe(value: object) -> str:
    """Escape any text, also a hostile model's, for HTML, XML and attribute values."""
    return escape(printable(str(value)), quote=True)


def chart_style() -> str:
    """Return chart.css with each colour written twice: plain, then by its name.

    A dark page and print redefine the names. A viewer without support for names (librsvg, Inkscape) uses the plain
    colour; without it, everything would be black.
    """
    style = files("mathse.reporting").joinpath("templates/chart.css").read_text(encoding="utf-8")
    light = dict(_COLOUR.findall(style.partition("@media")[0]))
    return _COLOUR_BY_NAME.sub(lambda m: f"{m[1]}: {light[m[2]]}; {m[0]}", style)


# --- shapes -----------------------------------------------------------------------------------------------------------


class Drawing:
    """The shapes of a chart, in the order in which they cover each other."""

    def __init__(self) -> None:
        self.shapes: list[str] = []

    def tag(self, name: str, content: str = "", **attributes: object) -> None:
        """Add an element.

        Args:
            name: the element's name.
            content: markup inside it.
            attributes: values, which are escaped. ``class_`` stands for class, ``_`` in a name for ``-``.
        """
        pairs = "".join(
            f' {key.rstrip("_").replace("_", "-")}="{safe(_short(value))}"'
            for key, value in attributes.items()
            if value is not None
        )
        self.shapes.append(f"<{name}{pairs}>{content}</{name}>")

    def text(self, x: float, y: float, content: object, look: str = "", anchor: str = "start") -> None:
        """Add a line of text with its baseline at ``y``. ``anchor``: start, middle or end."""
        placed = None if anchor == "start" else anchor
        self.tag("text", safe(content), x=x, y=y, class_=look or None, text_anchor=placed)

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str) -> None:
        self.tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=look)

    def rect(self, x: float, y: float, width: float, height: float, look: str, hint: str = "") -> None:
        self.tag("rect", _hint(hint), x=x, y=y, width=max(width, 0), height=max(height, 0), class_=look)

    def dot(self, x: float, y: float, radius: float, look: str, hint: str = "") -> None:
        self.tag("circle", _hint(hint), cx=x, cy=y, r=radius, class_=look)

    def path(self, points: Iterable[tuple[float, float]], look: str) -> None:
        self.paths([points], look)

    def paths(self, lines: Iterable[Iterable[tuple[float, float]]], look: str) -> None:
        """Add open lines as a single shape."""
        strokes = ["M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in lines]
        self.tag("path", d="".join(strokes), class_=look)

    @contextmanager
    def link(self, target: str, label: str) -> Iterator[None]:
        """Link the shapes of the block to ``target``; an empty target makes no link.

        ``label``: the link's text for a screen reader.
        """
        start = len(self.shapes)
        yield
        if target:
            inside = "".join(self.shapes[start:])
            del self.shapes[start:]
            self.tag("a", inside, href=target, aria_label=label)

    def svg(self, width: float, height: float, label: str) -> Markup:
        """Return the chart. ``label``: its text for a screen reader, with the numbers."""
        body = "".join(self.shapes)
        role = "group" if "<a " in body else "img"  # a screen reader skips links inside an image
        return Markup(
            f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_short(width)} {_short(height)}" '
            f'role="{role}" aria-label="{safe(label)}" style="max-width:{_short(width)}px">{body}</svg>'
        )


def standalone(svg: str) -> str:
    """Turn a chart into a file with its style and its background."""
    head, _, body = svg.partition(">")
    return f'{head}><style>{chart_style()}</style><rect class="ground" width="100%" height="100%"/>{body}\n'


def _hint(text: str) -> str:
    return f"<title>{safe(text)}</title>" if text else ""


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


# --- axes -------------------------------------------------------------------------------------------------------------


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about ``about`` round values that cover [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def ticks_from_zero(highest: float) -> list[float]:
    """Return the ticks of an axis of shares. It begins at 0, so that heights compare within and between pictures."""
    return ticks(0, min(max(highest, 0.05), 1.0))


def spread(wanted: list[float], gap: float) -> list[float]:
    """Move positions apart to at least ``gap`` between neighbours, so that labels do not overlap."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    for before, i in zip(order, order[1:], strict=False):
        placed[i] = max(placed[i], placed[before] + gap)
    shift = sum(p - w for p, w in zip(placed, wanted, strict=True)) / max(len(wanted), 1)
    return [p - shift for p in placed]


@dataclass(frozen=True)
class Frame:
    """A box in px with values from ``low`` at its lower edge to ``high`` at its upper edge; x runs from 0 to 1."""

    left: float
    top: float
    width: float
    height: float
    low: float = 0.0
    high: float = 1.0

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, share: float) -> float:
        return self.left + share * self.width

    def y(self, value: float) -> float:
        # An interval over few seeds may exceed 0 and 100 %; it is drawn to the edge.
        inside = min(max(value, self.low), self.high)
        return self.top + self.height * (self.high - inside) / (self.high - self.low)

    def at(self, share: float, value: float) -> tuple[float, float]:
        return self.x(share), self.y(value)

    def grid(
        self,
        d: Drawing,
        marks: Iterable[float],
        label: Callable[[float], str] = lambda tick: percent(tick, 0 if round(100 * tick, 6) % 1 == 0 else 1),
        axis: float | None = None,
    ) -> None:
        """Draw a line at each mark, darker at the value ``axis``, with its label at the left."""
        for mark in marks:
            y = self.y(mark)
            d.line(self.left, y, self.right, y, "axis" if mark == axis else "grid")
            if number := label(mark):
                d.text(self.left - 8, y + 4, number, "tick", "end")

    def quarters(self, d: Drawing, name: str) -> None:
        """Draw the grid of shares against shares. ``name``: name of the x axis."""
        self.grid(d, QUARTERS)
        for tick in QUARTERS:
            d.text(self.x(tick), self.bottom + 18, f"{tick:g}", "tick", "middle")
        d.text(self.left + self.width / 2, self.bottom + 38, name, "small", "middle")

    def interval(self, d: Drawing, x: float, interval: Interval, look: str) -> None:
        if interval:
            d.line(x, self.y(interval[0]), x, self.y(interval[1]), look)


def _look(k: int) -> str:
    """Return the class of a chart's k-th line."""
    return f"flight-{min(k, 5)}"


# --- bars -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BarPart:
    """A part of a bar.

    Attributes:
        name: its name in the legend.
        amount: its length.
        label: the text inside it.
        look: a class of chart.css.
        target: a link to the list of the counted items.
    """

    name: str
    amount: float
    label: str
    look: str
    target: str = ""


@dataclass(frozen=True)
class Bar:
    """A row with its name, its parts from left to right, and a remark at its right end."""

    name: str
    parts: Sequence[BarPart]
    remark: str = ""


def bars(rows: Sequence[Bar], label: str, remarks: str = "", width: int = WIDE) -> Markup:
    """Draw all rows on the same scale, with a legend.

    Args:
        rows: the bars.
        label: the chart's text for a screen reader; the numbers follow it.
        remarks: head of the column of remarks.
        width: px.
    """
    most = max((sum(p.amount for p in row.parts) for row in rows), default=0)
    if not most:
        return Markup()
    is_narrow = width < WIDE
    # On a narrow screen the name and the remark are in a line above the bar.
    left, right, step, thickness = (0, 0, 56, 24) if is_narrow else (168, 150, 42, 24)
    scale = (width - left - right) / most  # px of 1
    d = Drawing()

    # 1. The legend, in as many lines as its names need.
    x, baseline = float(left), 16
    every_part = list(chain.from_iterable(row.parts for row in rows))
    present = {part.name for part in every_part if part.amount}
    for name, look in {part.name: part.look for part in every_part}.items():
        if name in present:
            needed = 16 + len(name) * 6.6 + 24
            if x > left and x + needed - 24 > width:
                x, baseline = left, baseline + 20
            d.rect(x, baseline - 9, 10, 10, look)
            d.text(x + 16, baseline, name, "small")
            x += needed
    if remarks:
        baseline += 20 if is_narrow else 0
        d.text(width, baseline, remarks, "small", "end")

    # 2. The bars.
    top = legend = baseline + 14
    for row in rows:
        upper = top + 24 if is_narrow else top + (step - thickness) / 2  # the bar's upper edge
        line = top + 16 if is_narrow else top + step / 2 + 4  # the baseline of name and remark
        d.text(0 if is_narrow else left - 14, line, row.name, "name", "start" if is_narrow else "end")
        x = float(left)
        for part in row.parts:
            length, hint = part.amount * scale, f"{row.name}: {part.label} {part.name}"
            with d.link(part.target if part.amount else "", hint):
                d.rect(x, upper, length - (1 if length > 3 else 0), thickness, part.look, hint)
                if length > len(part.label) * 7.2 + 8:  # a character takes 7.2 px at most
                    d.text(x + 7, upper + thickness / 2 + 4, part.label, f"in {part.look}-ink")
            x += length
        d.text(width, line, row.remark, "remark", "end")
        top += step
    numbers = []
    for row in rows:
        shown = ", ".join(f"{part.label} {part.name}" for part in row.parts if part.amount)
        numbers.append(f"{row.name}: {shown} {row.remark}")
    return d.svg(width, legend + step * len(rows), f"{label}. {'; '.join(numbers)}.")


# --- curves with intervals --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """``points``: (x, share in [0, 1], its interval or None), x rising."""

    label: str
    points: Sequence[tuple[float, float, Interval]]


def curves(
    lines: Sequence[Curve],
    axis: str,
    label: str,
    width: int = WIDE,
    marks: Sequence[float] = (),
    at: float | None = None,
) -> Markup:
    """Draw shares with 95 % intervals: a line for each curve, with its name at the right end (below if narrow).

    Args:
        lines: the curves.
        axis: name of the x axis.
        label: the chart's text for a screen reader; the numbers follow it.
        width: px.
        marks: ticks of a linear x axis. Empty: the x axis is logarithmic with base 2, with a tick at every point.
        at: an x with a vertical line across the chart.
    """
    lines = [curve for curve in lines if curve.points]
    if not lines:
        return Markup()
    points = list(chain.from_iterable(curve.points for curve in lines))
    xs = list(marks) or sorted({x for x, _, _ in points})
    heights = list(chain.from_iterable((y, *(interval or ())) for _, y, interval in points))
    lowest = min(*heights, 0.95)
    y_ticks = ticks(lowest, max(*heights, lowest + 0.05))
    low, high = max(0.0, y_ticks[0]), min(1.0, y_ticks[-1])
    is_narrow = width < WIDE
    left, top, inset = 52, 26, 24
    frame = Frame(left, top, width - left - (6 if is_narrow else 230), HEIGHT - top - 52, low, high)
    scale = float if marks else math.log2
    reach = scale(xs[-1]) - scale(xs[0]) or 1.0

    def across(x: float) -> float:
        return left + inset + (frame.width - 2 * inset) * (scale(x) - scale(xs[0])) / reach

    # 1. The axes.
    d = Drawing()
    frame.grid(d, ticks(low, high), axis=low)
    for x in xs:
        d.text(across(x), frame.bottom + 20, f"{x:g}", "tick", "middle")
    d.text(frame.right, frame.bottom + 42, axis, "small", "end")
    if at is not None:
        d.line(across(at), frame.top, across(at), frame.bottom, "axis")

    # 2. The curves with intervals and names. The names at the right ends are moved apart.
    ends = spread([frame.y(curve.points[-1][1]) for curve in lines], NAME_LINE)
    # The first curve is the reference of all others: it is drawn last, on top.
    for k, curve in reversed(list(enumerate(lines))):
        spots = [(across(x), frame.y(y)) for x, y, _ in curve.points]
        for (x, _), (_, _, interval) in zip(spots, curve.points, strict=True):
            if interval:
                # Whiskers are 3 px apart, so that none hides another, and thin if there are many. They are never
                # dashed: a gap would make a whisker look too short.
                shifted = x + (k - 1.5) * 3
                y1, y2 = frame.y(interval[0]), frame.y(interval[1])
                style = f"stroke-dasharray:none{';stroke-width:1' if len(curve.points) > 12 else ''}"
                d.tag("line", x1=shifted, y1=y1, x2=shifted, y2=y2, class_=f"stairs {_look(k)}", style=style)
        d.path(spots, f"stairs {_look(k)}")
        name = f"{percent(curve.points[-1][1])} {curve.label}"
        if is_narrow:
            d.text(left, HEIGHT + 4 + NAME_LINE * k, name, f"name {_look(k)}")
        else:
            d.path([(spots[-1][0] + 6, spots[-1][1]), (frame.right + 8, ends[k])], "leader")
            d.text(frame.right + 12, ends[k] + 4, name, f"name {_look(k)}")
        # Invisible dots carry the hints: they are larger than the marks, for touch.
        for spot, (x, y, interval) in zip(spots, curve.points, strict=True):
            hint = f"{curve.label}, {x:g} {axis}: {percent(y)} {span(interval) if interval else ''}"
            d.dot(*spot, 8, "touch", hint.strip())
    numbers = []
    for curve in lines:
        values = ", ".join(f"{percent(y)} at {x:g}" for x, y, _ in curve.points)
        numbers.append(f"{curve.label}: {values}")
    return d.svg(width, HEIGHT + NAME_LINE * len(lines) * is_narrow, f"{label}. {'; '.join(numbers)}.")


# --- shares against shares: ROC and reliability -----------------------------------------------------------------------

SQUARE = Frame(46, 12, 230, 230)


def roc(points: Sequence[tuple[float, float]], area: float) -> Markup:
    """Draw the ROC curve: the share of right paths above each P(correct) against the share of wrong paths."""
    step = max(1, len(points) // 400)
    d = Drawing()
    d.path([SQUARE.at(0, 0), SQUARE.at(1, 1)], "diagonal")
    SQUARE.quarters(d, "share of wrong paths ranked above")
    d.path([SQUARE.at(x, y) for x, y in [*points[:-1:step], points[-1]]], "stairs flight-0")
    d.text(SQUARE.right - 6, SQUARE.bottom - 10, f"AUROC {area:.3f}", "name", "end")
    label = f"ROC curve: share of right paths against share of wrong paths above each score. AUROC {area:.3f}."
    return d.svg(330, SQUARE.bottom + 48, label)


def reliability(bins: Sequence[Mapping[str, float]]) -> Markup:
    """Draw P(correct) against the share of paths that are right. A calibrated judge's points are on the diagonal."""
    most = max(b["n"] for b in bins)
    d = Drawing()
    d.path([SQUARE.at(0, 0), SQUARE.at(1, 1)], "diagonal")
    SQUARE.quarters(d, "P(correct), as the ORM says")
    numbers = []
    for b in bins:
        shares = f"{percent(b['correct'])} of {b['n']:,}"
        hint = f"P(correct) {b['mean_score']:.2f}: {shares} paths right"
        d.dot(*SQUARE.at(b["mean_score"], b["correct"]), 4 + 12 * (b["n"] / most) ** 0.5, "bubble", hint)
        numbers.append(f"P(correct) about {b['mean_score']:.2f}: {shares} right")
    return d.svg(330, SQUARE.bottom + 48, f"Reliability of the ORM's score. {'; '.join(numbers)}.")


# --- panels: a small chart for each training or figure ----------------------------------------------------------------

LossPoints = list[tuple[int, float]]  # (step, loss), in the order of the steps


def loss_points(rows: Sequence[Mapping[str, Any]], key: str) -> LossPoints:
    """Return (step, loss ``key``) of the rows with a positive, finite loss, as a logarithmic scale needs."""
    losses = ((int(row["step"]), row.get(key)) for row in rows)
    return [(step, float(loss)) for step, loss in losses if loss is not None and math.isfinite(loss) and loss > 0]


def losses(fits: Mapping[str, Sequence[Mapping[str, Any]]], width: int = WIDE) -> Markup:
    """Draw a panel for each training, all on the same logarithmic scale. Line: training loss; rings: validation loss.

    ``fits``: the rows of train_log.jsonl by title.
    """
    series = {name: (loss_points(rows, "loss"), loss_points(rows, "val_loss")) for name, rows in fits.items()}
    series = {name: curves for name, curves in series.items() if curves[0]}
    if not series:
        return Markup()
    # 1. The common scale, and the size of a panel: as many in a row as fit.
    values = [loss for _, loss in chain.from_iterable(train + val for train, val in series.values())]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))  # powers of ten
    high = max(high, low + 1)
    every = math.ceil((high - low) / 4)  # at most four labels above each other
    height, left, right, gap = 190, 58, 6, 22
    across = min(4 if width >= WIDE else 2, (width - left - right + gap) // (136 + gap) or 1)
    panel = (width - left - right - gap * (across - 1)) / across
    is_narrow = panel < 180  # then the last training loss and the last validation loss have a line each

    # 2. The panels, row by row.
    d, numbers = Drawing(), []
    d.text(0, 14, "loss", "small")
    for k, (name, (train, val)) in enumerate(series.items()):
        x0, y0 = left + (k % across) * (panel + gap), (k // across) * height
        last = max(step for step, _ in train + val) or 1
        below = 16 if is_narrow else 0
        frame = Frame(x0, y0 + 46 + below, panel, height - 88 - below, low, high)

        def at(point: tuple[int, float], frame: Frame = frame, last: int = last) -> tuple[float, float]:
            return frame.at(point[0] / last, math.log10(point[1]))

        d.text(x0, y0 + 14, name, "name")
        d.text(x0, y0 + 33, f"train {train[-1][1]:.2g}", "small training-ink")
        d.text(x0, frame.bottom + 18, "0", "tick")
        d.text(frame.right, frame.bottom + 18, f"{last:,} steps", "tick", "end")
        # Only the panels at the left have labels.
        marks: dict[float, str] = dict.fromkeys(range(low, high + 1), "")
        if x0 == left:
            marks |= {power: f"{10.0**power:g}" for power in range(low, high + 1, every)}
        frame.grid(d, marks, marks.__getitem__)
        step = math.ceil(len(train) / 160)  # 160 points are enough for a panel's line
        d.path([at(p) for i, p in enumerate(train) if i % step == 0 or i == len(train) - 1], "curve")
        if val:
            x, y, end = (x0, y0 + 49, "start") if is_narrow else (frame.right, y0 + 33, "end")
            d.text(x, y, f"validation {val[-1][1]:.2g}", "small validation-ink", end)
            d.path(map(at, val), "validation")
        for point in val:
            d.dot(*at(point), 3.0, "ring")
        # Invisible dots carry the hints; 40 of them are enough for the training loss.
        for kind, hinted in (("training", train[:: math.ceil(len(train) / 40)]), ("validation", val)):
            for point in hinted:
                d.dot(*at(point), 7, "touch", f"{name}, step {point[0]:,}: {kind} loss {point[1]:.3g}")
        text = f"{name}: {train[0][1]:.3g} at step {train[0][0]}, {train[-1][1]:.3g} at step {train[-1][0]}"
        numbers.append(text + (f", validation {val[-1][1]:.3g}" if val else ""))
    return d.svg(width, height * math.ceil(len(series) / across), f"Training loss. {'; '.join(numbers)}.")


def student(stage: str) -> str:
    """Name the student that wrote the paths on which the ORM was measured."""
    return "own held-out" if stage == "orm" else title(stage)


def orm_panels(series: Sequence[tuple[str, Mapping[str, Any]]], width: int = WIDE) -> Markup:
    """Draw a panel for each figure of the ORM: a point and its interval for each student, its own students first."""
    shown = [(key, name) for key, name in ORM_FIGURES.items() if any(row.get(key) is not None for _, row in series)]
    if not shown:
        return Markup()
    # 1. The common scale: it holds the lower ends of all intervals.
    lowest = []
    for key, _ in shown:
        known = [row for _, row in series if row.get(key) is not None]
        lowest += [((row.get("ci95") or {}).get(key) or [row[key]])[0] for row in known]
    floor = min(ticks(min(lowest), 1.0, 4)[0], 0.9)
    marks = [tick for tick in ticks(floor, 1.0, 4) if floor - 1e-9 <= tick <= 1]
    height, left, gap = 270, 46, 26
    across = len(shown) if width >= WIDE else 1
    panel = (width - left - gap * (across - 1)) / across
    step = panel / len(series)  # px between students

    # 2. The panels.
    d, numbers = Drawing(), []
    for k, (key, name) in enumerate(shown):
        x, y = left + (k % across) * (panel + gap), (k // across) * height
        frame = Frame(x, y + 44, panel, height - 102, floor, 1.0)
        d.text(x, y + 16, name, "name")
        if x == left:
            frame.grid(d, marks)
        else:
            frame.grid(d, marks, lambda tick: "")
        spots = [(x + (i + 0.5) * step, row) for i, (_, row) in enumerate(series)]
        line = [(cx, frame.y(row[key])) for cx, row in spots if row.get(key) is not None]
        if len(line) > 1:
            d.path(line, "thread")
        for (cx, row), (stage, _) in zip(spots, series, strict=True):
            if (share := row.get(key)) is None:
                continue
            interval = (row.get("ci95") or {}).get(key)
            frame.interval(d, cx, interval, "whisker")
            hint = f"{name}, {student(stage)}: {percent(share)} {span(interval) if interval else ''}"
            d.dot(cx, frame.y(share), 4.5, "dot" if row is series[0][1] else "dot newer", hint.strip())
            foot = frame.y(interval[0] if interval else share)
            d.text(cx, min(foot, frame.bottom) + 15, percent(share), "small strong", "middle")
        for i, ((cx, _), (stage, _)) in enumerate(zip(spots, series, strict=True)):
            # Neighbours' names alternate between two lines, so that they do not meet.
            d.text(cx, frame.bottom + 34 + (i % 2) * 15, student(stage), "tick", "middle")
        numbers.append(f"{name}: " + ", ".join(f"{student(s)} {percent(row.get(key))}" for s, row in series))
    label = f"The ORM on held-out paths. {'; '.join(numbers)}."
    return d.svg(width, height * math.ceil(len(shown) / across), label)


# --- the staircase: test accuracy by stage ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Stairs:
    """A flight of stairs: accuracy in [0, 1] by stage, its 95 % interval if known, and the number of training rows."""

    label: str
    accuracy: Mapping[str, float]
    interval: Mapping[str, Sequence[float]]
    rows: Mapping[str, int]


def stairs(label: str, entries: Entries) -> Stairs:
    """Make a flight of the stages that were scored."""
    scored = [e for e in entries if e.get("accuracy") is not None]
    return Stairs(
        label,
        {e["stage"]: e["accuracy"] for e in scored},
        {e["stage"]: e["ci95"] for e in scored if e.get("ci95")},
        {e["stage"]: e["train_rows"] for e in scored if e.get("train_rows") is not None},
    )


def mean_stairs(label: str, runs: Sequence[Entries]) -> Stairs:
    """Make a flight of the means over seeds with Student's interval; a single run keeps its own (Wilson's)."""
    flights = [stairs(label, entries) for entries in runs]
    if len(flights) == 1:
        return flights[0]
    shared = sorted(set.intersection(*(set(f.accuracy) for f in flights)), key=stage_order)
    means = {stage: mean_share([f.accuracy[stage] for f in flights]) for stage in shared}
    intervals = {stage: interval for stage, (_, interval) in means.items() if interval}
    return Stairs(label, {stage: mean for stage, (mean, _) in means.items()}, intervals, {})


def staircase_svg(summaries: Mapping[str, Entries] | Entries) -> str:
    """Draw the staircase as a standalone SVG file, of a run's summary["stages"] or of several runs by name."""
    by_name = summaries if isinstance(summaries, Mapping) else {"": summaries}
    return standalone(staircase([stairs(name, entries) for name, entries in by_name.items()]))


def staircase(flights: Sequence[Stairs], width: int = WIDE) -> Markup:
    """Draw a single flight with its intervals, gains and rows, or several flights over each other with their names.

    A flight without a stage has a gap there.
    """
    flights = [f for f in flights if f.accuracy]
    if not flights:
        return Markup()
    stages = sorted(set(chain.from_iterable(f.accuracy for f in flights)), key=stage_order)
    is_narrow = width < WIDE
    beside = 6 if is_narrow else 270  # px of the names of several flights
    right = 16 if len(flights) == 1 else beside
    highest = max(max(f.interval.get(stage, (0, share))[1] for stage, share in f.accuracy.items()) for f in flights)
    left, top, bottom = 52, 30, 54
    frame = Frame(left, top, width - left - right, HEIGHT - top - bottom, 0, ticks_from_zero(highest)[-1])
    tread = frame.width / len(stages)  # px of a stage
    start = {stage: left + k * tread for k, stage in enumerate(stages)}
    # A tread below 36 px has no room for its name and figure: only every second or third tread and the last have them.
    every = math.ceil(36 / tread)
    named = [stage for k, stage in enumerate(stages) if (len(stages) - 1 - k) % every == 0]
    is_close, is_tight = tread < 84, tread < 48

    # 1. The axis and the names of the stages.
    d = Drawing()
    frame.grid(d, ticks(0, frame.high), axis=0)
    for k, stage in enumerate(named):
        # The last name of tight treads ends at the frame. Close neighbours' names alternate between two lines.
        x, anchor = (frame.right, "end") if is_tight and stage == stages[-1] else (start[stage] + tread / 2, "middle")
        lower = 15 * (k % 2) if is_close else 0
        d.text(x, frame.bottom + 22 + lower, title(stage), "small strong" if is_close else "name", anchor)

    # 2. The intervals of the first flight, then the stairs of all flights.
    for stage, interval in reversed(list(flights[0].interval.items())):
        if stage in start:
            d.rect(start[stage], frame.y(interval[1]), tread, frame.y(interval[0]) - frame.y(interval[1]), "band")
    # The first flight is the reference of all others: it is drawn last, on top.
    for k, flight in reversed(list(enumerate(flights))):
        lines: list[list[tuple[float, float]]] = [[]]
        for stage in stages:
            if stage in flight.accuracy:
                y = frame.y(flight.accuracy[stage])
                lines[-1] += [(start[stage], y), (start[stage] + tread, y)]
            elif lines[-1]:
                lines.append([])
        d.paths([line for line in lines if line], "stairs" if len(flights) == 1 else f"stairs {_look(k)}")

    # 3. Figures and hints: at each stage of a single flight, at the end of each of several flights.
    if len(flights) == 1:
        (flight,) = flights
        look = "tiny" if is_tight else "small strong"
        before = None
        for stage, accuracy in flight.accuracy.items():
            y, middle = frame.y(accuracy), start[stage] + tread / 2
            low, high = flight.interval.get(stage, (accuracy, accuracy))
            hint = f"{title(stage)}: {percent(accuracy)}"
            if stage in flight.interval:
                hint += f", 95% interval {span((low, high))}"
            if stage in named:
                above = frame.y(high)
                d.text(middle, above - 8, percent(accuracy), look if is_close else "value", "middle")
            if before is not None:
                # The gain is below the step and its interval, but never on the axis.
                gained = gain(before, accuracy)
                hint += f", {gained} points"
                if stage in named:
                    foot = max(y, frame.y(low))
                    d.text(middle, min(foot + 18, frame.y(0) - 8), gained, "small halo", "middle")
            if stage in flight.rows:
                rows = f"{flight.rows[stage]:,} rows"
                hint += f", fitted on {rows}"
                if not is_close:
                    d.text(middle, frame.bottom + 40, rows, "small", "middle")
            d.rect(start[stage], frame.top, tread, frame.height, "touch", hint)
            before = accuracy
    else:
        for stage in stages:
            shares = [f"{f.label} {percent(f.accuracy[stage])}" for f in flights if stage in f.accuracy]
            d.rect(start[stage], frame.top, tread, frame.height, "touch", f"{title(stage)}: {'; '.join(shares)}")
        last = [list(flight.accuracy.items())[-1] for flight in flights]
        ends = [frame.y(share) for _, share in last]
        places = [(frame.right + 16, y + 4) for y in spread(ends, NAME_LINE)]
        if is_narrow:
            places = [(left, HEIGHT + NAME_LINE * k) for k in range(len(flights))]
        else:
            for (stage, _), end, (x, y) in zip(last, ends, places, strict=True):
                d.path([(start[stage] + tread, end), (x - 4, y - 4)], "leader")
        for k, (flight, (_, share), (x, y)) in enumerate(zip(flights, last, places, strict=True)):
            name = flight.label if len(flight.label) <= 24 else f"{flight.label[:23]}…"  # 24 letters fit
            d.text(x, y, f"{percent(share)} {name}", f"name {_look(k)}")

    # 4. The text for a screen reader.
    label = ["Test accuracy by stage."]
    for flight in flights:
        numbers = ", ".join(f"{title(stage)} {percent(share)}" for stage, share in flight.accuracy.items())
        label.append(f"{flight.label}: {numbers}." if flight.label else f"{numbers}.")
    below = NAME_LINE * len(flights) if is_narrow and len(flights) > 1 else 0
    return d.svg(width, HEIGHT + below, " ".join(label))


# --- the flow: transitions from student to student, as the paper's Figure 2 -------------------------------------------


def flow(
    entries: Entries, width: int = WIDE, problems_of: Callable[[str, str, str], str] = lambda before, after, kind: ""
) -> Markup:
    """Draw Figure 2 of the paper: a column for each student with its right and wrong answers; bands are transitions.

    Args:
        entries: rows of summary.json["stages"].
        width: px.
        problems_of: returns the link to the problems of a transition (stage before, stage after, kind); "": no link.
    """
    steps = [(a, b) for a, b in zip(entries, entries[1:], strict=False) if b.get("transitions")]
    if not steps:
        return Markup()
    students = [steps[0][0], *(b for _, b in steps)]
    total = max(sum(b["transitions"].values()) for _, b in steps)
    height, left, right, top, bottom = 340, 8, 8, 22, 30
    node = 58 if width >= WIDE else 32
    gap = (width - left - right - node * len(students)) / len(steps)
    unit = (height - top - bottom) / max(total, 1)  # px a problem
    floor = height - bottom
    is_close = node + gap < 120  # the names of neighbours then do not fit side by side

    # 1. The bands of each step, with the numbers of problems that change sides.
    d, numbers = Drawing(), []
    for k, (before, after) in enumerate(steps):
        counts = after["transitions"]
        links = {kind: problems_of(before["stage"], after["stage"], kind) for kind in TRANSITIONS}
        hints = {kind: f"{counts[kind]:,} problems {kind.replace('_', ' to ')}" for kind in TRANSITIONS}
        x = left + node + k * (node + gap)
        bend = x + gap / 2
        stay, lost, won, never = (counts[kind] * unit for kind in TRANSITIONS)
        # From below: right stays right, the two bands that cross, wrong stays wrong.
        # (height, upper edge at the left, upper edge at the right)
        shapes = {
            "correct_correct": (stay, floor - stay, floor - stay),
            "wrong_wrong": (never, top, top),
            "correct_wrong": (lost, floor - stay - lost, floor - stay - won - lost),
            "wrong_correct": (won, floor - stay - lost - won, floor - stay - won),
        }
        for kind, (band, y0, y1) in shapes.items():
            outline = (
                f"M{x:.1f} {y0:.1f}C{bend:.1f} {y0:.1f} {bend:.1f} {y1:.1f} {x + gap:.1f} {y1:.1f}v{band:.1f}"
                f"C{bend:.1f} {y1 + band:.1f} {bend:.1f} {y0 + band:.1f} {x:.1f} {y0 + band:.1f}Z"
            )
            with d.link(links[kind] if counts[kind] else "", hints[kind]):
                d.tag("path", _hint(hints[kind]), d=outline, class_=f"band-{kind.replace('_', '-')}")
        edge = floor - stay - won  # between right and wrong, at the right end
        for kind, y, sign, look in (
            ("wrong_correct", max(edge + won / 2 + 4, edge + 14), "+", "gain"),
            ("correct_wrong", min(edge - lost / 2 + 4, edge - 5), "\N{MINUS SIGN}", "loss"),
        ):
            if counts[kind]:
                number, is_tiny = f"{sign}{counts[kind]:,}", gap < 62
                with d.link(links[kind], f"{number}: {hints[kind]}"):
                    d.text(x + gap - (3 if is_tiny else 8), y, number, f"{look} tiny" if is_tiny else look, "end")
        listed = ", ".join(f"{counts[kind]:,} {kind.replace('_', ' to ')}" for kind in TRANSITIONS)
        numbers.append(f"{title(before['stage'])} to {title(after['stage'])}: {listed}.")

    # 2. The columns of the students, with their names and numbers.
    for k, student in enumerate(students):
        # The first step counts the right answers of the first student; each step counts the right answers after it.
        counts = steps[max(k - 1, 0)][1]["transitions"]
        right = counts["correct_correct"] + counts["correct_wrong" if k == 0 else "wrong_correct"]
        x, edge = left + k * (node + gap), floor - right * unit
        middle = x + node / 2
        d.rect(x, top, node, edge - top, "node-wrong")
        d.rect(x, edge, node, floor - edge, "node-right")
        at, anchor = middle, "middle"
        if is_close and k == 0:  # the outer names stay on the picture
            at, anchor = x, "start"
        elif is_close and k == len(students) - 1:
            at, anchor = x + node, "end"
        lower = 15 * (k % 2) if is_close else 0  # neighbours' names alternate between two lines
        d.text(at, floor + 20 + lower, title(student["stage"]), "small strong" if is_close else "name", anchor)
        tiny = " tiny" if is_close else ""
        if right * unit > 18:
            d.text(middle, edge + 16, f"{right:,}", f"on-accent{tiny}", "middle")
        if (total - right) * unit > 18:
            d.text(middle, edge - 7, f"{total - right:,}", f"small{tiny}", "middle")
    return d.svg(width, height + 10, f"Transitions of test problems. {' '.join(numbers)}")


# --- a study's pictures: means over seeds -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A variant's cost and share for each seed."""

    spent: Sequence[float]
    shares: Sequence[float]


def _ticks_of_means(seeds: Iterable[Sequence[float]], means: Iterable[tuple[float, Interval]]) -> list[float]:
    """Return the ticks of a scale for every seed and every interval."""
    ends = list(chain.from_iterable(seeds))
    ends += chain.from_iterable(interval or () for _, interval in means)
    return ticks_from_zero(max(ends))


def means(values: Mapping[str, Sequence[float]], name: str, axis: str | None) -> Markup:
    """Draw each variant's mean, its interval and its seeds.

    Args:
        values: shares of the seeds, by variant.
        name: name of the share.
        axis: name of the quantity along the variants; a line then joins them. None: no line.
    """
    mean_of = {variant: mean_share(list(shares)) for variant, shares in values.items()}
    marks = _ticks_of_means(values.values(), mean_of.values())
    left, line, foot = 56, 18, 24  # px: the margin, a line of a name, the space below
    step = (STUDY - left - 20) / len(values)
    names = {v: textwrap.wrap(v, max(int(step / LETTER_WIDTH), 1), break_long_words=False) for v in values}
    frame = Frame(left, 54, STUDY - left - 20, 224, 0, marks[-1])
    height = frame.bottom + line * (max(map(len, names.values())) + (axis is not None)) + foot
    x_of = {variant: left + step * (k + 0.5) for k, variant in enumerate(values)}

    # 1. The axes, and the line that joins the means.
    d = Drawing()
    d.text(8, 20, f"{name}, %", "small")
    frame.grid(d, marks, lambda tick: f"{100 * tick:.4g}", axis=0)
    if axis is not None:
        d.path([(x_of[v], frame.y(mean)) for v, (mean, _) in mean_of.items()], "curve")
        d.text((frame.left + frame.right) / 2, height - 10, axis, "small", "middle")
    # 2. Each variant: interval, seeds beside the mean, number and name.
    for variant, (mean, interval) in mean_of.items():
        x, y = x_of[variant], frame.y(mean)
        frame.interval(d, x, interval, "whisker")
        for share in values[variant]:
            d.dot(x + 10, frame.y(share), 2.5, "quiet", f"{variant}: {percent(share)} with one seed")
        d.dot(x, y, 5, "dot")
        if axis is None:
            d.text(x - 10, y + 5, f"{100 * mean:.1f}", "strong halo", "end")
        else:  # a line comes from the left: the number is above all marks of its variant
            above = frame.y(max(*values[variant], *(interval or ())))
            d.text(x, above - 10, f"{100 * mean:.1f}", "strong halo", "middle")
        for k, words in enumerate(names[variant]):
            d.text(x, frame.bottom + 20 + line * k, words, "name", "middle")
    return d.svg(STUDY, height, f"{name}: {', '.join(f'{v} {percent(mean)}' for v, (mean, _) in mean_of.items())}")


def means_by_cost(lines: Mapping[str, Sequence[Point]], name: str, axis: str) -> Markup:
    """Draw shares against a positive cost. Small dots: seeds; large dots: means, with their intervals.

    The x axis is logarithmic, because such a study doubles its cost.

    Args:
        lines: points by the name of their line.
        name: name of the share.
        axis: name of the cost.
    """
    points = list(chain.from_iterable(lines.values()))
    mean_of = {id(point): mean_share(list(point.shares)) for point in points}
    marks = _ticks_of_means([point.shares for point in points], mean_of.values())
    left, top = 56, 48
    frame = Frame(left, top, STUDY - left - 24, HEIGHT - top - 80, 0, marks[-1])
    spent = list(chain.from_iterable(point.spent for point in points))
    least, most = math.log(min(spent) / 1.15), math.log(max(spent) * 1.15)

    def x(cost: float) -> float:
        return frame.x((math.log(cost) - least) / (most - least))

    def short(cost: float) -> str:
        """Write a count; shorten operations with a prefix."""
        return f"{cost:,.0f}" if cost < 1e8 else shorten_number(cost)

    # 1. The axes. The x axis has ticks at 1, 2 and 5 times each power of ten.
    d, numbers = Drawing(), []
    d.text(8, 20, f"{name}, %", "small")
    frame.grid(d, marks, lambda tick: f"{100 * tick:.4g}", axis=0)
    for power in range(math.floor(math.log10(min(spent))), math.ceil(math.log10(max(spent))) + 1):
        for mark in (10.0**power, 2 * 10.0**power, 5 * 10.0**power):
            if least <= math.log(mark) <= most:
                d.line(x(mark), frame.bottom, x(mark), frame.bottom + 5, "axis")
                d.text(x(mark), frame.bottom + 20, short(mark), "tick", "middle")
    d.text((frame.left + frame.right) / 2, frame.bottom + 40, axis, "small", "middle")

    # 2. Each line through its means, with intervals, seeds and numbers.
    for k, (label, line) in enumerate(lines.items()):
        look = ("accent", "signal", "muted")[k % 3]
        in_order = [(fmean(point.spent), *mean_of[id(point)], point) for point in line]
        in_order.sort(key=lambda entry: entry[0])
        d.path([(x(cost), frame.y(mean)) for cost, mean, _, _ in in_order], f"line-{look}")
        for cost, mean, interval, point in in_order:
            frame.interval(d, x(cost), interval, f"line-{look}")
            for seed_cost, share in zip(point.spent, point.shares, strict=True):
                hint = f"{label}: {percent(share)} with {short(seed_cost)} {axis}"
                d.dot(x(seed_cost), frame.y(share), 2.5, "quiet", hint)
            d.dot(x(cost), frame.y(mean), 5, look)
            # The first line's numbers are above all marks of the point, the other lines' numbers below them.
            reach = [frame.y(share) for share in (*point.shares, *(interval or ()))]
            at = min(reach) - 8 if k == 0 else min(max(reach) + 18, frame.bottom - 6)
            d.text(x(cost), at, f"{100 * mean:.1f}", "strong halo", "middle")
        # The legend is below the chart.
        legend_x = frame.left + frame.width * k / len(lines)
        d.path([(legend_x, HEIGHT - 16), (legend_x + 24, HEIGHT - 16)], f"line-{look}")
        d.text(legend_x + 32, HEIGHT - 11, label, "name")
        numbers.append(f"{label} " + ", ".join(f"{percent(mean)} with {short(cost)}" for cost, mean, _, _ in in_order))
    return d.svg(STUDY, HEIGHT, f"{name} against {axis}: {'; '.join(numbers)}")
