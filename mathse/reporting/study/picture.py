"""A study's picture: a staircase where its rows are stages, lines where it names some, else a variant's mean, its
interval and its seeds. It is drawn from ``results.json`` alone, so it can be drawn again without the runs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.compare import mean_stairs
from mathse.reporting.report.frame import Frame, from_zero
from mathse.reporting.report.staircase import staircase
from mathse.reporting.study.curves import Point, curves
from mathse.reporting.study.design import Design
from mathse.scoring.metrics import mean_share

WIDTH, HEIGHT = 760, 320  # px without the lines of names
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 54, 24  # margins in px, the lower one without what stands in it
LINE = 18  # px from a line of a name to the next
LETTER = 9  # px of a name's letter, rather too many


def picture(design: Design, results: Mapping[str, Any]) -> str | None:
    """A standalone SVG file of the first measure; None where a seed lacks it (or what it is drawn against), or it is no
    share. ``results``: what results.json holds."""
    variants = results["variants"]
    if design.rows == "stages":
        runs = list(variants[design.variants[0]]["stages"].values())
        return svg.standalone(staircase([mean_stairs(design.name, runs)]))
    measures = {v: variants[v]["measures"] for v in design.variants}
    name = next(iter(measures[design.against]))
    values = {v: [x for x in measures[v][name] if x is not None] for v in design.variants}
    seeds = len(results["seeds"])
    if any(len(xs) < seeds for xs in values.values()) or max(map(max, values.values())) > 1:
        return None
    if design.over is not None:
        spent = {v: [x for x in measures[v][design.over] if x] for v in design.variants}
        if any(len(xs) < seeds for xs in spent.values()):
            return None
        lines = {called: [Point(spent[v], values[v]) for v in joined] for called, joined in design.lines.items()}
        return svg.standalone(curves(lines, name, design.over))
    return svg.standalone(dots({design.called(v): xs for v, xs in values.items()}, name, design.axis))


def dots(values: dict[str, list[float]], name: str, axis: str | None) -> str:
    """``values``: one a seed, by what a variant is called."""
    means = {v: mean_share(xs) for v, xs in values.items()}
    # The scale holds every seed and every interval.
    ends = [x for xs in values.values() for x in xs]
    ends += [end for _, interval in means.values() for end in interval or ()]
    ticks = from_zero(max(ends))

    step = (WIDTH - LEFT - RIGHT) / len(values)
    names = {v: textwrap.wrap(v, max(int(step / LETTER), 1), break_long_words=False) for v in values}
    lines = max(map(len, names.values()))
    frame = Frame(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM - LINE, 0, ticks[-1])
    height = frame.bottom + LINE * (lines + (axis is not None)) + BOTTOM
    xs = {v: LEFT + step * (k + 0.5) for k, v in enumerate(values)}
    body = svg.text(8, 20, f"{name}, %", "small")
    body += frame.grid(ticks, lambda tick: f"{100 * tick:.4g}", axis=0)
    if axis is not None:  # variants are steps of one thing: a line joins them
        body += svg.path([(xs[v], frame.y(mean)) for v, (mean, _) in means.items()], "curve")
        body += svg.text((frame.left + frame.right) / 2, height - 10, axis, "small", "middle")
    for variant, (mean, interval) in means.items():
        x, y = xs[variant], frame.y(mean)
        if interval:
            body += svg.line(x, frame.y(interval[0]), x, frame.y(interval[1]), "whisker")
        for seed in values[variant]:
            hint = svg.tag("title", svg.safe(f"{variant}: {svg.percent(seed)} with one seed"))
            body += svg.tag("circle", hint, cx=x + 10, cy=frame.y(seed), r=2.5, class_="quiet")
        body += svg.tag("circle", cx=x, cy=y, r=5, class_="dot")
        figure = f"{100 * mean:.1f}"
        if axis is None:
            body += svg.text(x - 10, y + 5, figure, "strong halo", "end")
        else:  # a line comes from the left: the figure stands above all that belongs to its variant
            top = frame.y(max(*values[variant], *(interval or ())))
            body += svg.text(x, top - 10, figure, "strong halo", "middle")
        for k, line in enumerate(names[variant]):
            body += svg.text(x, frame.bottom + 20 + LINE * k, line, "name", "middle")
    spoken = ", ".join(f"{v} {svg.percent(mean)}" for v, (mean, _) in means.items())
    return svg.chart(WIDTH, height, body, f"{name}: {spoken}")
