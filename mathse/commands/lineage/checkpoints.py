"""The checkpoints of a run: what each was fitted on, and which it started from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mathse.commands.lineage.lines import TRAIN, in_order
from mathse.reporting.report.runs import Run, Stage
from mathse.runs.flat import flatten

CHECKPOINT, WEIGHTS = "checkpoint", (".safetensors", ".bin")
FEEDBACK, SKIPPED, TOO_LONG = "feedback.jsonl", "skipped_fit.json", "too_long.jsonl"


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
    settings = flatten(run.config)
    found: dict[str, Checkpoint] = {}
    student: str | None = None  # the last one
    for stage in in_order(run):
        if not (stage.folder / CHECKPOINT).is_dir() and not _weights(stage):
            continue
        one = _checkpoint(stage, _start(stage, settings, student))
        found[one.name] = one
        if not stage.name.startswith("orm"):
            student = one.name
    return found


def _checkpoint(stage: Stage, start: str | None) -> Checkpoint:
    skipped = stage.json(SKIPPED)
    file = FEEDBACK if stage.name == "orm" else TRAIN
    fitted = skipped is None and (stage.folder / file).is_file() and stage.name != "base"
    return Checkpoint(
        f"{stage.name}/{CHECKPOINT}",
        stage.name,
        f"{stage.name}/{file}" if fitted else None,
        f"{skipped['carried_on']}/{CHECKPOINT}" if skipped else start,
        skipped is not None,
        _weights(stage),
        str(stage.manifest.get("identity", "")),
        frozenset(str(row["id"]) for row in stage.rows(TOO_LONG)),
    )


def _weights(stage: Stage) -> dict[str, str]:
    outputs: Mapping[str, Any] = stage.manifest.get("outputs", {})
    found = {name.removeprefix(f"{CHECKPOINT}/"): recorded["sha256"] for name, recorded in outputs.items()
             if name.startswith(f"{CHECKPOINT}/") and name.endswith(WEIGHTS)}  # fmt: skip
    return {name: digest for name, digest in found.items() if "/" not in name}  # an adapter lies beside its merge


def _start(stage: Stage, settings: Mapping[str, Any], student: str | None) -> str | None:
    """What a stage's fit began from, as mathse/evolution has it."""
    if stage.name == "base":
        return None
    if stage.name == "orm":
        return f"orm/solver/{CHECKPOINT}"
    if stage.name == "orm/solver" and settings.get("orm.backbone") is not None:
        return None
    key = {"round": "evolution.init", "final": "evolution.reflect.init"}.get(stage.name.partition("_")[0])
    return student if key and settings.get(key) == "previous" else f"base/{CHECKPOINT}"
