"""Counts and times as stacked bars, one row a stage, each part labelled where it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathse.reporting.report import svg

WIDTH, ROW, BAR, LEFT, RIGHT, LEGEND = 960, 42, 24, 168, 150, 30
DIGIT = 7.2  # px a character of a label at most


@dataclass(frozen=True)
class Part:
    """A part of a bar: what it is, how much, how that is written, and its look (a class of chart.css)."""

    name: str
    amount: float
    label: str
    look: str


@dataclass(frozen=True)
class Bar:
    """A row: its name, its parts from left to right, and a remark at its right end."""

    name: str
    parts: Sequence[Part]
    remark: str = ""


def bars(rows: Sequence[Bar], spoken: str, remarks: str = "") -> str:
    """All rows on one scale; the legend names each part once. ``remarks`` heads the column of remarks;
    ``spoken``: what a screen reader says before the numbers."""
    most = max((sum(p.amount for p in row.parts) for row in rows), default=0)
    if not most:
        return ""
    scale = (WIDTH - LEFT - RIGHT) / most  # px of 1
    body, x = "", float(LEFT)
    looks = {part.name: part.look for row in rows for part in row.parts}
    present = {part.name for row in rows for part in row.parts if part.amount}
    for name, look in looks.items():  # the legend
        if name in present:
            body += svg.rect(x, 7, 10, 10, look) + svg.text(x + 16, 16, name, "small")
            x += 16 + len(name) * 6.6 + 24
    body += svg.text(WIDTH, 16, remarks, "small", "end") if remarks else ""
    for number, row in enumerate(rows):
        top = LEGEND + number * ROW
        baseline, x = top + ROW / 2 + 4, float(LEFT)
        body += svg.text(LEFT - 14, baseline, row.name, "name", "end")
        for part in row.parts:
            width, hint = part.amount * scale, f"{row.name}: {part.label} {part.name}"
            seam = 1 if width > 3 else 0  # px of ground between two parts
            body += svg.rect(x, top + (ROW - BAR) / 2, width - seam, BAR, part.look, hint)
            if width > len(part.label) * DIGIT + 8:
                body += svg.text(x + 7, baseline, part.label, f"in {part.look}-ink")
            x += width
        body += svg.text(WIDTH, baseline, row.remark, "remark", "end")
    numbers = "; ".join(
        f"{r.name}: " + ", ".join(f"{p.label} {p.name}" for p in r.parts if p.amount) + f" {r.remark}" for r in rows
    )
    return svg.chart(WIDTH, LEGEND + ROW * len(rows), body, f"{spoken}. {numbers}.")
