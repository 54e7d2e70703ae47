"""Counts and times as stacked bars, one row a stage, each part labelled where it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathse.reporting.report import svg

ROW, BAR, LEFT, RIGHT, LEGEND = 42, 24, 168, 150, 30
NARROW_ROW, ABOVE = 56, 24  # px of a row, and of the line above its bar, where names and remarks stand above bars
DIGIT = 7.2  # px a character of a label at most


@dataclass(frozen=True)
class Part:
    """A part of a bar: what it is, how much, how that is written, its look (a class of chart.css), and the address of a
    list of what it counts."""

    name: str
    amount: float
    label: str
    look: str
    target: str = ""


@dataclass(frozen=True)
class Bar:
    """A row: its name, its parts from left to right, and a remark at its right end."""

    name: str
    parts: Sequence[Part]
    remark: str = ""


def bars(rows: Sequence[Bar], spoken: str, remarks: str = "", width: int = svg.WIDE) -> str:
    """All rows on one scale; the legend names each part once. ``remarks`` heads the column of remarks;
    ``spoken``: what a screen reader says before the numbers."""
    most = max((sum(p.amount for p in row.parts) for row in rows), default=0)
    if not most:
        return ""
    is_narrow = width < svg.WIDE
    left, right = (0, 0) if is_narrow else (LEFT, RIGHT)
    scale = (width - left - right) / most  # px of 1
    body, x, baseline = "", float(left), 16
    looks = {part.name: part.look for row in rows for part in row.parts}
    present = {part.name for row in rows for part in row.parts if part.amount}
    for name, look in looks.items():  # the legend
        if name in present:
            needed = 16 + len(name) * 6.6 + 24
            if x > left and x + needed - 24 > width:
                x, baseline = left, baseline + 20
            body += svg.rect(x, baseline - 9, 10, 10, look) + svg.text(x + 16, baseline, name, "small")
            x += needed
    if remarks and is_narrow:
        baseline += 20
    body += svg.text(width, baseline, remarks, "small", "end") if remarks else ""
    legend = LEGEND - 16 + baseline
    for number, row in enumerate(rows):
        top = legend + number * (NARROW_ROW if is_narrow else ROW)
        upper = top + ABOVE if is_narrow else top + (ROW - BAR) / 2  # edge of the bar
        line = top + 16 if is_narrow else top + ROW / 2 + 4
        x = float(left)
        body += svg.text(0 if is_narrow else left - 14, line, row.name, "name", "start" if is_narrow else "end")
        for part in row.parts:
            length, hint = part.amount * scale, f"{row.name}: {part.label} {part.name}"
            seam = 1 if length > 3 else 0  # px of ground between two parts
            drawn = svg.rect(x, upper, length - seam, BAR, part.look, hint)
            if length > len(part.label) * DIGIT + 8:
                drawn += svg.text(x + 7, upper + BAR / 2 + 4, part.label, f"in {part.look}-ink")
            body += svg.link(part.target, drawn, hint) if part.amount else drawn
            x += length
        body += svg.text(width, line, row.remark, "remark", "end")
    numbers = "; ".join(
        f"{r.name}: " + ", ".join(f"{p.label} {p.name}" for p in r.parts if p.amount) + f" {r.remark}" for r in rows
    )
    height = legend + (NARROW_ROW if is_narrow else ROW) * len(rows)
    return svg.chart(width, height, body, f"{spoken}. {numbers}.")
