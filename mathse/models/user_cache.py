"""Where files lie that all runs of a user share, because they take long to make: below ``~/.cache/mathse``."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(kind: str) -> Path:
    """The folder of a kind of such files, in ``$XDG_CACHE_HOME`` where that is set."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mathse" / kind
