"""Accuracy against a number that doubles (1, 2, 4, ...): a line a series, with 95 % intervals as whiskers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mathse.reporting.report import svg

WIDTH, HEIGHT = 960, 380
LEFT, RIGHT, TOP, BOTTOM = 52, 230, 26, 52
WHISKER = 3  # px between the whiskers of neighbouring series, so that none hides another


@dataclass(frozen=True)
class Curve:
    """``points``: (x, accuracy in [0, 1], its interval or None), x rising."""

    label: str
    points: Sequence[tuple[int, float, Sequence[float] | None]]


def curves(drawn: Sequence[Curve], axis: str, spoken: str) -> str:
    """All curves on one scale, named at their right ends; ``axis`` names x."""
    drawn = [curve for curve in drawn if curve.points]
    if not drawn:
        return ""
    xs = sorted({x for curve in drawn for x, _, _ in curve.points})
    heights = [end for curve in drawn for _, y, interval in curve.points for end in (y, *(interval or ()))]
    lowest = min(*heights, 0.95)
    marks = svg.ticks(lowest, max(*heights, lowest + 0.05))
    frame = _Frame(xs, max(0.0, marks[0]), min(1.0, marks[-1]))
    ends = svg.spread([frame.y(curve.points[-1][1]) for curve in drawn], 17)
    lines = [_line(curve, k, frame, ends[k]) for k, curve in enumerate(drawn)]
    said = "; ".join(f"{c.label}: " + ", ".join(f"{svg.percent(y)} at {x}" for x, y, _ in c.points) for c in drawn)
    return svg.chart(WIDTH, HEIGHT, frame.axes(axis) + "".join(lines[::-1]), f"{spoken}. {said}.")


@dataclass(frozen=True)
class _Frame:
    xs: Sequence[int]
    low: float  # the accuracy at the bottom
    high: float  # the accuracy at the top

    def x(self, value: int) -> float:
        span = math.log2(self.xs[-1] / self.xs[0]) or 1.0
        return LEFT + 24 + (WIDTH - LEFT - RIGHT - 48) * math.log2(value / self.xs[0]) / span

    def y(self, accuracy: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - accuracy) / (self.high - self.low)

    def axes(self, axis: str) -> str:
        grid = "".join(
            svg.line(LEFT, self.y(v), WIDTH - RIGHT, self.y(v), "axis" if v == self.low else "grid")
            + svg.text(LEFT - 10, self.y(v) + 4, svg.percent(v, 0), "tick", "end")
            for v in svg.ticks(self.low, self.high)
        )
        marks = "".join(svg.text(self.x(x), HEIGHT - BOTTOM + 20, x, "tick", "middle") for x in self.xs)
        return grid + marks + svg.text(WIDTH - RIGHT, HEIGHT - BOTTOM + 42, axis, "small", "end")


def _line(curve: Curve, k: int, frame: _Frame, label_y: float) -> str:
    look = f"flight-{min(k, 5)}"
    places = [(frame.x(x), frame.y(y)) for x, y, _ in curve.points]
    shift = (k - 1.5) * WHISKER
    whiskers = "".join(
        _whisker(frame.x(x) + shift, frame.y(i[0]), frame.y(i[1]), look) for x, _, i in curve.points if i
    )
    end = places[-1]
    leader = svg.path([(end[0] + 6, end[1]), (WIDTH - RIGHT + 8, label_y)], "leader")
    name = f"{svg.percent(curve.points[-1][1])} {curve.label}"
    return (
        whiskers
        + svg.path(places, f"stairs {look}")
        + leader
        + svg.text(WIDTH - RIGHT + 12, label_y + 4, name, f"name {look}")
    )


def _whisker(x: float, low: float, high: float, look: str) -> str:
    """Never dashed, as some lines are: it would look shorter than it is."""
    return svg.tag("line", x1=x, y1=low, x2=x, y2=high, class_=f"stairs {look}", style="stroke-dasharray:none")
