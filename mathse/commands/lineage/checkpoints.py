"""The checkpoints of a run: what each was fitted on, and which it started from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mathse.runs.layout import CHECKPOINT, FEEDBACK, SKIPPED_FIT, TOO_LONG, TRAIN
from mathse.runs.reader import FinishedStage, Run


@dataclass(frozen=True)
class Checkpoint:
    """``rows``: the file it was fitted on, None where it was not fitted or on a data split's solutions. ``start``: the
    checkpoint its fit began from. ``carried_on``: it is that checkpoint, because there was nothing to fit on."""

    name: str  # "round_01/checkpoint", as lineage records it
    stage: str
    rows: str | None
    start: str | None
    carried_on: bool
    weights: Mapping[str, str]  # file -> sha256, from stage.json
    config_hash: str  # the stage's identity: settings, and the identities of the stages before it
    left_out: frozenset[str] = frozenset()  # ids of rows that were too long for the fit

    def fitted_on(self, path_id: str) -> bool:
        """Whether a row of ``rows`` took part in the fit."""
        return self.rows is not None and path_id not in self.left_out


def checkpoints(run: Run) -> dict[str, Checkpoint]:
    """By name, in the order of the stages."""
    found: dict[str, Checkpoint] = {}
    student: str | None = None  # the last one
    for stage in run.stages:
        if stage.checkpoint is None:
            continue
        one = _checkpoint(stage, _start(stage, run.settings, student))
        found[one.name] = one
        if not stage.name.startswith("orm"):
            student = one.name
    return found


def _checkpoint(stage: FinishedStage, start: str | None) -> Checkpoint:
    skipped = stage.json(SKIPPED_FIT)
    file = FEEDBACK if stage.name == "orm" else TRAIN
    fitted = skipped is None and stage.has(file) and stage.name != "base"
    return Checkpoint(
        f"{stage.name}/{CHECKPOINT}",
        stage.name,
        f"{stage.name}/{file}" if fitted else None,
        f"{skipped['carried_on']}/{CHECKPOINT}" if skipped else start,
        skipped is not None,
        stage.weights,
        stage.identity,
        frozenset(str(row["id"]) for row in stage.rows(TOO_LONG)),
    )


def _start(stage: FinishedStage, settings: Mapping[str, Any], student: str | None) -> str | None:
    """What a stage's fit began from, as mathse/evolution has it."""
    if stage.name == "base":
        return None
    if stage.name == "orm":
        return f"orm/solver/{CHECKPOINT}"
    if stage.name == "orm/solver" and settings.get("orm.backbone") is not None:
        return None
    key = {"round": "evolution.init", "final": "evolution.reflect.init"}.get(stage.name.partition("_")[0])
    return student if key and settings.get(key) == "previous" else f"base/{CHECKPOINT}"
