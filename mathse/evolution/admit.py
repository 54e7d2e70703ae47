"""Which problems a backbone can take: the others are left out of every split and listed, and nothing is cut.

``base/bad_rows.jsonl`` lists them beside the rows that the data source refused, {"file", "line", "id", "reason"} each:
rows in = rows used + rows listed.
"""

from __future__ import annotations

from collections.abc import Iterator

from mathse.backbones.base import Backbone
from mathse.errors import DataError
from mathse.evolution.lab import Lab
from mathse.generate import solve_row
from mathse.ledger import Stage
from mathse.store import read_jsonl, write_jsonl
from mathse.types import Problem

BAD_ROWS = "bad_rows.jsonl"
NAMED = 5  # rows named on the screen; the others are counted


def admit(lab: Lab, stage: Stage, backbone: Backbone) -> None:
    """List the problems that ``backbone`` cannot take in the stage's folder.

    A prompt that leaves no room for an answer is left out; a row whose images the family cannot take follows
    ``data.on_bad_row``: under "error" it raises DataError.
    """
    room = backbone.context - lab.config.evaluation.max_new_tokens
    strict = getattr(lab.config.data, "on_bad_row", "error") == "error"
    found = []
    for problem, reason, is_long in _refused(lab, backbone, room):
        if strict and not is_long:
            raise DataError(f"{problem.source}: {problem.id}: {reason}; data.on_bad_row=skip leaves such rows out")
        found.append({"file": problem.source, "line": None, "id": problem.id, "reason": reason})
    write_jsonl(stage.path / BAD_ROWS, [*lab.source.bad_rows, *found])


def leave_out(lab: Lab, stage: Stage) -> None:
    """Leave the listed problems out of the splits, in this start and in every later one, and say so."""
    listed = list(read_jsonl(stage.path / BAD_ROWS))
    for row in listed[:NAMED]:
        where = f"{row['file']}:{row['line']}" if row["line"] else f"{row['file']}: {row['id']}"
        lab.progress.say(f"left out: {where}: {row['reason']}")
    if listed:
        said = f"{len(listed)} rows of the data were left out; {stage.name}/{BAD_ROWS} lists them with the reason"
        lab.progress.say(said)
        lab.notes.append(said)
    lab.leave_out({row["id"] for row in listed if row["line"] is None})


def _refused(lab: Lab, backbone: Backbone, room: int) -> Iterator[tuple[Problem, str, bool]]:
    """(problem, reason, whether it is too long) of each problem that the backbone cannot take."""
    for problem in (p for split in lab.splits.values() for p in split):
        row = solve_row(backbone, problem)
        if reason := backbone.refusal(row):
            yield problem, reason, False
        elif reason := backbone.too_long(row, room):
            yield problem, reason, True
