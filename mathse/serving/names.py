"""What a checkpoint is called where it is served."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mathse.errors import CheckpointError
from mathse.store import make_folder, sha256_file

SERVED = "served"  # in a run folder: links to the checkpoints by content, logs of the engines


def content_name(checkpoint: Path) -> str:
    """``mathse-`` and 12 hex digits that the files of the folder decide: weights, tokenizer, template, pixel bounds.

    Raises CheckpointError where there are none.
    """
    files = sorted(file for file in checkpoint.iterdir() if file.is_file()) if checkpoint.is_dir() else []
    if not files:
        raise CheckpointError(f"{checkpoint}: no checkpoint folder, so it cannot be served; remove its stage's folder")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return f"mathse-{digest.hexdigest()[:12]}"


def linked(checkpoint: Path, name: str, folder: Path) -> Path:
    """``folder/name``, an absolute path that leads to the checkpoint: an engine that keeps what it has loaded by its
    path is told another path for other weights."""
    make_folder(folder)
    link, aside = folder.absolute() / name, folder / f".{name}.partial"
    if not link.exists():  # nor where it leads to a folder that is gone
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(checkpoint.absolute(), folder.absolute()), target_is_directory=True)
        os.replace(aside, link)
    return link
