"""A study's picture: a staircase where its rows are stages, lines where it names some, else a variant's mean, its
interval and its seeds."""

from __future__ import annotations

from mathse.reporting.report import svg
from mathse.reporting.report.compare import Variant, mean_flight
from mathse.reporting.report.frame import Frame
from mathse.reporting.report.staircase import staircase
from mathse.reporting.study.collect import Collected
from mathse.reporting.study.curves import Point, curves
from mathse.scoring.metrics import mean_share

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 34, 56  # margins in px


def picture(collected: Collected) -> str | None:
    """A standalone SVG file of the first measure; None where a seed lacks it (or what it is drawn against), or it is no
    share."""
    design = collected.design
    if design.rows == "stages":
        flight = mean_flight(Variant(design.name, collected.runs[design.variants[0]], {}))
        return svg.standalone(staircase([flight]))
    name, measure = next(iter(design.measures.items()))
    values = {v: [x for x in collected.values(v, measure) if x is not None] for v in design.variants}
    if any(len(xs) < len(collected.seeds) for xs in values.values()) or max(map(max, values.values())) > 1:
        return None
    if design.over is not None:
        spent = {v: [x for x in collected.values(v, design.measures[design.over]) if x] for v in design.variants}
        if any(len(xs) < len(collected.seeds) for xs in spent.values()):
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
    ticks = svg.ticks(min(ends), max(ends))
    low, high = ticks[0], ticks[-1] if ticks[-1] > ticks[0] else ticks[0] + 0.1

    frame = Frame(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, low, high)
    step = frame.width / len(values)
    xs = {v: LEFT + step * (k + 0.5) for k, v in enumerate(values)}
    body = svg.text(8, 20, f"{name}, %", "small")
    body += frame.grid(ticks, lambda tick: f"{100 * tick:.4g}")
    if axis is not None:  # variants are steps of one thing: a line joins them
        body += svg.path([(xs[v], frame.y(mean)) for v, (mean, _) in means.items()], "curve")
        body += svg.text((frame.left + frame.right) / 2, HEIGHT - 8, axis, "small", "middle")
    for variant, (mean, interval) in means.items():
        x, y = xs[variant], frame.y(mean)
        if interval:
            body += svg.line(x, frame.y(interval[0]), x, frame.y(interval[1]), "whisker")
        for seed in values[variant]:
            hint = svg.tag("title", svg.safe(f"{variant}: {svg.percent(seed)} with one seed"))
            body += svg.tag("circle", hint, cx=x + 10, cy=frame.y(seed), r=2.5, class_="quiet")
        body += svg.tag("circle", cx=x, cy=y, r=5, class_="dot")
        body += svg.text(x - 10, y + 5, f"{100 * mean:.1f}", "strong halo", "end")
        body += svg.text(x, frame.bottom + 20, variant, "name", "middle")
    spoken = ", ".join(f"{v} {svg.percent(mean)}" for v, (mean, _) in means.items())
    return svg.chart(WIDTH, HEIGHT, body, f"{name}: {spoken}")
