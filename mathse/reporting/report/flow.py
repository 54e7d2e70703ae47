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
    bands = "".join(
        _bands(b["transitions"], LEFT + NODE + k * (NODE + gap), gap, unit) for k, (_, b) in enumerate(steps)
    )
    right = [_right_before(steps[0][1]["transitions"]), *(_right_after(b["transitions"]) for _, b in steps)]
    nodes = "".join(
        _node(s["stage"], r, total, LEFT + k * (NODE + gap), unit)
        for k, (s, r) in enumerate(zip(students, right, strict=True))
    )
    return svg.chart(WIDTH, HEIGHT, bands + nodes, _spoken(steps))


def _right_before(counts: Mapping[str, int]) -> int:
    return counts["correct_correct"] + counts["correct_wrong"]


def _right_after(counts: Mapping[str, int]) -> int:
    return counts["correct_correct"] + counts["wrong_correct"]


def _node(stage: str, right: int, total: int, x: float, unit: float) -> str:
    floor, edge = HEIGHT - BOTTOM, HEIGHT - BOTTOM - right * unit
    middle = x + NODE / 2
    parts = [
        svg.rect(x, TOP, NODE, edge - TOP, "node-wrong"),
        svg.rect(x, edge, NODE, floor - edge, "node-right"),
        svg.text(middle, floor + 20, title(stage), "name", "middle"),
    ]
    if right * unit > 18:
        parts.append(svg.text(middle, edge + 16, f"{right:,}", "on-accent", "middle"))
    if (total - right) * unit > 18:
        parts.append(svg.text(middle, edge - 7, f"{total - right:,}", "small", "middle"))
    return "".join(parts)


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
    drawn = "".join(
        _ribbon(x, gap, *shape, f"band-{kind.replace('_', '-')}", f"{kind.replace('_', ' to ')}: {counts[kind]:,}")
        for kind, shape in shapes.items()
    )
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


def _ribbon(x: float, gap: float, height: float, left: float, right: float, class_: str, hint: str) -> str:
    bend = x + gap / 2
    d = (
        f"M{x:.1f} {left:.1f}C{bend:.1f} {left:.1f} {bend:.1f} {right:.1f} {x + gap:.1f} {right:.1f}v{height:.1f}"
        f"C{bend:.1f} {right + height:.1f} {bend:.1f} {left + height:.1f} {x:.1f} {left + height:.1f}Z"
    )
    return svg.tag("path", svg.tag("title", svg.safe(hint)), d=d, class_=class_)


def _spoken(steps: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    return "Transitions of test problems. " + " ".join(
        f"{title(a['stage'])} to {title(b['stage'])}: "
        + ", ".join(f"{b['transitions'][kind]:,} {kind.replace('_', ' to ')}" for kind in KINDS)
        + "."
        for a, b in steps
    )
