"""The charts of an ORM's page: ROC, calibration, acceptance against the threshold. Inline SVG, coloured by classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.orm_charts import BELOW, SIDE, SQUARE

WIDE, RIGHT = 720, 130  # pixels: the chart's width, and the margin for the curves' names
POINTS = 400  # of a ROC curve that are drawn
# Figure in metrics.json, CSS class of its curve.
CURVES = (("precision", "flight-0"), ("recall", "flight-1"), ("f1", "flight-2"))
NAMES = {"precision": "precision", "recall": "recall", "f1": "F1"}


def roc(points: Sequence[tuple[float, float]], area: float) -> str:
    """The share of right paths above each P(correct) against the share of wrong ones."""
    step = max(1, len(points) // POINTS)
    drawn = [*points[:-1:step], points[-1]]
    body = (
        svg.path([SQUARE.at(0, 0), SQUARE.at(1, 1)], "diagonal")
        + SQUARE.quarters("share of wrong paths ranked above")
        + svg.path([SQUARE.at(x, y) for x, y in drawn], "stairs flight-0")
        + svg.text(SQUARE.right - 6, SQUARE.bottom - 10, f"AUROC {area:.3f}", "name", "end")
    )
    alternative_text = (
        f"ROC curve: share of right paths against share of wrong paths above each score. AUROC {area:.3f}."
    )
    return svg.chart(SIDE, SQUARE.bottom + BELOW, body, alternative_text)


def thresholds(rows: Sequence[Mapping[str, Any]], chosen: float) -> str:
    """Precision, recall and F1 of acceptance, with 95 % intervals as whiskers; a line at the threshold in use."""
    frame = replace(SQUARE, width=WIDE - SQUARE.left - RIGHT)
    body = frame.quarters("threshold on P(correct)")
    body += svg.line(frame.x(chosen), frame.top, frame.x(chosen), frame.bottom, "axis")
    ends, lines = [], []
    for k, (name, colour) in enumerate(CURVES):
        known = [row for row in rows if row[name] is not None]
        if not known:
            continue
        spots = [frame.at(row["threshold"], row[name]) for row in known]
        lines.append(svg.path(spots, f"stairs {colour}"))
        for (x, _), row in zip(spots, known, strict=True):
            if interval := row["ci95"][name]:
                low, high = map(frame.y, interval)
                shifted = x + (k - 1) * 2  # so that no whisker hides another
                lines.append(svg.whisker(shifted, low, high, f"stairs {colour}", width=1))
        ends.append((name, colour, spots[-1][1]))
    # The curves' names stand at their ends, moved apart where they would overlap.
    heights = svg.spread([y for _, _, y in ends], 17)
    for (name, colour, _), y in zip(ends, heights, strict=True):
        lines.append(svg.text(frame.right + 10, y + 4, NAMES[name], f"name {colour}"))
    alternative_text = "; ".join(
        f"at {row['threshold']:g}: precision {svg.percent(row['precision'])}, recall {svg.percent(row['recall'])}"
        for row in rows
    )
    return svg.chart(WIDE, frame.bottom + BELOW, body + "".join(lines), f"Acceptance by threshold. {alternative_text}.")
