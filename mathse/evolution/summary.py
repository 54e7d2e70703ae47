"""summary.json: a run in numbers. No time and no path stands in it, so two equal runs have equal summaries."""

from __future__ import annotations

from typing import Any

from mathse.evolution.evolution_run import EvolutionRun
from mathse.judges.teachers import PaidTeacher
from mathse.runs.layout import ORM_METRICS
from mathse.runs.ledger import add_costs, sum_accounts
from mathse.runs.reader import read_stages
from mathse.runs.store import read_json

ORM_FIGURES = (
    "positive_accuracy",
    "negative_accuracy",
    "overall_accuracy",
    "error_step_accuracy",
    "auroc",
    "n",
    "unparsed",
    "ci95",
)


def summarize(loop: EvolutionRun) -> dict[str, Any]:
    """The summary of a finished run; ``metric`` is dev accuracy (task=orm: held-out verdict accuracy)."""
    config, run = loop.config, loop.context.run
    orm = next((orm_figures(stage.summary) for stage in loop.orm_stages), None)
    by_student = [
        {"stage": entry["stage"], **orm_figures(read_json(file))}
        for entry in loop.entries
        if (file := run.path / entry["stage"] / ORM_METRICS).exists()
    ]
    last = loop.entries[-1] if loop.entries else {}
    made = read_stages(run.path)
    metric = orm["overall_accuracy"] if config.task == "orm" and orm else last.get("dev_accuracy")
    return {
        "status": "finished",
        "name": config.name,
        "task": config.task,
        "seed": config.seed,
        "metric": metric,
        "stages": [add_costs(entry, made) for entry in loop.entries],
        "ledger": sum_accounts(made),
        "orm": orm,
        "orm_by_student": by_student,
        "notes": [
            *loop.context.notes,
            *_warnings(loop),
            *(f"{stage.name}: {reason}" for stage in made if (reason := stage.summary.get("no_rewrites"))),
        ],
        **({"usage": teacher.usage()} if isinstance(teacher := loop.models.teacher, PaidTeacher) else {}),
    }


def _warnings(loop: EvolutionRun) -> list[str]:
    """The warnings of each stage's training run: rows that it hardly saw, a loss that still falls."""
    runs = ((entry["stage"], entry["exposure"]) for entry in loop.entries if entry.get("exposure"))
    return [f"{stage}: {warning}" for stage, exposure in runs for warning in exposure["warnings"]]


def orm_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """An ORM's figures without the bins of its reliability diagram."""
    return {key: metrics.get(key) for key in ORM_FIGURES}
