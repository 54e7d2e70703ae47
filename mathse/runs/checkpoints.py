"""The checkpoints of a run: the training rows of each, and the checkpoint that its training started from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mathse.runs.layout import CHECKPOINT, FEEDBACK, SKIPPED_FIT, TOO_LONG, TRAIN
from mathse.runs.reader import Run


@dataclass(frozen=True)
class Checkpoint:
    """A finished stage's model.

    Attributes:
        name: "round_01/checkpoint", as in lineage.
        stage: the stage that made it.
        rows: the file of its training rows; None without training, or for training on the solutions of a data split.
        start: the checkpoint that training started from.
        carried_on: whether it is a copy of ``start``, because the stage had no training row.
        weights: file -> SHA-256, from stage.json.
        config_hash: the stage's identity: its settings, and the identities of the stages before it.
        left_out: ids of rows that were too long for training.
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
        """Whether the model was trained on a row of ``rows``."""
        return self.rows is not None and path_id not in self.left_out


def list_checkpoints(run: Run) -> dict[str, Checkpoint]:
    """Return the checkpoints by name, in the order of the stages."""
    by_name: dict[str, Checkpoint] = {}
    student: str | None = None  # the last student so far
    for stage in run.stages:
        if stage.checkpoint is None:
            continue
        name, settings = f"{stage.name}/{CHECKPOINT}", run.settings

        # The start of the stage's training, as in mathse/evolution.
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
