"""List every training row of a run with its origin: a join over the run's files, which are read in pieces."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from mathse.commands.lineage.problem import hash_images
from mathse.commands.lineage.sql import FETCH_ROWS, open_database
from mathse.commands.lineage.story import round_of
from mathse.data.sources import problem_lookup
from mathse.errors import DataError, MathSEError
from mathse.reporting.progress.wording import clean
from mathse.runs.layout import SOURCES, TRAIN
from mathse.runs.reader import FinishedStage, Run

# The verdict on a path is in the stage that sampled the path. Path ids are unique in a run.
JOIN = """
SELECT t.id, t.problem_id, t.origin, t.made_in, t.model, t.seed, t.prompt, t.parent, s.image_sha256,
       v.status, v.error_step, v.error_analysis, v.score, v.judge
FROM train t LEFT JOIN verdicts v ON v.path_id = t.id LEFT JOIN sources s ON s.problem_id = t.problem_id
WHERE t.stage = ? ORDER BY t.line
"""
VERDICT_COLUMNS = ("status", "error_step", "error_analysis", "score", "judge")


def read_all_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows of final/train.jsonl, or of the newest train.jsonl, in the order of the file.

    ``image_sha256`` has the hashes of the problem's images, joined by spaces; null without an image. ``round`` is 0 in
    the distillation, and for a rewrite the round of its draft. Raises DataError for a damaged file.
    """
    stage = choose_training_stage(run)
    read_hashes = _choose_hashes(run)
    with open_database(run) as database:
        result = database.execute(JOIN, [stage.name])
        while rows := result.fetchmany(FETCH_ROWS):
            for row in rows:
                path_id, problem_id, origin, made_in, model, seed, prompt, parent, recorded, *verdict = row
                images = recorded if read_hashes is None else read_hashes(problem_id)
                yield {
                    "path_id": path_id,
                    "problem_id": problem_id,
                    "origin": origin,
                    "round": round_of(made_in, parent),
                    "model": model,
                    "seed": seed,
                    "prompt_version": prompt,
                    "image_sha256": " ".join(images) if images else None,
                    "parent": parent,
                    "verdict": dict(zip(VERDICT_COLUMNS, verdict, strict=True)) if verdict[0] is not None else None,
                }


def format_rows(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield one line per row: its id, parent, writer, prompt and image."""
    for row in rows:
        parent = f" <- {row['parent']}" if row["parent"] else ""
        image = (row["image_sha256"] or "none")[:16]
        yield clean(f"{row['path_id']}{parent}: {row['origin']} {row['model']}, {row['prompt_version']}, image {image}")


def choose_training_stage(run: Run) -> FinishedStage:
    """Return the final stage, or the newest stage with a train.jsonl. Raises DataError without such a stage."""
    stages = [stage for stage in run.stages if stage.has(TRAIN)]
    if not stages:
        raise DataError(f"{run.folder}: no finished stage has a {TRAIN}; continue the run to its distillation")
    if stages[-1].name not in ("final", "sft"):
        _print_note(f"the run has no final stage, or not yet; these are the rows of {stages[-1].name}/{TRAIN}")
    return stages[-1]


def _choose_hashes(run: Run) -> Callable[[str], list[str] | None] | None:
    """Return None if the run recorded the hashes, else a function that hashes the current images of a problem."""
    base = run.stage("base")
    if base is not None and base.has(SOURCES):
        return None
    _print_note(f"the run recorded no {SOURCES}; image_sha256 is that of the current images")
    try:
        get = problem_lookup(run.config)
    except MathSEError as error:
        _print_note(f"its data cannot be read now, so image_sha256 is null: {error}")
        return lambda _: None

    def hash_current(problem_id: str) -> list[str] | None:
        try:
            return hash_images(get(problem_id))
        except DataError:
            return None

    return hash_current


def _print_note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
