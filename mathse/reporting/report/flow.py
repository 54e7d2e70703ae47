"""Transitions between students, drawn as the paper's Figure 2: who was right before, and who is right now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.reporting.report import svg
from mathse.runs.layout import title

WIDTH, HEIGHT = 960, 340
LEFT, RIGHT, TOP, BOTTOM, NODE = 8, 8, 22, 30, 58
KINDS = ("correct_correct", "correct_wrong", "wrong_correct", "wrong_wrong")


def flow(entries: Sequence[Mapping[str, Any]]) -> str:
    """Each column is a student and all test problems: right ones below, wrong ones above; bands are transitions."""
    steps = [(a, b) for a, b in zip(entries, entries[1:], strict=False) if b.get("transitions")]
    if not steps:
        return ""
    students = [steps[0][0], *(b for _, b in steps)]
    total = max(sum(b["transitions"].values()) for _, b in steps)
    gap = (WIDTH - LEFT - RIGHT - NODE * len(students)) / len(steps)
    unit = (HEIGHT - TOP - BOTTOM) / max(total, 1)  # px a problem
    body = ""
    for k, (_, after) in enumerate(steps):
        body += _bands(after["transitions"], LEFT + NODE + k * (NODE + gap), gap, unit)
    for k, student in enumerate(students):
        # Of the first student what the step from it says, of the others what the step to them says.
        counts = steps[max(k - 1, 0)][1]["transitions"]
        right = counts["correct_correct"] + counts["correct_wrong" if k == 0 else "wrong_correct"]
        x, floor, edge = LEFT + k * (NODE + gap), HEIGHT - BOTTOM, HEIGHT - BOTTOM - right * unit
        middle = x + NODE / 2
        body += svg.rect(x, TOP, NODE, edge - TOP, "node-wrong")
        body += svg.rect(x, edge, NODE, floor - edge, "node-right")
        body += svg.text(middle, floor + 20, title(student["stage"]), "name", "middle")
        if right * unit > 18:
            body += svg.text(middle, edge + 16, f"{right:,}", "on-accent", "middle")
        if (total - right) * unit > 18:
            body += svg.text(middle, edge - 7, f"{total - right:,}", "small", "middle")
    spoken = " ".join(
        f"{title(a['stage'])} to {title(b['stage'])}: "
        + ", ".join(f"{b['transitions'][kind]:,} {kind.replace('_', ' to ')}" for kind in KINDS)
        + "."
        for a, b in steps
    )
    return svg.chart(WIDTH, HEIGHT, body, f"Transitions of test problems. {spoken}")


def _bands(counts: Mapping[str, int], x: float, gap: float, unit: float) -> str:
    """From below: right stays right, then the two that cross, then wrong stays wrong."""
    floor = HEIGHT - BOTTOM
    stay, lost, won, never = (counts[kind] * unit for kind in KINDS)
    # (height, upper edge at the left, upper edge at the right)
    shapes = {
        "correct_correct": (stay, floor - stay, floor - stay),
        "wrong_wrong": (never, TOP, TOP),
        "correct_wrong": (lost, floor - stay - lost, floor - stay - won - lost),
        "wrong_correct": (won, floor - stay - lost - won, floor - stay - won),
    }
    drawn, bend = "", x + gap / 2
    for kind, (height, left, right) in shapes.items():
        outline = (
            f"M{x:.1f} {left:.1f}C{bend:.1f} {left:.1f} {bend:.1f} {right:.1f} {x + gap:.1f} {right:.1f}v{height:.1f}"
            f"C{bend:.1f} {right + height:.1f} {bend:.1f} {left + height:.1f} {x:.1f} {left + height:.1f}Z"
        )
        hint = svg.tag("title", svg.safe(f"{kind.replace('_', ' to ')}: {counts[kind]:,}"))
        drawn += svg.tag("path", hint, d=outline, class_=f"band-{kind.replace('_', '-')}")
    edge = floor - stay - won  # between right and wrong, at the right end
    if won:
        drawn += svg.text(
            x + gap - 8, max(edge + won / 2 + 4, edge + 14), f"+{counts['wrong_correct']:,}", "gain", "end"
        )
    if lost:
        drawn += svg.text(
            x + gap - 8, min(edge - lost / 2 + 4, edge - 5), f"\N{MINUS SIGN}{counts['correct_wrong']:,}", "loss", "end"
        )
    return drawn
