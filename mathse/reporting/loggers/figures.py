"""The figures of a run by names that stay the same from run to run: what loggers send, W&B's summary holds, and panels
and sweeps refer to. A name that changed would break every saved chart.

==========================  =========================================================================================
``metric``                  the number a sweep optimises
``status``, ``name``, ...   the other texts and numbers at the top of summary.json (``task``, ``seed``)
``<stage>/<STAGE_KEYS>``    of base, distill, round_01, ..., final: what summary.json says of it; also
                            ``transitions_<from>_<to>`` and ``origins_<origin>``; what the student took, all
                            stages that it was made from together, once the run is over: ``teacher_calls``,
                            ``prefilled_tokens``, ``sampled_tokens``, ``trained_tokens``, ``flops``
``<stage>/ledger/...``      what that stage spent by itself, as in stage.json: ``method_flops``,
                            ``measuring_flops``, ``seconds_cpu`` or ``seconds_gpu``, ...
``ledger/...``              what the whole run spent: ``method_...``, ``measuring_...``
``last/...``                the same of the run's last stage, and ``last/stage``, its name
``orm/<ORM_KEYS>``          the ORM on held-out paths of the weak students it was trained on
``<stage>/orm/<ORM_KEYS>``  the ORM on held-out paths of that stage's student
``usage/...``               what a paid teacher was asked, and the price
==========================  =========================================================================================

A pair ``ci95`` is ``ci_low`` and ``ci_high``; where several shares have one, ``<share>_ci_low``. Nulls are absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mathse.runs.layout import ORM_METRICS, number_of_round
from mathse.runs.ledger import CURRENCIES, LEDGER
from mathse.runs.reader import FinishedStage

Value = float | int | str

PARTS = ("stages", "orm", "orm_by_student", "usage", LEDGER)  # of summary.json, each below names of its own

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
    "asked_of_teacher",
    *CURRENCIES,
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
    # (prefix of its names, a part of the summary)
    parts: list[tuple[str, Mapping[str, Any]]] = [(entry["stage"], entry) for entry in summary["stages"]]
    parts += [("last", entry) for entry in summary["stages"][-1:]]
    parts += [(f"{entry['stage']}/orm", entry) for entry in summary["orm_by_student"]]
    parts += [(name, summary.get(name) or {}) for name in ("orm", "usage", LEDGER)]

    flat = figures({key: value for key, value in summary.items() if key not in PARTS})
    if summary["stages"]:
        flat["last/stage"] = summary["stages"][-1]["stage"]
    for prefix, part in parts:
        flat |= {f"{prefix}/{key}": value for key, value in figures(part).items()}
    return flat


def stage_figures(stage: FinishedStage) -> dict[str, Value]:
    """The figures of a stage's manifest, below ``orm/`` those of the ORM on this stage's student, and below ``ledger/``
    what the stage itself spent."""
    of_orm = figures(stage.json(ORM_METRICS) or {})
    spent = figures(stage.manifest.get(LEDGER) or {})
    return (
        figures(stage.summary)
        | {f"orm/{key}": value for key, value in of_orm.items()}
        | {f"{LEDGER}/{key}": value for key, value in spent.items()}
    )


def round_figures(stage: FinishedStage) -> dict[str, float | int]:
    """A stage's point on the axis of rounds: its numbers, and ``acceptance``, the share of judged paths that joined."""
    numbers = {key: value for key, value in stage_figures(stage).items() if not isinstance(value, str)}
    judged = sum(numbers.get(key, 0) for key in ("accepted", "rejected", "unparsed"))
    return numbers | ({"acceptance": numbers["accepted"] / judged} if judged else {})


def round_of(stage: str, earlier: Iterable[int | None]) -> int:
    """Where a stage's figures stand on the axis of rounds: base -1, distill 0, round_01 1, ..., any other behind those
    of the ``earlier`` stages."""
    if (number := number_of_round(stage)) is not None:
        return number
    following = max((r for r in earlier if r is not None), default=-1) + 1
    return {"base": -1, "distill": 0}.get(stage, following)


def figures(summary: Mapping[str, Any]) -> dict[str, Value]:
    """A stage's summary, or a metrics file, as flat numbers and texts: ``ci95`` pairs as ``ci_low`` and ``ci_high``,
    nested keys joined by ``_``. What is null, a list or the stage's own name is left out."""
    flat: dict[str, Value] = {}
    for key, value in summary.items():
        if key == "ci95":
            # One pair, or (an ORM's) a pair by the name of its share.
            pairs = {f"{name}_": pair for name, pair in value.items()} if isinstance(value, Mapping) else {"": value}
            for prefix, pair in pairs.items():
                if pair:
                    flat[f"{prefix}ci_low"], flat[f"{prefix}ci_high"] = pair
        elif isinstance(value, Mapping):
            flat |= {f"{key}_{name}": inner for name, inner in figures(value).items()}
        elif isinstance(value, (int, float, str)) and key != "stage":
            flat[key] = value
    return flat
