"""What a step of a reasoning path is: what stands between one "Step 2:" and the next; else a line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mathse.scoring.metrics import first_step

MAX_TEXT = 20_000  # characters of a path that are looked at
# A line of a path without steps; a displayed formula is one, however many lines it is written on.
_LINE = re.compile(r"(?:\\\[.{1,1000}?\\\]|\$\$[^$]{1,1000}\$\$|[^\n])+", re.DOTALL)


def step_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """Where a step begins: one of ``names``, its number, a colon or point."""
    named = "|".join(map(re.escape, names))
    return re.compile(rf"(?:^|(?<=\s))(?:\*\*)?(?:{named})\s*\d{{1,3}}\s*[:：.]", re.IGNORECASE)


def split_steps(text: str, step: re.Pattern[str]) -> list[tuple[int | None, str]]:
    """A path by its steps, each with its number as written (None: before the first, or unnumbered lines)."""
    text = text[:MAX_TEXT]
    starts = [m.start() for m in step.finditer(text)]
    if not starts:
        return [(None, line) for line in _LINE.findall(text) if line.strip()]
    cuts = [0, *starts, len(text)]
    pieces = [text[a:b].strip() for a, b in zip(cuts, cuts[1:], strict=False)]
    return [(first_step(piece) if k else None, piece) for k, piece in enumerate(pieces) if piece]
