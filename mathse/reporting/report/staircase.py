"""Test accuracy by stage: the picture that the method is about, for one run or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.frame import Frame, from_zero
from mathse.runs.layout import stage_order, title

HEIGHT = 380
LEFT, TOP, BOTTOM = 52, 30, 54  # margins in px; the right one depends on what stands there
NAMES = 270  # px of the flights' names at the right; on a narrow screen they stand below
MOST = 24  # characters of a flight's name
CLOSE = 84  # px of a tread from which its names fit beside their neighbours'
LINE = 17  # px from a flight's name to the next
NEEDED = 36  # px of a tread from which it has a figure of its own
TIGHT = 48  # px of a tread below which its figures are small


@dataclass(frozen=True)
class Stairs:
    """One flight: accuracy in [0, 1] by stage, with its 95 % interval where known, and the rows it was fitted on."""

    label: str
    accuracy: Mapping[str, float]
    interval: Mapping[str, Sequence[float]]
    rows: Mapping[str, int]


def stairs(label: str, entries: Sequence[Mapping[str, Any]]) -> Stairs:
    """From the rows of summary.json["stages"]; unscored stages are left out."""
    scored = [e for e in entries if e.get("accuracy") is not None]
    return Stairs(
        label,
        {e["stage"]: e["accuracy"] for e in scored},
        {e["stage"]: e["ci95"] for e in scored if e.get("ci95")},
        {e["stage"]: e["train_rows"] for e in scored if e.get("train_rows") is not None},
    )


def staircase_svg(summaries: Mapping[str, Sequence[Mapping[str, Any]]] | Sequence[Mapping[str, Any]]) -> str:
    """The staircase as a standalone SVG file: of one run's summary["stages"], or of several by name."""
    by_name = summaries if isinstance(summaries, Mapping) else {"": summaries}
    return svg.standalone(staircase([stairs(name, entries) for name, entries in by_name.items()]))


def staircase(flights: Sequence[Stairs], width: int = svg.WIDE) -> str:
    """Draw one flight with treads, intervals and numbers, or overlay several with their names at the right, or below
    where there is no room. Stages that a flight did not have are left open in it."""
    flights = [f for f in flights if f.accuracy]
    if not flights:
        return ""
    stages = sorted({stage for f in flights for stage in f.accuracy}, key=stage_order)
    is_narrow = width < svg.WIDE
    right = 16 if len(flights) == 1 else 6 if is_narrow else NAMES
    highest = max(f.interval.get(s, (0, a))[1] for f in flights for s, a in f.accuracy.items())
    top = from_zero(highest)[-1]
    frame = Steps(LEFT, TOP, width - LEFT - right, HEIGHT - TOP - BOTTOM, 0, top, stages)
    body = frame.axes()
    height = HEIGHT
    if len(flights) == 1:
        body += _single(flights[0], frame)
    else:
        body += _overlay(flights, frame)
        if is_narrow:
            body += _names([(f, LEFT, HEIGHT + LINE * k) for k, f in enumerate(flights)])
            height += LINE * len(flights)
        else:
            body += _names_at_their_ends(flights, frame)
    spoken = ["Test accuracy by stage."]
    for f in flights:
        numbers = ", ".join(f"{title(stage)} {svg.percent(share)}" for stage, share in f.accuracy.items())
        spoken.append(f"{f.label}: {numbers}." if f.label else f"{numbers}.")
    return svg.chart(width, height, body, " ".join(spoken))


@dataclass(frozen=True)
class Steps(Frame):
    """A frame in which each stage has a tread of equal width."""

    stages: Sequence[str] = ()

    @property
    def tread(self) -> float:
        """px"""
        return self.width / len(self.stages)

    def start(self, stage: str) -> float:
        return self.left + self.stages.index(stage) * self.tread

    def is_named(self, stage: str) -> bool:
        """Whether there is room for its name and figure; of very narrow treads for some, and for the last."""
        from_last = len(self.stages) - 1 - self.stages.index(stage)
        return from_last % math.ceil(NEEDED / self.tread) == 0

    def axes(self) -> str:
        names = ""
        is_close = self.tread < CLOSE
        for k, stage in enumerate(filter(self.is_named, self.stages)):
            lower = 15 * (k % 2) if is_close else 0  # neighbours on two lines, so that names do not meet
            x, end = self.start(stage) + self.tread / 2, "middle"
            if self.tread < TIGHT and stage == self.stages[-1]:
                x, end = self.right, "end"
            look = "small strong" if is_close else "name"
            names += svg.text(x, self.bottom + 22 + lower, title(stage), look, end)
        return self.grid(svg.ticks(0, self.high), axis=0) + names


def _single(flight: Stairs, frame: Steps) -> str:
    parts, before = [svg.paths(_outline(flight, frame), "stairs")], None
    look = "value" if frame.tread >= CLOSE else "small strong" if frame.tread >= TIGHT else "tiny"
    for stage, accuracy in flight.accuracy.items():
        x, y, middle = frame.start(stage), frame.y(accuracy), frame.start(stage) + frame.tread / 2
        top = y
        hint = f"{title(stage)}: {svg.percent(accuracy)}"
        if interval := flight.interval.get(stage):
            top = frame.y(interval[1])
            parts.insert(0, svg.rect(x, top, frame.tread, frame.y(interval[0]) - top, "band"))
            hint += f", 95% interval {svg.span(interval)}"
        if frame.is_named(stage):
            parts.append(svg.text(middle, top - 8, svg.percent(accuracy), look, "middle"))
        if before is not None:
            # The gain, below the step and its interval, but never on the axis.
            foot = max(y, frame.y(flight.interval.get(stage, (accuracy,))[0]))
            gain = svg.gain(before, accuracy)
            if frame.is_named(stage):
                parts.append(svg.text(middle, min(foot + 18, frame.y(0) - 8), gain, "small halo", "middle"))
            hint += f", {gain} points"
        if stage in flight.rows:
            rows = f"{flight.rows[stage]:,} rows"
            hint += f", fitted on {rows}"
            if frame.tread >= CLOSE:
                parts.append(svg.text(middle, HEIGHT - BOTTOM + 40, rows, "small", "middle"))
        parts.append(svg.rect(x, frame.top, frame.tread, frame.height, "touch", hint))
        before = accuracy
    return "".join(parts)


def _overlay(flights: Sequence[Stairs], frame: Steps) -> str:
    # Drawn from the last to the first: the first is the one compared with, and lies on top.
    drawn = [svg.paths(_outline(flight, frame), f"stairs {_look(k)}") for k, flight in enumerate(flights)]
    bands = [
        svg.rect(frame.start(s), frame.y(i[1]), frame.tread, frame.y(i[0]) - frame.y(i[1]), "band")
        for s, i in flights[0].interval.items()
    ]
    touched = []
    for stage in frame.stages:
        shares = [f"{f.label} {svg.percent(f.accuracy[stage])}" for f in flights if stage in f.accuracy]
        hint = f"{title(stage)}: {'; '.join(shares)}"
        touched.append(svg.rect(frame.start(stage), frame.top, frame.tread, frame.height, "touch", hint))
    return "".join([*bands, *drawn[::-1], *touched])


def _names_at_their_ends(flights: Sequence[Stairs], frame: Steps) -> str:
    ends = [frame.y(list(f.accuracy.values())[-1]) for f in flights]
    spread = svg.spread(ends, LINE)
    leaders = [
        svg.path([(frame.start(list(f.accuracy)[-1]) + frame.tread, end), (frame.right + 12, y)], "leader")
        for f, end, y in zip(flights, ends, spread, strict=True)
    ]
    return "".join(leaders) + _names([(f, frame.right + 16, y + 4) for f, y in zip(flights, spread, strict=True)])


def _names(places: Sequence[tuple[Stairs, float, float]]) -> str:
    """Each flight's name behind its last accuracy, at (x, y)."""
    names = ""
    for k, (flight, x, y) in enumerate(places):
        label = flight.label if len(flight.label) <= MOST else flight.label[: MOST - 1] + "…"
        names += svg.text(x, y, f"{svg.percent(list(flight.accuracy.values())[-1])} {label}", f"name {_look(k)}")
    return names


def _look(k: int) -> str:
    return f"flight-{min(k, 5)}"


def _outline(flight: Stairs, frame: Steps) -> list[list[tuple[float, float]]]:
    """A line over the treads; a new one begins behind a stage that others had and this flight did not."""
    lines: list[list[tuple[float, float]]] = [[]]
    for stage in frame.stages:
        if stage in flight.accuracy:
            y = frame.y(flight.accuracy[stage])
            lines[-1] += [(frame.start(stage), y), (frame.start(stage) + frame.tread, y)]
        elif lines[-1]:
            lines.append([])
    return [line for line in lines if line]
