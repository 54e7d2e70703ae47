"""An exported LoRA adapter: its files and its base.

In a run an adapter names its base by a relative path, which is wrong in any other folder. An exported adapter names the
published model instead, or no base if its base was never published.
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
    """The base of an adapter.

    Attributes:
        hub: id of the published model; None if the base was not published.
        stage: the stage of the run whose student is the base instead.
    """

    hub: str | None
    stage: str | None = None


def find_base(run: Run, stage: str) -> AdapterBase:
    """Return the base of a finished stage's adapter."""
    finished = run.stage(stage)
    config = (finished.json(f"{CHECKPOINT}/{ADAPTER}/{CONFIG}") if finished else None) or {}
    # The folder of the base relative to the run: "round_01/checkpoint", or a folder outside the run.
    base = Path(os.path.normpath(Path(stage, CHECKPOINT, ADAPTER, str(config.get(BASE)))))
    inside = next((s.name for s in run.stages if base == Path(s.name, CHECKPOINT)), "base")
    # The base is a stage of this run, or the model from which the run started.
    is_orm = stage in ORM_STAGES
    backbone = (run.config["orm"].get("backbone") if is_orm else None) or run.config["backbone"]
    return AdapterBase(read_hub_id(backbone)) if inside == "base" else AdapterBase(None, inside)


def name_base(folder: Path, run: Run, stage: FinishedStage) -> None:
    """Write the published base into the adapter in ``folder``."""
    config = {**read_json(folder / CONFIG), BASE: find_base(run, stage.name).hub}
    write_json(folder / CONFIG, config)


def hash_adapter(run: Run, stage: str) -> dict[str, str]:
    """Return the SHA-256 of the adapter's weight files, by name."""
    finished = run.stage(stage)
    hashes: dict[str, str] = {}
    for name, sha256 in finished.sha256.items() if finished else ():
        file = Path(name)
        if file.parent == Path(CHECKPOINT, ADAPTER) and file.suffix in WEIGHTS:
            hashes[file.name] = sha256
    return hashes


def read_hub_id(backbone: Mapping[str, Any]) -> str | None:
    """Return the id of the published model; None if the settings name a folder or no model."""
    path = str(backbone.get("path") or "")
    looks_like_id = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    return path if looks_like_id and not Path(path).exists() else None
