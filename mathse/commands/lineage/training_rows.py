"""Every training row of a run with where it came from: a join over the run's files, which are never held whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from mathse.commands.lineage.problem import image_hashes
from mathse.commands.lineage.sql import CHUNK, opened
from mathse.commands.lineage.story import round_of
from mathse.data.sources import problem_lookup
from mathse.errors import DataError, MathSEError
from mathse.reporting.progress.wording import clean
from mathse.runs.layout import SOURCES, TRAIN
from mathse.runs.reader import FinishedStage, Run

# Of a path's verdicts the one that its own stage stores; ids of paths are unique in a run.
JOIN = """
SELECT t.id, t.problem_id, t.origin, t.made_in, t.model, t.seed, t.prompt, t.parent, s.image_sha256,
       v.status, v.error_step, v.error_analysis, v.score, v.judge
FROM train t LEFT JOIN verdicts v ON v.path_id = t.id LEFT JOIN sources s ON s.problem_id = t.problem_id
WHERE t.stage = ? ORDER BY t.line
"""
VERDICT = ("status", "error_step", "error_analysis", "score", "judge")


def all_rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row of final/train.jsonl (of a run without one: of the newest train.jsonl) a time, in the file's order.

    ``image_sha256``: the hash of the problem's image, of several images their hashes with blanks between, null of none.
    ``round``: 0 of the distillation; of a rewrite that of its draft. Raises DataError where a file is damaged.
    """
    stage = training_stage(run)
    hashes = _hashes(run)
    with opened(run) as database:
        result = database.execute(JOIN, [stage.name])
        while rows := result.fetchmany(CHUNK):
            for row in rows:
                path_id, problem_id, origin, made_in, model, seed, prompt, parent, recorded, *verdict = row
                images = recorded if hashes is None else hashes(problem_id)
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
                    "verdict": dict(zip(VERDICT, verdict, strict=True)) if verdict[0] is not None else None,
                }


def rows_as_text(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A line a row: its id, who wrote it, from what, its image."""
    for row in rows:
        parent = f" <- {row['parent']}" if row["parent"] else ""
        image = (row["image_sha256"] or "none")[:16]
        yield clean(f"{row['path_id']}{parent}: {row['origin']} {row['model']}, {row['prompt_version']}, image {image}")


def training_stage(run: Run) -> FinishedStage:
    """The stage whose train.jsonl counts: the final one, else the newest. Raises DataError where there is none."""
    stages = [stage for stage in run.stages if stage.has(TRAIN)]
    if not stages:
        raise DataError(f"{run.folder}: no finished stage has a {TRAIN}; let the run go on to its distillation")
    if stages[-1].name not in ("final", "sft"):
        _note(f"the run has no final stage, or not yet; these are the rows of {stages[-1].name}/{TRAIN}")
    return stages[-1]


def _hashes(run: Run) -> Callable[[str], list[str] | None] | None:
    """None where the run has recorded them; else what hashes the images as they are now."""
    base = run.stage("base")
    if base is not None and base.has(SOURCES):
        return None
    _note(f"the run recorded no {SOURCES}; image_sha256 is that of the images as they are now")
    try:
        get = problem_lookup(run.config)
    except MathSEError as error:
        _note(f"its data cannot be read now, so image_sha256 is null: {error}")
        return lambda _: None

    def now(problem_id: str) -> list[str] | None:
        try:
            return image_hashes(get(problem_id))
        except DataError:
            return None

    return now


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
