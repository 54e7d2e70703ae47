"""Test accuracy by stage: the picture that the method is about, for one run or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.frame import Frame
from mathse.runs.layout import place, title

WIDTH, HEIGHT = 960, 380
LEFT, TOP, BOTTOM = 52, 30, 54  # margins in px; the right one depends on what stands there
MOST = 24  # characters of a flight's name


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


def staircase(flights: Sequence[Stairs]) -> str:
    """Draw one flight with treads, intervals and numbers, or overlay several with their names at the right."""
    flights = [f for f in flights if f.accuracy]
    if not flights:
        return ""
    stages = sorted({stage for f in flights for stage in f.accuracy}, key=place)
    right = 16 if len(flights) == 1 else 270
    highest = max(f.interval.get(s, (0, a))[1] for f in flights for s, a in f.accuracy.items())
    top = min(1.0, svg.ticks(0, max(highest, 0.05))[-1])
    frame = Steps(LEFT, TOP, WIDTH - LEFT - right, HEIGHT - TOP - BOTTOM, 0, top, stages)
    body = frame.axes()
    body += _single(flights[0], frame) if len(flights) == 1 else _overlay(flights, frame)
    spoken = ["Test accuracy by stage."]
    for f in flights:
        numbers = ", ".join(f"{title(stage)} {svg.percent(share)}" for stage, share in f.accuracy.items())
        spoken.append(f"{f.label}: {numbers}." if f.label else f"{numbers}.")
    return svg.chart(WIDTH, HEIGHT, body, " ".join(spoken))


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

    def axes(self) -> str:
        names = "".join(
            svg.text(self.start(s) + self.tread / 2, self.bottom + 22, title(s), "name", "middle") for s in self.stages
        )
        return self.grid(svg.ticks(0, self.high), axis=0) + names


def _single(flight: Stairs, frame: Steps) -> str:
    parts, before = [svg.path(_outline(flight, frame), "stairs")], None
    for stage, accuracy in flight.accuracy.items():
        x, y, middle = frame.start(stage), frame.y(accuracy), frame.start(stage) + frame.tread / 2
        top = y
        if interval := flight.interval.get(stage):
            top = frame.y(interval[1])
            hint = f"{title(stage)}: {svg.percent(accuracy)}, 95% interval {svg.span(interval)}"
            parts.insert(0, svg.rect(x, top, frame.tread, frame.y(interval[0]) - top, "band", hint))
        parts.append(svg.text(middle, top - 8, svg.percent(accuracy), "value", "middle"))
        if before is not None:
            # The gain, below the step and its interval, but never on the axis.
            foot = max(y, frame.y(flight.interval.get(stage, (accuracy,))[0]))
            gain = svg.points(accuracy - before)
            parts.append(svg.text(middle, min(foot + 18, frame.y(0) - 8), gain, "small halo", "middle"))
        if stage in flight.rows:
            parts.append(svg.text(middle, HEIGHT - BOTTOM + 40, f"{flight.rows[stage]:,} rows", "small", "middle"))
        before = accuracy
    return "".join(parts)


def _overlay(flights: Sequence[Stairs], frame: Steps) -> str:
    last = [frame.y(list(f.accuracy.values())[-1]) for f in flights]
    # Drawn from the last to the first: the first is the one compared with, and lies on top.
    parts: list[str] = []
    for k, (flight, y) in enumerate(zip(flights, svg.spread(last, 17), strict=True)):
        look = f"flight-{min(k, 5)}"
        parts.append(svg.path(_outline(flight, frame), f"stairs {look}"))
        parts.append(
            svg.path([(frame.start(list(flight.accuracy)[-1]) + frame.tread, last[k]), (frame.right + 12, y)], "leader")
        )
        value = svg.percent(list(flight.accuracy.values())[-1])
        label = flight.label if len(flight.label) <= MOST else flight.label[: MOST - 1] + "…"
        parts.append(svg.text(frame.right + 16, y + 4, f"{value} {label}", f"name {look}"))
    bands = [
        svg.rect(frame.start(s), frame.y(i[1]), frame.tread, frame.y(i[0]) - frame.y(i[1]), "band")
        for s, i in flights[0].interval.items()
    ]
    return "".join(bands + parts[::-1])


def _outline(flight: Stairs, frame: Steps) -> list[tuple[float, float]]:
    return [
        point
        for stage, accuracy in flight.accuracy.items()
        for point in ((frame.start(stage), frame.y(accuracy)), (frame.start(stage) + frame.tread, frame.y(accuracy)))
    ]
