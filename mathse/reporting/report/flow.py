"""Transitions between students, drawn as the paper's Figure 2: who was right before, and who is right now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mathse.reporting.report import svg
from mathse.runs.layout import title

HEIGHT = 340
LEFT, RIGHT, TOP, BOTTOM, NODE = 8, 8, 22, 30, 58
NARROW_NODE = 32
CLOSE = 120  # px from a student to the next from which their names fit side by side
KINDS = ("correct_correct", "correct_wrong", "wrong_correct", "wrong_wrong")


def flow(
    entries: Sequence[Mapping[str, Any]],
    width: int = svg.WIDE,
    problems_of: Callable[[str, str, str], str] = lambda before, after, kind: "",
) -> str:
    """Each column is a student and all test problems: right ones below, wrong ones above; bands are transitions.

    ``problems_of(stage before, stage after, kind)``: the address of a list of these problems; "" where there is none.
    """
    steps = [(a, b) for a, b in zip(entries, entries[1:], strict=False) if b.get("transitions")]
    if not steps:
        return ""
    students = [steps[0][0], *(b for _, b in steps)]
    total = max(sum(b["transitions"].values()) for _, b in steps)
    node = NODE if width >= svg.WIDE else NARROW_NODE
    gap = (width - LEFT - RIGHT - node * len(students)) / len(steps)
    unit = (HEIGHT - TOP - BOTTOM) / max(total, 1)  # px a problem
    is_close = node + gap < CLOSE
    body = ""
    for k, (before, after) in enumerate(steps):
        targets = {kind: problems_of(before["stage"], after["stage"], kind) for kind in KINDS}
        body += _bands(after["transitions"], LEFT + node + k * (node + gap), gap, unit, targets)
    for k, student in enumerate(students):
        # Of the first student what the step from it says, of the others what the step to them says.
        counts = steps[max(k - 1, 0)][1]["transitions"]
        right = counts["correct_correct"] + counts["correct_wrong" if k == 0 else "wrong_correct"]
        x, floor, edge = LEFT + k * (node + gap), HEIGHT - BOTTOM, HEIGHT - BOTTOM - right * unit
        middle = x + node / 2
        body += svg.rect(x, TOP, node, edge - TOP, "node-wrong")
        body += svg.rect(x, edge, node, floor - edge, "node-right")
        lower = 15 * (k % 2) if is_close else 0  # neighbours on two lines, so that names do not meet
        look = "small strong" if is_close else "name"
        end, at = "middle", middle
        if is_close and k in (0, len(students) - 1):  # the outer names stay on the picture
            end, at = ("start", x) if k == 0 else ("end", x + node)
        body += svg.text(at, floor + 20 + lower, title(student["stage"]), look, end)
        if right * unit > 18:
            body += svg.text(middle, edge + 16, f"{right:,}", "on-accent tiny" if is_close else "on-accent", "middle")
        if (total - right) * unit > 18:
            body += svg.text(middle, edge - 7, f"{total - right:,}", "small tiny" if is_close else "small", "middle")
    spoken = " ".join(
        f"{title(a['stage'])} to {title(b['stage'])}: "
        + ", ".join(f"{b['transitions'][kind]:,} {kind.replace('_', ' to ')}" for kind in KINDS)
        + "."
        for a, b in steps
    )
    return svg.chart(width, HEIGHT + 10, body, f"Transitions of test problems. {spoken}")


def _bands(counts: Mapping[str, int], x: float, gap: float, unit: float, targets: Mapping[str, str]) -> str:
    """From below: right stays right, then the two that cross, then wrong stays wrong."""
    floor = HEIGHT - BOTTOM
    is_close = gap < CLOSE - NODE
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
        hint = svg.tag("title", svg.safe(_said(kind, counts)))
        band = svg.tag("path", hint, d=outline, class_=f"band-{kind.replace('_', '-')}")
        drawn += svg.link(targets[kind], band, _said(kind, counts)) if counts[kind] else band
    edge = floor - stay - won  # between right and wrong, at the right end
    for kind, y, sign, look in (
        ("wrong_correct", max(edge + won / 2 + 4, edge + 14), "+", "gain"),
        ("correct_wrong", min(edge - lost / 2 + 4, edge - 5), "\N{MINUS SIGN}", "loss"),
    ):
        if counts[kind]:
            number = svg.text(
                x + gap - (3 if is_close else 8),
                y,
                f"{sign}{counts[kind]:,}",
                f"{look} tiny" if is_close else look,
                "end",
            )
            drawn += svg.link(targets[kind], number, f"{sign}{counts[kind]:,}: {_said(kind, counts)}")
    return drawn


def _said(kind: str, counts: Mapping[str, int]) -> str:
    return f"{counts[kind]:,} problems {kind.replace('_', ' to ')}"
