"""A study's picture where its variants lie on lines: the first measure against another one, such as teacher calls.

The axis is logarithmic, since such a study doubles what it spends. A small dot is a seed where its own run stands, a
large one the means of both measures, with the interval of the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mathse.reporting.progress.wording import scaled
from mathse.reporting.report import svg
from mathse.reporting.report.frame import Frame, from_zero
from mathse.scoring.metrics import mean_share

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 48, 80  # margins in px
LOOKS = ("accent", "signal", "muted")  # of a line and what stands on it
LARGE = 1e8  # from here on a number is written with a prefix
STEPS = (1, 2, 5)  # of a tick, times a power of ten


@dataclass(frozen=True)
class Point:
    """A variant. ``spent`` and ``shares``: by seed, of the axis and of what is drawn against it."""

    spent: Sequence[float]
    shares: Sequence[float]

    @property
    def at(self) -> float:
        return fmean(self.spent)


def short(spent: float) -> str:
    """A count as it is, operations with a prefix."""
    return f"{spent:,.0f}" if spent < LARGE else scaled(spent)


def curves(lines: Mapping[str, Sequence[Point]], name: str, axis: str) -> str:
    """``lines``: a line's name -> its variants; ``name``: of the shares, ``axis``: of what was spent, above 0."""
    points = [point for line in lines.values() for point in line]
    means = {id(point): mean_share(list(point.shares)) for point in points}
    ends = [share for point in points for share in point.shares]
    ends += [end for _, interval in means.values() for end in interval or ()]
    ticks = from_zero(max(ends))
    frame = Frame(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, 0, ticks[-1])
    spent = [x for point in points for x in point.spent]
    least, most = math.log(min(spent) / 1.15), math.log(max(spent) * 1.15)

    def x(value: float) -> float:
        return frame.x((math.log(value) - least) / (most - least))

    body = svg.text(8, 20, f"{name}, %", "small") + frame.grid(ticks, lambda tick: f"{100 * tick:.4g}", axis=0)
    powers = range(math.floor(math.log10(min(spent))), math.ceil(math.log10(max(spent))) + 1)
    marks = [step * 10.0**power for power in powers for step in STEPS]
    for mark in (m for m in marks if least <= math.log(m) <= most):
        body += svg.line(x(mark), frame.bottom, x(mark), frame.bottom + 5, "axis")
        body += svg.text(x(mark), frame.bottom + 20, short(mark), "tick", "middle")
    body += svg.text((frame.left + frame.right) / 2, frame.bottom + 40, axis, "small", "middle")

    spoken = []
    for k, (called, line) in enumerate(lines.items()):
        look = LOOKS[k % len(LOOKS)]
        in_order = sorted(line, key=lambda point: point.at)
        body += svg.path([(x(p.at), frame.y(means[id(p)][0])) for p in in_order], f"line-{look}")
        for point in in_order:
            mean, interval = means[id(point)]
            if interval:
                body += svg.line(x(point.at), frame.y(interval[0]), x(point.at), frame.y(interval[1]), f"line-{look}")
            for calls, share in zip(point.spent, point.shares, strict=True):
                hint = svg.tag("title", svg.safe(f"{called}: {svg.percent(share)} with {short(calls)} {axis}"))
                body += svg.tag("circle", hint, cx=x(calls), cy=frame.y(share), r=2.5, class_="quiet")
            body += svg.tag("circle", cx=x(point.at), cy=frame.y(mean), r=5, class_=look)
            # The first line's figures stand above all that belongs to the point, the others' below: no line runs there.
            reach = [frame.y(share) for share in (*point.shares, *(interval or ()))]
            at = min(reach) - 8 if k == 0 else min(max(reach) + 18, frame.bottom - 6)
            body += svg.text(x(point.at), at, f"{100 * mean:.1f}", "strong halo", "middle")
        key = frame.left + frame.width * k / len(lines)
        body += svg.path([(key, HEIGHT - 16), (key + 24, HEIGHT - 16)], f"line-{look}")
        body += svg.text(key + 32, HEIGHT - 11, called, "name")
        numbers = ", ".join(f"{svg.percent(means[id(p)][0])} with {short(p.at)}" for p in in_order)
        spoken.append(f"{called} {numbers}")
    return svg.chart(WIDTH, HEIGHT, body, f"{name} against {axis}: {'; '.join(spoken)}")
