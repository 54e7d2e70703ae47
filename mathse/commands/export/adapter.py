"""A LoRA adapter that leaves its run: which files it is, and what it goes on.

In a run an adapter names its base by a path from its own folder. Elsewhere that path leads nowhere, so an exported one
names the published model, or nothing where its base has never been published.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mathse.runs.layout import ADAPTER, CHECKPOINT, ORM_STAGES, WEIGHTS
from mathse.runs.reader import FinishedStage, Run
from mathse.runs.store import read_json, write_json

CONFIG = "adapter_config.json"
BASE = "base_model_name_or_path"  # peft's own key


class AdapterBase(NamedTuple):
    """``hub``: the published model that an adapter goes on, None where it is none; ``stage``: the stage of the run
    whose student it goes on instead."""

    hub: str | None
    stage: str | None = None


def base_of(run: Run, stage: str) -> AdapterBase:
    """What the adapter of a finished stage goes on."""
    finished = run.stage(stage)
    config = (finished.json(f"{CHECKPOINT}/{ADAPTER}/{CONFIG}") if finished else None) or {}
    # The folder of the base as seen from the run's: "round_01/checkpoint", or one outside the run.
    base = Path(os.path.normpath(Path(stage, CHECKPOINT, ADAPTER, str(config.get(BASE)))))
    inside = next((s.name for s in run.stages if base == Path(s.name, CHECKPOINT)), "base")
    of_the_orm = stage in ORM_STAGES
    backbone = (run.config["orm"].get("backbone") if of_the_orm else None) or run.config["backbone"]
    return AdapterBase(hub_id(backbone)) if inside == "base" else AdapterBase(None, inside)


def name_base(folder: Path, run: Run, stage: FinishedStage) -> None:
    """Let the adapter in ``folder`` name its base as anybody can find it."""
    config = {**read_json(folder / CONFIG), BASE: base_of(run, stage.name).hub}
    write_json(folder / CONFIG, config)


def adapter_weights(run: Run, stage: str) -> dict[str, str]:
    """SHA-256 of the adapter's files of weights, by their names."""
    finished = run.stage(stage)
    files = {} if finished is None else {Path(name): sha for name, sha in finished.sha256.items()}
    return {f.name: sha for f, sha in files.items() if f.parent == Path(CHECKPOINT, ADAPTER) and f.suffix in WEIGHTS}


def hub_id(backbone: Mapping[str, Any]) -> str | None:
    """The published model, where the settings name one and no folder."""
    path = str(backbone.get("path") or "")
    return path if path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).exists() else None
