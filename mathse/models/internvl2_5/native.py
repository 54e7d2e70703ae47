"""Published checkpoints are converted once, into a cache: ``$MATHSE_CACHE``, else ``~/.cache/mathse``."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mathse.models.checkpoint import resolve
from mathse.models.internvl2_5.conversion import convert, is_original
from mathse.runs.store import make_folder

FORM = 1  # of what a conversion writes; raised when that changes, so that older ones are not taken for it


def ensure_native(path: str | Path, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder of a checkpoint in transformers' layout, converted first where it is in the published one.

    A folder is known by its path and its files' names, sizes and times of change; a hub id by itself and ``revision``,
    so that a converted checkpoint is found again without the hub, and with the download deleted. The first of several
    processes converts, the others wait for it.
    """
    cache = (cache_dir or default_cache()) / "internvl2_5"
    if not Path(path).is_dir():
        ready = cache / _name(str(path), revision or "main")
        if ready.is_dir():
            return ready
    folder = resolve(path, revision)
    if not is_original(folder):
        return folder
    ready = cache / (_name(*_identity(folder)) if Path(path).is_dir() else _name(str(path), revision or "main"))
    make_folder(cache)
    with _locked(cache / f".{ready.name}.lock"):
        if not ready.is_dir():
            logging.getLogger(__name__).info("converting %s once, into %s", path, ready)
            convert(folder, ready)
    return ready


def default_cache() -> Path:
    return Path(os.environ.get("MATHSE_CACHE") or "~/.cache/mathse").expanduser()


def _identity(folder: Path) -> list[str]:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    stats = [(file.name, file.stat()) for file in files]
    return [str(folder.resolve()), *(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)]


def _name(what: str, *details: str) -> str:
    """A folder's name that tells a person what it is and differs for each (what, details)."""
    digest = hashlib.sha256("\n".join([str(FORM), what, *details]).encode()).hexdigest()[:16]
    readable = re.sub(r"[^\w.-]+", "_", what.rstrip("/").rpartition("/")[2]) or "checkpoint"
    return f"{readable}-{digest}"


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Held by one process (or thread) at a time; given back by the system if its holder is killed."""
    with open(file, "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
