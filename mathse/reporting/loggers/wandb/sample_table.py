"""A sample of a stage's paths with their verdicts and pictures, as a W&B table.

A hash of the ids chooses the paths, so a run that is made or sent again shows the same paths.
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

MAX_ROWS = 64
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
    """Return a ``wandb.Table`` of at most MAX_ROWS rows; None if the stage has no samples."""
    import wandb

    rows = []
    for sample in choose_samples(stage, MAX_ROWS):
        problem, verdict = problem_of(sample.problem_id), sample.verdict
        picture = join_pictures(problem, image)
        judgement: list[Any] = [None] * 4
        if verdict:
            judgement = [verdict.status, verdict.score, verdict.error_step, verdict.error_analysis]
        right = None  # None: the problem has no reference answer
        if problem.answer:
            right = is_right(problem, sample.text)
        cell = wandb.Image(picture, file_type="png") if picture else None
        rows.append([problem.id, cell, problem.question, problem.answer, sample.text, right, *judgement])
    return wandb.Table(columns=COLUMNS, data=rows) if rows else None


@dataclass(frozen=True)
class Sample:
    """A path with its verdict, or an answer to a test problem, which has no verdict."""

    problem_id: str
    text: str
    verdict: Verdict | None


def choose_samples(stage: FinishedStage, limit: int) -> list[Sample]:
    """Choose at most ``limit`` judged paths of the stage; without judged paths, answers to the test problems."""

    def choose(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        return heapq.nsmallest(limit, rows, key=lambda row: derive(0, "samples", row["id"]))

    if stage.has(VERDICTS):
        # verdicts.jsonl judges the sampled paths, or the rewrites of a reflection.
        rewrites = (row["revised"] for row in stage.rows(REFLECTIONS))
        chosen = choose(stage.rows(PATHS) if stage.has(PATHS) else rewrites)
        ids = {row["id"] for row in chosen}
        rows = (row for row in stage.rows(VERDICTS) if row["path_id"] in ids)
        verdicts = {row["path_id"]: Verdict.from_json(row) for row in rows}
        return [Sample(row["problem_id"], row["text"], verdicts.get(row["id"])) for row in chosen]
    if stage.has(ORM_HELD):
        paths = ({**row["path"], "verdict": row["verdict"]} for row in stage.rows(ORM_HELD))
        return [Sample(row["problem_id"], row["text"], Verdict.from_json(row["verdict"])) for row in choose(paths)]
    return [Sample(row["id"], row["response"], None) for row in choose(stage.rows(PREDICTIONS))]


def join_pictures(problem: Problem, load: Loader) -> Image.Image | None:
    """Scale the problem's images down and join them side by side; None for a problem without images."""
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
