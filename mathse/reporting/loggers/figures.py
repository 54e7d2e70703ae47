"""The figures of a run under stable names. Loggers send them, W&B's summary holds them, panels and sweeps refer to
them; a name that changed would break every saved chart.

==========================  =========================================================================================
``metric``                  the number that a sweep optimises
``status``, ``name``, ...   the other texts and numbers at the top of summary.json (``task``, ``seed``)
``<stage>/<STAGE_KEYS>``    the figures of base, distill, round_01, ..., final in summary.json; also
                            ``transitions_<from>_<to>`` and ``origins_<origin>``; after the end of the run the cost
                            of the student, over all stages that it was made from: ``teacher_calls``,
                            ``prefilled_tokens``, ``sampled_tokens``, ``trained_tokens``, ``flops``
``<stage>/ledger/...``      the cost of the stage itself, as in stage.json: ``method_flops``,
                            ``measuring_flops``, ``seconds_cpu`` or ``seconds_gpu``, ...
``ledger/...``              the cost of the whole run: ``method_...``, ``measuring_...``
``last/...``                the figures of the run's last stage, and ``last/stage``, its name
``orm/<ORM_KEYS>``          the ORM on held-out paths of the weak students that it was trained on
``<stage>/orm/<ORM_KEYS>``  the ORM on held-out paths of the stage's student
``usage/...``               the requests to a paid teacher, and the price
==========================  =========================================================================================

A pair ``ci95`` becomes ``ci_low`` and ``ci_high``; if several shares have a pair, ``<share>_ci_low``. Nulls are absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mathse.runs.layout import ORM_METRICS, number_of_round
from mathse.runs.ledger import CURRENCIES, LEDGER
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
    """Return all numbers and texts of summary.json except ``notes``, under the names above."""
    # Parts of the summary: (prefix of their names, values).
    parts: list[tuple[str, Mapping[str, Any]]] = [(entry["stage"], entry) for entry in summary["stages"]]
    parts += [("last", entry) for entry in summary["stages"][-1:]]
    parts += [(f"{entry['stage']}/orm", entry) for entry in summary["orm_by_student"]]
    parts += [(name, summary.get(name) or {}) for name in ("orm", "usage", LEDGER)]

    with_prefix = ("stages", "orm_by_student", "orm", "usage", LEDGER)
    flat = figures({key: value for key, value in summary.items() if key not in with_prefix})
    if summary["stages"]:
        flat["last/stage"] = summary["stages"][-1]["stage"]
    for prefix, part in parts:
        flat |= {f"{prefix}/{key}": value for key, value in figures(part).items()}
    return flat


def stage_figures(stage: FinishedStage) -> dict[str, Value]:
    """Return the figures of a stage's manifest. ``orm/...``: the ORM on the stage's student; ``ledger/...``: costs."""
    orm_figures = figures(stage.json(ORM_METRICS) or {})
    costs = figures(stage.manifest.get(LEDGER) or {})
    return (
        figures(stage.summary)
        | {f"orm/{key}": value for key, value in orm_figures.items()}
        | {f"{LEDGER}/{key}": value for key, value in costs.items()}
    )


def round_figures(stage: FinishedStage) -> dict[str, float | int]:
    """Return a stage's numbers for the axis of rounds, with ``acceptance``: the share of judged paths that joined."""
    numbers = {key: value for key, value in stage_figures(stage).items() if not isinstance(value, str)}
    judged = sum(numbers.get(key, 0) for key in ("accepted", "rejected", "unparsed"))
    return numbers | ({"acceptance": numbers["accepted"] / judged} if judged else {})


def round_of(stage: str, earlier: Iterable[int | None]) -> int:
    """Return a stage's position on the axis of rounds: base -1, distill 0, round_01 1, ...

    Any other stage comes behind the positions of the ``earlier`` stages.
    """
    if (number := number_of_round(stage)) is not None:
        return number
    following = max((r for r in earlier if r is not None), default=-1) + 1
    return {"base": -1, "distill": 0}.get(stage, following)


def figures(summary: Mapping[str, Any]) -> dict[str, Value]:
    """Flatten a stage's summary, or a metrics file, to numbers and texts.

    A pair ``ci95`` becomes ``ci_low`` and ``ci_high``; nested keys are joined by ``_``. Nulls, lists and the stage's
    name are left out.
    """
    flat: dict[str, Value] = {}
    for key, value in summary.items():
        if key == "ci95":
            # A single pair, or in an ORM's figures a pair for each share.
            pairs = {"": value}
            if isinstance(value, Mapping):
                pairs = {f"{name}_": pair for name, pair in value.items()}
            for prefix, pair in pairs.items():
                if pair:
                    flat[f"{prefix}ci_low"], flat[f"{prefix}ci_high"] = pair
        elif isinstance(value, Mapping):
            flat |= {f"{key}_{name}": inner for name, inner in figures(value).items()}
        elif isinstance(value, (int, float, str)) and key != "stage":
            flat[key] = value
    return flat
