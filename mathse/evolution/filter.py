"""Which problems a run can use: the others are left out of every split and listed. No problem is cut short.

``base/bad_rows.jsonl`` lists them beside the rows that the data source refused, {"file", "line", "id", "reason"} each:
rows in = rows used + rows listed. So a count of what was trained on can be checked against the user's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from mathse.config.schema import needs_orm
from mathse.data.images import unreadable
from mathse.data.problems import REPEATS, FileData, location
from mathse.errors import ConfigError, DataError
from mathse.evolution.context import RunContext
from mathse.evolution.problems import RunProblems
from mathse.inference.rows import solve_row
from mathse.models.base import Backbone
from mathse.runs.layout import BAD_ROWS
from mathse.runs.stage_cache import Stage
from mathse.runs.store import read_jsonl, write_jsonl

MIN_PROMPT = 16  # tokens; a context that leaves fewer holds no question
NAMED = 5  # rows named on the screen; the others are counted


def unreadable_images(context: RunContext, problems: RunProblems) -> list[dict[str, Any]]:
    """The problems with an image that cannot be decoded, as rows of ``bad_rows.jsonl``.

    Only images of which the source has read no more than the header are opened, each once, and before any weights
    are loaded. Under ``data.on_bad_row=error`` the first of them raises DataError.
    """
    source = problems.source
    if not isinstance(source, FileData) or not source.images.headed:
        return []
    headed = sorted(source.images.headed)
    reasons: dict[str, str] = {}  # by image
    with context.track("images", len(headed)) as track:
        for path, reason in zip(headed, unreadable(headed), strict=True):
            if reason is not None:
                reasons[path] = reason
            track.advance(1)
    bad_rows = []
    for problem in chain.from_iterable(problems.splits.values()):
        if (image := next((ref for ref in problem.images if ref in reasons), None)) is not None:
            file, line = location(source, problem)
            bad_rows.append({"file": file, "line": line, "id": problem.id, "reason": reasons[image]})
    if bad_rows and source.on_bad_row == "error":
        first = bad_rows[0]
        raise DataError(
            f"{first['file']}:{first['line']}: {first['reason']}; data.on_bad_row=skip leaves such rows out"
        )
    return bad_rows


def unread_pictures(context: RunContext, problems: RunProblems) -> list[dict[str, Any]]:
    """The problems with a picture where a model of the run reads text alone, as rows of ``bad_rows.jsonl``: known from
    the settings, before a model is opened.

    Raises DataError for the first of them, unless ``data.on_bad_row=skip``.
    """
    config = context.config
    orm = config.orm.backbone if config.orm.see_image and needs_orm(config) else None
    blind = next((b for b in (config.backbone, orm) if getattr(b, "max_images", None) == 0), None)
    if blind is None:
        return []
    remedy = (
        "choose a backbone that reads pictures (backbone=hf)"
        if blind is config.backbone
        else ("pass orm.see_image=false, or another orm.backbone")
    )
    bad_rows = []
    for problem in chain.from_iterable(problems.splits.values()):
        if problem.images:
            file, line = location(problems.source, problem)
            reason = f"has a picture, and {blind.path} reads text alone; {remedy}"
            bad_rows.append({"file": file, "line": line, "id": problem.id, "reason": reason})
    if bad_rows and getattr(config.data, "on_bad_row", "error") == "error":
        first = bad_rows[0]
        raise DataError(
            f"{first['file']}:{first['line']}: problem {first['id']} {first['reason']}; data.on_bad_row=skip leaves "
            "such rows out"
        )
    return bad_rows


def list_unusable(
    context: RunContext, problems: RunProblems, stage: Stage, backbone: Backbone, bad_rows: Sequence[dict[str, Any]]
) -> None:
    """Write the stage's ``bad_rows.jsonl``: what the source refused, ``bad_rows``, and what ``backbone`` cannot take.

    A prompt that leaves no room for an answer is always left out. A problem whose images the family cannot take follows
    ``data.on_bad_row``: under "error" it raises DataError. So does a data set of which too much, or all of a split,
    would be left out; ConfigError where the reason is that answers fill the model's whole context.
    """
    longest = backbone.context - context.config.evaluation.max_new_tokens  # tokens of a prompt
    if longest < MIN_PROMPT:
        raise ConfigError(
            f"evaluation.max_new_tokens = {context.config.evaluation.max_new_tokens:,}: leaves {max(0, longest):,} "
            f"tokens for a prompt, since the model's context is {backbone.context:,}; pass a smaller one"
        )
    strict = getattr(context.config.data, "on_bad_row", "error") == "error"
    listed = {row["id"] for row in bad_rows}
    refused = []
    for problem in chain.from_iterable(problems.splits.values()):
        if problem.id in listed:
            continue
        row = solve_row(backbone.prompt_style, problem)
        if (reason := backbone.refusal(row)) and strict:
            raise DataError(f"{problem.source}: {problem.id}: {reason}; data.on_bad_row=skip leaves such rows out")
        if reason := reason or backbone.too_long(row, longest):
            refused.append({"file": problem.source, "line": None, "id": problem.id, "reason": reason})
    left_out = [*problems.source.bad_rows, *bad_rows, *refused]
    write_jsonl(stage.path / BAD_ROWS, left_out)
    _refuse_mostly_unusable(context, problems, left_out)


def _refuse_mostly_unusable(context: RunContext, problems: RunProblems, left_out: Sequence[dict[str, Any]]) -> None:
    """Raises DataError where more rows are left out than ``data.max_left_out`` allows, or a whole split."""
    unusable = [row for row in left_out if not str(row["reason"]).startswith(REPEATS)]
    if not unusable:
        return
    refused_by_source = sum(not str(row["reason"]).startswith(REPEATS) for row in problems.source.bad_rows)
    total = refused_by_source + sum(map(len, problems.splits.values()))
    allowed = getattr(context.config.data, "max_left_out", 1.0)
    ids = {row["id"] for row in left_out}
    empty = [name for name, split in problems.splits.items() if split and all(p.id in ids for p in split)]
    if len(unusable) <= allowed * total and not empty:
        return
    first = unusable[0]
    position = f"{first['file']}:{first['line']}" if first["line"] else f"{first['file']}: {first['id']}"
    of_split = f", among them all of {', '.join(empty)}" if empty else ""
    raise DataError(
        f"{len(unusable):,} of {total:,} rows cannot be used{of_split}; at most {allowed:.0%} may be left out "
        f"(data.max_left_out = {allowed:g}). The first: {position}: {first['reason']}"
    )


def leave_out_listed(context: RunContext, problems: RunProblems, stage: Stage) -> None:
    """Take the problems that the stage's ``bad_rows.jsonl`` lists out of the splits, and report them.

    Done at every start of the run, so that a resumed run has the same splits.
    """
    bad_rows = list(read_jsonl(stage.path / BAD_ROWS))
    for row in bad_rows[:NAMED]:
        position = f"{row['file']}:{row['line']}" if row["line"] else f"{row['file']}: {row['id']}"
        context.progress.say(f"left out: {position}: {row['reason']}")
    if bad_rows:
        context.note(
            f"{len(bad_rows)} rows of the data were left out; {stage.name}/{BAD_ROWS} lists them with the reason"
        )
    # A row that the source refused may repeat the id of a good row, which stays: only the row that gave the problem
    # counts. Rows without a line are those that the backbone cannot take, and are named by the problem itself.
    unusable = set()
    for row in bad_rows:
        problem = problems.by_id.get(row["id"]) if row["id"] is not None else None
        if row["line"] is None or (
            problem is not None and location(problems.source, problem) == (row["file"], row["line"])
        ):
            unusable.add(row["id"])
    problems.leave_out(unusable)
