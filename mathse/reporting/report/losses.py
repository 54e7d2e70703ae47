"""Loss curves, a small panel a fit, all on one logarithmic scale so that fits can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from mathse.reporting.report import svg
from mathse.reporting.report.frame import Frame

WIDTH, ACROSS, HEIGHT, GAP, LEFT, RIGHT, TOP, BOTTOM = 960, 4, 156, 22, 52, 6, 24, 30
MOST = 160  # points drawn of a curve
LABELS = 4  # of powers of ten, one above the other


def losses(fits: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """``fits``: train_log.jsonl rows by the fit's title. Line: training loss; rings: validation loss."""
    fits = {name: good for name, rows in fits.items() if (good := [r for r in rows if _positive(r.get("loss"))])}
    if not fits:
        return ""
    values: list[float] = [
        v for rows in fits.values() for r in rows for v in (r["loss"], r.get("val_loss")) if _positive(v)
    ]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    across = min(ACROSS, len(fits))
    width = (WIDTH - LEFT - RIGHT - GAP * (ACROSS - 1)) / ACROSS
    body = "".join(
        _panel(name, rows, LEFT + (k % across) * (width + GAP), (k // across) * HEIGHT, width, (low, high))
        for k, (name, rows) in enumerate(fits.items())
    )
    spoken = "; ".join(
        f"{name}: {rows[0]['loss']:.3g} at step {rows[0]['step']}, {rows[-1]['loss']:.3g} at step {rows[-1]['step']}"
        for name, rows in fits.items()
    )
    return svg.chart(WIDTH, HEIGHT * math.ceil(len(fits) / across), body, f"Training loss. {spoken}.")


def _positive(value: Any) -> TypeGuard[float]:
    return value is not None and math.isfinite(value) and value > 0


def _panel(
    name: str, rows: Sequence[Mapping[str, Any]], x0: float, y0: float, width: float, scale: tuple[int, int]
) -> str:
    low, high = scale  # powers of ten
    last = max(r["step"] for r in rows) or 1
    frame = Frame(x0, y0 + TOP, width, HEIGHT - TOP - BOTTOM, low, high)

    def at(step: float, loss: float) -> tuple[float, float]:
        return frame.at(step / last, math.log10(loss))

    every = math.ceil((high - low) / LABELS)
    parts = [
        svg.text(x0, y0 + 14, name, "name"),
        svg.text(frame.right, y0 + 14, f"{rows[-1]['loss']:.3g}", "small strong", "end"),
        svg.text(frame.right, y0 + HEIGHT - 14, f"{last:,} steps", "tick", "end"),
        frame.grid(
            range(low, high + 1),
            lambda power: f"{10.0**power:g}" if x0 == LEFT and (power - low) % every == 0 else "",
        ),
    ]
    step = math.ceil(len(rows) / MOST)
    points = [r for k, r in enumerate(rows) if k % step == 0 or k == len(rows) - 1]
    parts.append(svg.path([at(r["step"], r["loss"]) for r in points], "curve"))
    for r in rows:
        if _positive(r.get("val_loss")):
            x, y = at(r["step"], r["val_loss"])
            parts.append(svg.tag("circle", cx=x, cy=y, r=3.0, class_="ring"))
    return "".join(parts)
