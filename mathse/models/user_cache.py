"""The folder ``~/.cache/mathse`` for files that take long to make and that all runs of a user share."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(kind: str) -> Path:
    """Return the folder for one kind of files, below ``$XDG_CACHE_HOME`` if that is set."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mathse" / kind
