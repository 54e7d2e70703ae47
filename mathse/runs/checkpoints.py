"""The checkpoints of a run: what each was fitted on, and which it started from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mathse.runs.layout import CHECKPOINT, FEEDBACK, SKIPPED_FIT, TOO_LONG, TRAIN
from mathse.runs.reader import Run


@dataclass(frozen=True)
class Checkpoint:
    """A finished stage's model.

    Attributes:
        name: as lineage records it, "round_01/checkpoint".
        stage: that made it.
        rows: the file it was fitted on, None where it was not fitted or on a data split's solutions.
        start: the checkpoint its fit began from.
        carried_on: it is that checkpoint, because there was nothing to fit on.
        weights: file -> SHA-256, from stage.json.
        config_hash: the stage's identity: its settings, and the identities of the stages before it.
        left_out: ids of rows that were too long for the fit.
    """

    name: str
    stage: str
    rows: str | None
    start: str | None
    carried_on: bool
    weights: Mapping[str, str]
    config_hash: str
    left_out: frozenset[str] = frozenset()

    def fitted_on(self, path_id: str) -> bool:
        """Whether a row of ``rows`` took part in the fit."""
        return self.rows is not None and path_id not in self.left_out


def checkpoints(run: Run) -> dict[str, Checkpoint]:
    """By name, in the order of the stages."""
    by_name: dict[str, Checkpoint] = {}
    student: str | None = None  # the last one
    for stage in run.stages:
        if stage.checkpoint is None:
            continue
        name, settings = f"{stage.name}/{CHECKPOINT}", run.settings

        # What the stage's fit began from, as mathse/evolution has it.
        start: str | None = f"base/{CHECKPOINT}"
        key = {"round": "evolution.init", "final": "evolution.reflect.init"}.get(stage.name.partition("_")[0])
        if stage.name == "base" or (stage.name == "orm/solver" and settings.get("orm.backbone") is not None):
            start = None
        elif stage.name == "orm":
            start = f"orm/solver/{CHECKPOINT}"
        elif key and settings.get(key) == "previous":
            start = student

        file = FEEDBACK if stage.name == "orm" else TRAIN
        skipped = stage.json(SKIPPED_FIT)
        fitted = skipped is None and stage.has(file) and stage.name != "base"
        by_name[name] = Checkpoint(
            name,
            stage.name,
            rows=f"{stage.name}/{file}" if fitted else None,
            start=f"{skipped['carried_on']}/{CHECKPOINT}" if skipped else start,
            carried_on=skipped is not None,
            weights=stage.weights,
            config_hash=stage.identity,
            left_out=frozenset(str(row["id"]) for row in stage.rows(TOO_LONG)),
        )
        if not stage.name.startswith("orm"):
            student = name
    return by_name
