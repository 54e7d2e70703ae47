"""The figures of a run by names that stay the same from run to run: what W&B's summary holds, and panels show.

==========================  =========================================================================================
``metric``                  the number a sweep optimises
``status``, ``name``, ...   the other texts and numbers at the top of summary.json (``task``, ``seed``)
``<stage>/<STAGE_KEYS>``    of base, distill, round_01, ..., final: what summary.json says of it; also
                            ``transitions_<from>_<to>`` and ``origins_<origin>``
``last/...``                the same of the run's last stage, and ``last/stage``, its name
``orm/<ORM_KEYS>``          the ORM on held-out paths of the weak students it was trained on
``<stage>/orm/<ORM_KEYS>``  the ORM on held-out paths of that stage's student
``usage/...``               what a paid teacher was asked, and the price
==========================  =========================================================================================

A pair ``ci95`` is ``ci_low`` and ``ci_high``; where several shares have one, ``<share>_ci_low``. Nulls are absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mathse.runs.layout import ORM_METRICS
from mathse.runs.reader import FinishedStage

Value = float | int | str

STAGE_KEYS = (
    "accuracy",
    "ci_low",
    "ci_high",
    "n",
    "dev_accuracy",
    "train_rows",
    "accepted",
    "rejected",
    "unparsed",
    "acceptance_precision",
    "step_precision",
    "skipped_fit",
)
ORM_KEYS = (
    "overall_accuracy",
    "positive_accuracy",
    "negative_accuracy",
    "error_step_accuracy",
    "auroc",
    "n",
    "unparsed",
)


def run_figures(summary: Mapping[str, Any]) -> dict[str, Value]:
    """All numbers and texts of summary.json (its ``notes`` apart) under the names above."""
    parts = ("stages", "orm", "orm_by_student", "usage")
    flat = figures({key: value for key, value in summary.items() if key not in parts})
    for entry in summary["stages"]:
        flat |= _below(entry["stage"], figures(entry))
    if summary["stages"]:
        last = summary["stages"][-1]
        flat |= {"last/stage": last["stage"], **_below("last", figures(last))}
    for entry in summary["orm_by_student"]:
        flat |= _below(f"{entry['stage']}/orm", figures(entry))
    for part in ("orm", "usage"):
        flat |= _below(part, figures(summary.get(part) or {}))
    return flat


def stage_figures(stage: FinishedStage) -> dict[str, Value]:
    """The figures of a stage's manifest, and below ``orm/`` those of the ORM on this stage's student."""
    return figures(stage.summary) | _below("orm", figures(stage.json(ORM_METRICS) or {}))


def round_figures(stage: FinishedStage) -> dict[str, float | int]:
    """A stage's point on the axis of rounds: its numbers, and ``acceptance``, the share of judged paths that joined."""
    numbers = {key: value for key, value in stage_figures(stage).items() if not isinstance(value, str)}
    judged = sum(numbers.get(key, 0) for key in ("accepted", "rejected", "unparsed"))
    return numbers | ({"acceptance": numbers["accepted"] / judged} if judged else {})


def figures(summary: Mapping[str, Any]) -> dict[str, Value]:
    """A stage's summary, or a metrics file, as flat numbers and texts: ``ci95`` pairs as ``ci_low`` and ``ci_high``,
    nested keys joined by ``_``. What is null, a list or the stage's own name is left out."""
    flat: dict[str, Value] = {}
    for key, value in summary.items():
        if key == "ci95":
            flat |= _intervals(value)
        elif isinstance(value, Mapping):
            flat |= {f"{key}_{name}": inner for name, inner in figures(value).items()}
        elif isinstance(value, (int, float, str)) and key != "stage":
            flat[key] = value
    return flat


def _intervals(ci95: Any) -> dict[str, Value]:
    """One pair, or (an ORM's) a pair by name."""
    named = {f"{name}_": pair for name, pair in ci95.items()} if isinstance(ci95, Mapping) else {"": ci95}
    return {
        f"{name}ci_{end}": bound
        for name, pair in named.items()
        if pair
        for end, bound in zip(("low", "high"), pair, strict=True)
    }


def _below(place: str, flat: Mapping[str, Value]) -> dict[str, Value]:
    return {f"{place}/{key}": value for key, value in flat.items()}
