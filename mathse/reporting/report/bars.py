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
    """All rows on one scale; the legend names each part once. ``remarks`` heads the column of remarks."""
    most = max((sum(p.amount for p in row.parts) for row in rows), default=0)
    if not most:
        return ""
    scale = (WIDTH - LEFT - RIGHT) / most
    body = _legend(rows) + (svg.text(WIDTH, 16, remarks, "small", "end") if remarks else "")
    body += "".join(_row(row, LEGEND + k * ROW, scale) for k, row in enumerate(rows))
    said = "; ".join(
        f"{r.name}: " + ", ".join(f"{p.label} {p.name}" for p in r.parts if p.amount) + f" {r.remark}" for r in rows
    )
    return svg.chart(WIDTH, LEGEND + ROW * len(rows), body, f"{spoken}. {said}.")


def _legend(rows: Sequence[Bar]) -> str:
    present = {part.name for row in rows for part in row.parts if part.amount}
    looks = {part.name: part.look for row in rows for part in row.parts if part.name in present}
    drawn, x = "", float(LEFT)
    for name, look in looks.items():
        drawn += svg.rect(x, 7, 10, 10, look) + svg.text(x + 16, 16, name, "small")
        x += 16 + len(name) * 6.6 + 24
    return drawn


def _row(row: Bar, top: float, scale: float) -> str:
    middle = top + ROW / 2 + 4
    drawn, x = svg.text(LEFT - 14, middle, row.name, "name", "end"), float(LEFT)
    for part in row.parts:
        width = part.amount * scale
        drawn += svg.rect(
            x,
            top + (ROW - BAR) / 2,
            width - (1 if width > 3 else 0),
            BAR,
            part.look,
            f"{row.name}: {part.label} {part.name}",
        )
        if width > len(part.label) * DIGIT + 8:
            drawn += svg.text(x + 7, middle, part.label, f"in {part.look}-ink")
        x += width
    return drawn + svg.text(WIDTH, middle, row.remark, "remark", "end")
