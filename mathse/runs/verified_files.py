"""Which large files were compared with their recorded SHA-256 before: by path, size and time of change.

Weights of many GB take minutes to read, so they are read once and then only measured, until somebody writes them anew.
What is remembered lies in the user's cache and not in the run folder, which may be shared, read-only or moved: where it
cannot be kept, a file is simply read again.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mathse.errors import DataError
from mathse.runs.store import read_json, write_json


def remember(file: Path, sha256: str) -> None:
    """``file`` has these contents now."""
    with suppress(OSError):
        _note(file).parent.mkdir(parents=True, exist_ok=True)
        write_json(_note(file), _state(file, sha256))


def is_verified(file: Path, sha256: str) -> bool:
    """Whether ``file`` had these contents when it was read last, and was not written since."""
    try:
        return bool(read_json(_note(file)) == _state(file, sha256))
    except (OSError, DataError):
        return False


def _state(file: Path, sha256: str) -> dict[str, Any]:
    status = file.stat()
    return {"path": str(file.resolve()), "bytes": status.st_size, "changed": status.st_mtime_ns, "sha256": sha256}


def _note(file: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache / "mathse" / "verified" / f"{name}.json"
