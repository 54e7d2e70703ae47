"""A stage's samples as a W&B table, with pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mathse.reporting.loggers.samples import Loader, Sample, picture, samples
from mathse.runs.reader import FinishedStage
from mathse.types import Problem

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

    rows = [_row(sample, problem_of(sample.problem_id), image) for sample in samples(stage, ROWS)]
    return wandb.Table(columns=COLUMNS, data=rows) if rows else None


def _row(sample: Sample, problem: Problem, image: Loader) -> list[Any]:
    import wandb

    seen, verdict = picture(problem, image), sample.verdict
    return [
        problem.id,
        wandb.Image(seen, file_type="png") if seen else None,
        problem.question,
        problem.answer,
        sample.text,
        sample.answer_right(problem),
        *([verdict.status, verdict.score, verdict.error_step, verdict.error_analysis] if verdict else [None] * 4),
    ]
