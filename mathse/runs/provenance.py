"""The program that made a stage: the commit of the source, and the versions of packages that decide its numbers."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from mathse import __version__


@functools.cache
def read_versions() -> dict[str, str | None]:
    """Return package -> version from the packages' metadata, because their import takes seconds."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "mathse": __version__}
    for package in ("torch", "transformers", "pytorch_lightning"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def read_git_commit() -> str | None:
    """Return the commit of this source tree, with "-dirty" if files have changed since; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package may lie in another repository
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
