"""A stage's checkpoint as a folder to share: its files, and a model card with the run's table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from mathse.commands.export.model_card import model_card
from mathse.errors import DataError
from mathse.runs.layout import CHECKPOINT, WEIGHTS
from mathse.runs.reader import Run


def write_model(run: Run, stage: str, folder: Path) -> dict[str, Any]:
    """Copy the checkpoint into ``folder``, weights as hard links where the disk can; what there is to say of it.

    Raises DataError where the stage has no checkpoint.
    """
    made_in = run.stage(stage)
    if made_in is None or not made_in.weights:
        where, others = run.folder / stage / CHECKPOINT, [s.name for s in run.stages if s.weights]
        if not others:
            raise DataError(f"{where}: holds no weights, and neither does another finished stage; export another run")
        raise DataError(f"{where}: no weights of a finished stage; choose --stage {' or '.join(others)}")
    size = 0
    for name, recorded in made_in.manifest["outputs"].items():  # what the stage made, and nothing that lies beside it
        if name.startswith(f"{CHECKPOINT}/"):
            source, target = made_in.folder / name, folder / name.removeprefix(f"{CHECKPOINT}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            (_linked if source.suffix in WEIGHTS else shutil.copyfile)(source, target)
            size += recorded["bytes"]
    (folder / "README.md").write_text(model_card(run, stage), encoding="utf-8")
    return {"bytes": size}


def _linked(source: Path, target: Path) -> None:
    """The same bytes under a second name; a copy on another disk. Small files are always copied: tools rewrite them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
