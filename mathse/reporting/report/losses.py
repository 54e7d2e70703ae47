"""Loss curves, a small panel a fit, all on one logarithmic scale so that fits can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.frame import Frame

HEIGHT, GAP, LEFT, RIGHT, TOP, BOTTOM = 190, 22, 58, 6, 46, 42
PANEL = 136  # px of a panel at least
TOUCHED = 40  # points of a curve whose values are shown at the pointer
MOST = 160  # points drawn of a curve
LABELS = 4  # of powers of ten, one above the other

Points = list[tuple[int, float]]  # (step, loss), in the order of the steps


def losses(fits: Mapping[str, Sequence[Mapping[str, Any]]], width: int = svg.WIDE) -> str:
    """``fits``: train_log.jsonl rows by the fit's title. Line: training loss; rings: validation loss."""
    drawn = {name: (points(rows, "loss"), points(rows, "val_loss")) for name, rows in fits.items()}
    drawn = {name: curves for name, curves in drawn.items() if curves[0]}
    if not drawn:
        return ""
    values = [loss for curves in drawn.values() for curve in curves for _, loss in curve]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    across = min(4 if width >= svg.WIDE else 2, (width - LEFT - RIGHT + GAP) // (PANEL + GAP) or 1)
    panel = (width - LEFT - RIGHT - GAP * (across - 1)) / across
    body = svg.text(0, 14, "loss", "small")
    body += "".join(
        _panel(name, curves, LEFT + (k % across) * (panel + GAP), (k // across) * HEIGHT, panel, (low, high))
        for k, (name, curves) in enumerate(drawn.items())
    )
    spoken = "; ".join(
        f"{name}: {train[0][1]:.3g} at step {train[0][0]}, {train[-1][1]:.3g} at step {train[-1][0]}"
        + (f", validation {val[-1][1]:.3g}" if val else "")
        for name, (train, val) in drawn.items()
    )
    return svg.chart(width, HEIGHT * math.ceil(len(drawn) / across), body, f"Training loss. {spoken}.")


def points(rows: Sequence[Mapping[str, Any]], key: str) -> Points:
    """The loss called ``key`` in the rows that have it, where it can stand on a logarithmic scale."""
    losses = ((int(row["step"]), row.get(key)) for row in rows)
    return [(step, float(loss)) for step, loss in losses if loss is not None and math.isfinite(loss) and loss > 0]


def _panel(name: str, curves: tuple[Points, Points], x0: float, y0: float, width: float, scale: tuple[int, int]) -> str:
    train, val = curves
    low, high = scale  # powers of ten
    last = max(step for curve in curves for step, _ in curve) or 1
    is_narrow = width < 180  # then the two ends stand one above the other
    frame = Frame(
        x0, y0 + TOP + (16 if is_narrow else 0), width, HEIGHT - TOP - BOTTOM - (16 if is_narrow else 0), low, high
    )

    def at(point: tuple[int, float]) -> tuple[float, float]:
        step, loss = point
        return frame.at(step / last, math.log10(loss))

    def touched(point: tuple[int, float], curve: str) -> str:
        hint = svg.tag("title", svg.safe(f"{name}, step {point[0]:,}: {curve} loss {point[1]:.3g}"))
        x, y = at(point)
        return svg.tag("circle", hint, cx=x, cy=y, r=7, class_="touch")

    every = math.ceil((high - low) / LABELS)
    parts = [
        svg.text(x0, y0 + 14, name, "name"),
        svg.text(x0, y0 + 33, f"train {train[-1][1]:.2g}", "small training-ink"),
        svg.text(x0, frame.bottom + 18, "0", "tick"),
        svg.text(frame.right, frame.bottom + 18, f"{last:,} steps", "tick", "end"),
        frame.grid(
            range(low, high + 1),
            lambda power: f"{10.0**power:g}" if x0 == LEFT and (power - low) % every == 0 else "",
        ),
    ]
    step = math.ceil(len(train) / MOST)
    parts.append(svg.path([at(p) for k, p in enumerate(train) if k % step == 0 or k == len(train) - 1], "curve"))
    if val:
        x, y, end = (x0, y0 + 49, "start") if is_narrow else (frame.right, y0 + 33, "end")
        parts.append(svg.text(x, y, f"validation {val[-1][1]:.2g}", "small validation-ink", end))
        parts.append(svg.path(map(at, val), "validation"))
    for x, y in map(at, val):
        parts.append(svg.tag("circle", cx=x, cy=y, r=3.0, class_="ring"))
    parts += [touched(point, "training") for point in train[:: math.ceil(len(train) / TOUCHED)]]
    parts += [touched(point, "validation") for point in val]
    return "".join(parts)
