"""Which problems a run can use: the others are left out of every split and listed, and nothing is cut.

``base/bad_rows.jsonl`` lists them beside the rows that the data source refused, {"file", "line", "id", "reason"} each:
rows in = rows used + rows listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mathse.data.images import load_image
from mathse.data.problems import FileData, where
from mathse.errors import DataError
from mathse.evolution.context import RunContext
from mathse.evolution.problems import RunProblems
from mathse.inference.rows import solve_row
from mathse.models.base import Backbone
from mathse.runs.layout import BAD_ROWS
from mathse.runs.stage_cache import Stage
from mathse.runs.store import read_jsonl, write_jsonl
from mathse.types import Problem

NAMED = 5  # rows named on the screen; the others are counted


def unreadable(context: RunContext, problems: RunProblems) -> list[dict[str, Any]]:
    """The problems with an image that cannot be decoded, as far as the source has not decoded it: each image once, and
    before a weight is loaded. Under ``data.on_bad_row=error`` the first raises DataError."""
    source = problems.source
    if not isinstance(source, FileData) or not source.images.headed:
        return []
    broken: dict[str, str] = {}
    with context.track("images", len(source.images.headed)) as track:
        for path in sorted(source.images.headed):
            if (damage := _damage(path)) is not None:
                broken[path] = damage
            track.advance(1)
    found = []
    for problem in (p for split in problems.splits.values() for p in split):
        if (shown := next((ref for ref in problem.images if ref in broken), None)) is not None:
            file, line = where(source, problem)
            found.append({"file": file, "line": line, "id": problem.id, "reason": broken[shown]})
    if found and source.on_bad_row == "error":
        place = "{file}:{line}: {reason}".format(**found[0])
        raise DataError(f"{place}; data.on_bad_row=skip leaves such rows out")
    return found


def admit(
    context: RunContext, problems: RunProblems, stage: Stage, backbone: Backbone, listed: Sequence[dict[str, Any]] = ()
) -> None:
    """List the problems that ``backbone`` cannot take in the stage's folder, after those ``listed`` already.

    A prompt that leaves no room for an answer is left out; a row whose images the family cannot take follows
    ``data.on_bad_row``: under "error" it raises DataError.
    """
    room = backbone.context - context.config.evaluation.max_new_tokens
    strict = getattr(context.config.data, "on_bad_row", "error") == "error"
    known = {row["id"] for row in listed}
    whole = (p for split in problems.splits.values() for p in split if p.id not in known)
    found = []
    for problem, reason, is_long in refused(backbone, room, whole):
        if strict and not is_long:
            raise DataError(f"{problem.source}: {problem.id}: {reason}; data.on_bad_row=skip leaves such rows out")
        found.append({"file": problem.source, "line": None, "id": problem.id, "reason": reason})
    write_jsonl(stage.path / BAD_ROWS, [*problems.source.bad_rows, *listed, *found])


def leave_out(context: RunContext, problems: RunProblems, stage: Stage) -> None:
    """Leave the listed problems out of the splits, in this start and in every later one, and say so."""
    listed = list(read_jsonl(stage.path / BAD_ROWS))
    for row in listed[:NAMED]:
        place = f"{row['file']}:{row['line']}" if row["line"] else f"{row['file']}: {row['id']}"
        context.progress.say(f"left out: {place}: {row['reason']}")
    if listed:
        said = f"{len(listed)} rows of the data were left out; {stage.name}/{BAD_ROWS} lists them with the reason"
        context.note(said)
    problems.leave_out({row["id"] for row in listed if row["line"] is None or _is_the_row_itself(problems, row)})


def refused(backbone: Backbone, room: int, problems: Iterator[Problem]) -> Iterator[tuple[Problem, str, bool]]:
    """(problem, reason, whether it is too long) of each problem that the backbone cannot take."""
    for problem in problems:
        row = solve_row(backbone.prompt_style, problem)
        if reason := backbone.refusal(row):
            yield problem, reason, False
        elif reason := backbone.too_long(row, room):
            yield problem, reason, True


def _is_the_row_itself(problems: RunProblems, row: dict[str, Any]) -> bool:
    """Whether a listed row is the one that gave the problem of this id, and no other row with the same id."""
    problem = problems.by_id.get(row["id"]) if row["id"] is not None else None
    return problem is not None and where(problems.source, problem) == (row["file"], row["line"])


def _damage(path: str) -> str | None:
    try:
        load_image(path)
    except DataError as error:
        return str(error)
    return None
