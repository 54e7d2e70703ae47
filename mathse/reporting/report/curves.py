"""Accuracy against a number that doubles (1, 2, 4, ...): a line a series, with 95 % intervals as whiskers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mathse.reporting.report import svg
from mathse.reporting.report.frame import Frame

HEIGHT = 380
LEFT, RIGHT, TOP, BOTTOM, INSET = 52, 230, 26, 52, 24
LINE = 17  # px from a curve's name to the next
WHISKER = 3  # px between the whiskers of neighbouring series, so that none hides another


@dataclass(frozen=True)
class Curve:
    """``points``: (x, accuracy in [0, 1], its interval or None), x rising."""

    label: str
    points: Sequence[tuple[int, float, Sequence[float] | None]]


def curves(drawn: Sequence[Curve], axis: str, spoken: str, width: int = svg.WIDE) -> str:
    """All curves on one scale, named at their right ends, or below where there is no room; ``axis`` names x."""
    drawn = [curve for curve in drawn if curve.points]
    if not drawn:
        return ""
    xs = sorted({x for curve in drawn for x, _, _ in curve.points})
    heights = [end for curve in drawn for _, y, interval in curve.points for end in (y, *(interval or ()))]
    lowest = min(*heights, 0.95)
    ticks = svg.ticks(lowest, max(*heights, lowest + 0.05))
    low, high = max(0.0, ticks[0]), min(1.0, ticks[-1])
    is_narrow = width < svg.WIDE
    frame = Frame(LEFT, TOP, width - LEFT - (6 if is_narrow else RIGHT), HEIGHT - TOP - BOTTOM, low, high)

    def across(x: int) -> float:
        """px of a number that doubles, with some room at both ends"""
        doublings = math.log2(xs[-1] / xs[0]) or 1.0
        return LEFT + INSET + (frame.width - 2 * INSET) * math.log2(x / xs[0]) / doublings

    axes = frame.grid(svg.ticks(low, high), axis=low)
    axes += "".join(svg.text(across(x), frame.bottom + 20, x, "tick", "middle") for x in xs)
    axes += svg.text(frame.right, frame.bottom + 42, axis, "small", "end")
    # px of the labels at the right
    ends = svg.spread([frame.y(curve.points[-1][1]) for curve in drawn], LINE)
    lines = []
    for k, curve in enumerate(drawn):
        look = f"flight-{min(k, 5)}"
        spots = [(across(x), frame.y(y)) for x, y, _ in curve.points]
        shift = (k - 1.5) * WHISKER
        whiskers = "".join(
            svg.whisker(across(x) + shift, frame.y(interval[0]), frame.y(interval[1]), f"stairs {look}")
            for x, _, interval in curve.points
            if interval
        )
        end_x, end_y = spots[-1]
        name = f"{svg.percent(curve.points[-1][1])} {curve.label}"
        if is_narrow:
            named = svg.text(LEFT, HEIGHT + 4 + LINE * k, name, f"name {look}")
        else:
            named = svg.path([(end_x + 6, end_y), (frame.right + 8, ends[k])], "leader")
            named += svg.text(frame.right + 12, ends[k] + 4, name, f"name {look}")
        hints = (
            f"{curve.label}, {x} {axis}: {svg.percent(y)} {svg.span(i) if i else ''}".strip()
            for x, y, i in curve.points
        )
        touched = "".join(
            svg.tag("circle", svg.tag("title", svg.safe(hint)), cx=x, cy=y, r=8, class_="touch")
            for (x, y), hint in zip(spots, hints, strict=True)
        )
        lines.append(whiskers + svg.path(spots, f"stairs {look}") + named + touched)
    numbers = "; ".join(f"{c.label}: " + ", ".join(f"{svg.percent(y)} at {x}" for x, y, _ in c.points) for c in drawn)
    # The first curve is the one compared with: it is drawn last, on top.
    height = HEIGHT + LINE * len(drawn) if is_narrow else HEIGHT
    return svg.chart(width, height, axes + "".join(lines[::-1]), f"{spoken}. {numbers}.")
