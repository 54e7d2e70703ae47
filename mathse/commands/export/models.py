"""A stage's checkpoint as a folder to share: its files, and a model card with the run's table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from mathse.commands.export.model_card import model_card
from mathse.errors import DataError
from mathse.runs.reader import Run
from mathse.runs.store import leftovers

CHECKPOINT = "checkpoint"
WEIGHTS = ".safetensors"


def write_model(run: Run, stage: str, folder: Path) -> dict[str, Any]:
    """Copy the checkpoint into ``folder``, weights as hard links where the disk can; what there is to say of it.

    Raises DataError where the stage has no checkpoint.
    """
    source = checkpoint_of(run, stage)
    files = [file for file in sorted(source.rglob("*")) if file.is_file() and not _inside(file, leftovers(source))]
    for file in files:
        target = folder / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        (_linked if file.suffix == WEIGHTS else shutil.copyfile)(file, target)
    (folder / "README.md").write_text(model_card(run, stage), encoding="utf-8")
    return {"bytes": sum(file.stat().st_size for file in files)}


def checkpoint_of(run: Run, stage: str) -> Path:
    found = run.stage(stage)
    if found is not None and any((found.folder / CHECKPOINT).glob(f"*{WEIGHTS}")):
        return found.folder / CHECKPOINT
    others = [s.name for s in run.stages if any((s.folder / CHECKPOINT).glob(f"*{WEIGHTS}"))]
    where = f"{run.folder / stage / CHECKPOINT}"
    if not others:
        raise DataError(f"{where}: holds no weights, and neither does another finished stage; export another run")
    raise DataError(f"{where}: no weights of a finished stage; choose --stage {' or '.join(others)}")


def _inside(file: Path, folders: list[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)


def _linked(source: Path, target: Path) -> None:
    """The same bytes under a second name; a copy on another disk. Small files are always copied: tools rewrite them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
