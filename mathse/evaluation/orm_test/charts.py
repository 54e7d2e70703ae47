"""The charts of an ORM's page: ROC, calibration, acceptance against the threshold. Inline SVG, coloured by classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.orm_charts import reliability

SIDE, LEFT, TOP, PLOT = 330, 46, 12, 230
WIDE, RIGHT = 720, 130
POINTS = 400  # of a ROC curve that are drawn
TICKS = (0, 0.25, 0.5, 0.75, 1)
CURVES = (("precision", "flight-0"), ("recall", "flight-1"), ("f1", "flight-2"))
NAMES = {"precision": "precision", "recall": "recall", "f1": "F1"}


def roc(points: Sequence[tuple[float, float]], area: float) -> str:
    """The share of right paths above each P(correct) against the share of wrong ones."""
    step = max(1, len(points) // POINTS)
    drawn = [*points[:-1:step], points[-1]]
    body = (
        svg.path([_at(0, 0), _at(1, 1)], "diagonal")
        + _grid("share of wrong paths ranked above", PLOT)
        + svg.path([_at(x, y) for x, y in drawn], "stairs flight-0")
        + svg.text(LEFT + PLOT - 6, TOP + PLOT - 10, f"AUROC {area:.3f}", "name", "end")
    )
    spoken = f"ROC curve: share of right paths against share of wrong paths above each score. AUROC {area:.3f}."
    return svg.chart(SIDE, TOP + PLOT + 48, body, spoken)


def calibration(bins: Sequence[Mapping[str, Any]]) -> str:
    """P(correct) against the share of paths that are right."""
    return reliability(bins)


def thresholds(rows: Sequence[Mapping[str, Any]], chosen: float) -> str:
    """Precision, recall and F1 of acceptance, with 95 % intervals as whiskers; a line at the threshold in use."""
    width = WIDE - LEFT - RIGHT
    body = _grid("threshold on P(correct)", width)
    body += svg.line(LEFT + chosen * width, TOP, LEFT + chosen * width, TOP + PLOT, "axis")
    ends, lines = [], []
    for k, (name, look) in enumerate(CURVES):
        known = [row for row in rows if row[name] is not None]
        if not known:
            continue
        spots = [_at(row["threshold"], row[name], width) for row in known]
        lines.append(svg.path(spots, f"stairs {look}"))
        for (x, _), row in zip(spots, known, strict=True):
            if interval := row["ci95"][name]:
                ys = [_at(0, share)[1] for share in interval]
                shifted = x + (k - 1) * 2  # so that none hides another
                lines.append(
                    svg.tag(
                        "line", x1=shifted, y1=ys[0], x2=shifted, y2=ys[1], class_=f"stairs {look}",
                        style="stroke-dasharray:none;stroke-width:1",
                    )
                )  # fmt: skip
        ends.append((name, look, spots[-1][1]))
    places = svg.spread([y for _, _, y in ends], 17)
    for (name, look, _), y in zip(ends, places, strict=True):
        lines.append(svg.text(WIDE - RIGHT + 10, y + 4, NAMES[name], f"name {look}"))
    spoken = "; ".join(
        f"at {row['threshold']:g}: precision {svg.percent(row['precision'])}, recall {svg.percent(row['recall'])}"
        for row in rows
    )
    return svg.chart(WIDE, TOP + PLOT + 48, body + "".join(lines), f"Acceptance by threshold. {spoken}.")


def _at(x: float, y: float, width: float = PLOT) -> tuple[float, float]:
    return LEFT + x * width, TOP + (1 - y) * PLOT


def _grid(axis: str, width: float) -> str:
    parts = []
    for tick in TICKS:
        x, y = _at(tick, tick, width)
        parts += [
            svg.line(LEFT, y, LEFT + width, y, "grid"),
            svg.text(LEFT - 8, y + 4, svg.percent(tick, 0), "tick", "end"),
            svg.text(x, TOP + PLOT + 18, f"{tick:g}", "tick", "middle"),
        ]
    return "".join(parts) + svg.text(LEFT + width / 2, TOP + PLOT + 38, axis, "small", "middle")
