"""How good the ORM is: its four figures from one student to the next, and whether P(correct) means what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.frame import Frame
from mathse.runs.layout import title

FIGURES = {
    "overall_accuracy": "judged rightly",
    "positive_accuracy": "right paths accepted",
    "negative_accuracy": "wrong paths rejected",
    "error_step_accuracy": "first wrong step named",
}
Series = Sequence[tuple[str, Mapping[str, Any]]]
HEIGHT, LEFT, GAP, TOP, BOTTOM = 270, 46, 26, 44, 58
SQUARE = Frame(46, 12, 230, 230)  # of shares against shares
SIDE, BELOW = 330, 48  # px: such a chart's width, and what stands below its frame


def orm_panels(series: Series, width: int = svg.WIDE) -> str:
    """A panel a figure; in each, a point with its interval for each student, from the ORM's own kind to the newest."""
    shown = [(name, figure) for name, figure in FIGURES.items() if any(row.get(name) is not None for _, row in series)]
    if not shown:
        return ""
    known = [(row[name], (row.get("ci95") or {}).get(name)) for name, _ in shown for _, row in series if name in row]
    lowest = min(interval[0] if interval else share for share, interval in known if share is not None)
    floor = min(svg.ticks(lowest, 1.0, 4)[0], 0.9)
    across = len(shown) if width >= svg.WIDE else 1
    panel = (width - LEFT - GAP * (across - 1)) / across
    body = "".join(
        _panel(series, name, label, LEFT + (k % across) * (panel + GAP), (k // across) * HEIGHT, panel, floor)
        for k, (name, label) in enumerate(shown)
    )
    spoken = "; ".join(
        f"{label}: " + ", ".join(f"{student(s)} {svg.percent(row.get(name))}" for s, row in series)
        for name, label in shown
    )
    return svg.chart(width, HEIGHT * (-(-len(shown) // across)), body, f"The ORM on held-out paths. {spoken}.")


def student(stage: str) -> str:
    """Whose paths the ORM was measured on."""
    return "own held-out" if stage == "orm" else title(stage)


def _panel(series: Series, name: str, label: str, x: float, y: float, width: float, floor: float) -> str:
    frame = Frame(x, y + TOP, width, HEIGHT - TOP - BOTTOM, floor, 1.0)
    ticks = [tick for tick in svg.ticks(floor, 1.0, 4) if floor - 1e-9 <= tick <= 1]
    is_first = x == LEFT
    parts = [svg.text(x, y + 16, label, "name"), frame.grid(ticks) if is_first else frame.grid(ticks, lambda tick: "")]
    step = width / len(series)
    known = [
        (k, row[name], (row.get("ci95") or {}).get(name))
        for k, (_, row) in enumerate(series)
        if row.get(name) is not None
    ]
    spots = [(x + (k + 0.5) * step, frame.y(share)) for k, share, _ in known]
    parts.append(svg.path(spots, "thread") if len(spots) > 1 else "")
    for (cx, cy), (k, share, interval) in zip(spots, known, strict=True):
        if interval:
            parts.append(svg.line(cx, frame.y(interval[0]), cx, frame.y(interval[1]), "whisker"))
        hint = f"{label}, {student(series[k][0])}: {svg.percent(share)} {svg.span(interval) if interval else ''}"
        dot = "dot" if k == 0 else "dot newer"
        parts.append(svg.tag("circle", svg.tag("title", svg.safe(hint.strip())), cx=cx, cy=cy, r=4.5, class_=dot))
        foot = frame.y(interval[0]) if interval else cy
        parts.append(svg.text(cx, min(foot, frame.bottom) + 15, svg.percent(share), "small strong", "middle"))
    for k, (stage, _) in enumerate(series):
        low = frame.bottom + 34 + (k % 2) * 15  # neighbours on two lines, so that names do not meet
        parts.append(svg.text(x + (k + 0.5) * step, low, student(stage), "tick", "middle"))
    return "".join(parts)


def reliability(bins: Sequence[Mapping[str, float]]) -> str:
    """P(correct) against the share of paths that are right; a calibrated judge's points lie on the diagonal."""
    if not bins:
        return ""
    most = max(b["n"] for b in bins)
    parts = [svg.path([SQUARE.at(0, 0), SQUARE.at(1, 1)], "diagonal"), SQUARE.quarters("P(correct), as the ORM says")]
    for b in bins:
        x, y = SQUARE.at(b["mean_score"], b["correct"])
        hint = f"P(correct) {b['mean_score']:.2f}: {svg.percent(b['correct'])} of {b['n']:,} paths right"
        parts.append(
            svg.tag(
                "circle",
                svg.tag("title", svg.safe(hint)),
                cx=x,
                cy=y,
                r=4 + 12 * (b["n"] / most) ** 0.5,
                class_="bubble",
            )
        )
    spoken = "; ".join(
        f"P(correct) about {b['mean_score']:.2f}: {svg.percent(b['correct'])} of {b['n']:,} right" for b in bins
    )
    return svg.chart(SIDE, SQUARE.bottom + BELOW, "".join(parts), f"Reliability of the ORM's score. {spoken}.")
