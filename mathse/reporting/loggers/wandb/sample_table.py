"""A few of a stage's paths with their verdicts and pictures, as a W&B table.

They are chosen by a hash of their ids, so a run that is made again, or sent again, shows the same ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mathse.data.domains import is_right
from mathse.data.images import REPORT_SIDE
from mathse.reporting.loggers import Loader
from mathse.runs.layout import ORM_HELD, PATHS, PREDICTIONS, REFLECTIONS, VERDICTS
from mathse.runs.reader import FinishedStage
from mathse.seeds import derive
from mathse.types import Problem, Verdict

ROWS = 64
COLUMNS = [
    "problem",
    "image",
    "question",
    "reference",
    "path",
    "answer right",
    "verdict",
    "P(correct)",
    "error step",
    "critique",
]


def sample_table(stage: FinishedStage, problem_of: Callable[[str], Problem], image: Loader) -> Any:
    """A ``wandb.Table`` of at most ROWS rows; None where the stage has no samples."""
    import wandb

    rows = []
    for sample in samples(stage, ROWS):
        problem, verdict = problem_of(sample.problem_id), sample.verdict
        joined = picture(problem, image)
        judged = (verdict.status, verdict.score, verdict.error_step, verdict.error_analysis) if verdict else [None] * 4
        right = None  # whether the final answer matches the reference, where there is one
        if problem.answer:
            right = is_right(problem, sample.text)
        shown = wandb.Image(joined, file_type="png") if joined else None
        rows.append([problem.id, shown, problem.question, problem.answer, sample.text, right, *judged])
    return wandb.Table(columns=COLUMNS, data=rows) if rows else None


@dataclass(frozen=True)
class Sample:
    """A path (or an answer to a test problem, which no judge sees)."""

    problem_id: str
    text: str
    verdict: Verdict | None


def samples(stage: FinishedStage, limit: int) -> list[Sample]:
    """At most ``limit`` of the stage's judged paths, else of its answers to the test problems; chosen by their ids."""
    if stage.has(VERDICTS):
        # The paths that verdicts.jsonl is about: sampled ones, or the rewrites of a reflection.
        rewrites = (row["revised"] for row in stage.rows(REFLECTIONS))
        chosen = _choose(stage.rows(PATHS) if stage.has(PATHS) else rewrites, limit)
        ids = {row["id"] for row in chosen}
        rows = (row for row in stage.rows(VERDICTS) if row["path_id"] in ids)
        verdicts = {row["path_id"]: Verdict.from_json(row) for row in rows}
        return [Sample(row["problem_id"], row["text"], verdicts.get(row["id"])) for row in chosen]
    if stage.has(ORM_HELD):
        judged = ({**row["path"], "verdict": row["verdict"]} for row in stage.rows(ORM_HELD))
        held = _choose(judged, limit)
        return [Sample(row["problem_id"], row["text"], Verdict.from_json(row["verdict"])) for row in held]
    answers = _choose(stage.rows(PREDICTIONS), limit)
    return [Sample(row["id"], row["response"], None) for row in answers]


def _choose(rows: Iterator[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    return heapq.nsmallest(limit, rows, key=lambda row: derive(0, "samples", row["id"]))


def picture(problem: Problem, load: Loader) -> Image.Image | None:
    """The problem's images, scaled down for a table and side by side; None where it has none."""
    images = [load(ref) for ref in problem.images]
    for image in images:
        image.thumbnail((REPORT_SIDE, REPORT_SIDE))
    if len(images) < 2:
        return images[0] if images else None
    joined = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), "white")
    x = 0  # pixels from the left
    for image in images:
        joined.paste(image, (x, 0))
        x += image.width
    return joined
