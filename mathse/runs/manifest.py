"""The manifest of a stage: reading it as an untrusted file, and comparing it with the files that it lists.

``stage.begun.json`` exists while a stage is being made and has its settings and inputs (``RECORD``). ``stage.json``
exists when the stage is finished and also lists its files. ``mathse.runs.stage_cache`` writes both.

Weights of many GB take minutes to read. So a large file is read once, and later only its size and time of change are
compared. The user's cache remembers verified files, because a run folder may be shared, read-only or moved. Without a
writable cache a file is read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mathse.errors import DataError, RunError
from mathse.runs.store import read_json, sha256_file, write_json

# Fields at the start of both manifests, with their types.
RECORD = {"stage": str, "identity": str, "config": dict, "keys": list, "after": dict}
OUTPUT = {"sha256": str, "bytes": int}  # fields of each file in stage.json
MAX_HASHED_BYTES = 64 * 2**20  # files up to this size are read at each check, larger files once


def read_record(file: Path) -> dict[str, Any]:
    """Return the settings and inputs of a stage from one of its manifests. Raises RunError for another file."""
    record: Any = read_json(file)
    if missing := [key for key in RECORD if not _has_fields(record, {key: RECORD[key]})]:
        raise RunError(f"{file} is not a stage's manifest: it lacks {missing}; remove {file.parent} to make it again")
    return dict(record)


def read_manifest(file: Path) -> dict[str, Any]:
    """Return the stage.json of a finished stage.

    Raises RunError if the file is missing, is no manifest, or lists files outside its folder.
    """
    if not file.is_file():
        raise RunError(f"{file.parent} is not a finished stage: it has no {file.name}")
    manifest = read_record(file)
    lists_files = _has_fields(manifest, {"outputs": dict, "summary": dict})
    if not lists_files or not all(_has_fields(output, OUTPUT) for output in manifest["outputs"].values()):
        raise RunError(f"{file} does not list the files that the stage made; remove {file.parent} to make it again")
    for name in manifest["outputs"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(
                f"{file} lists {name!r}, which is not below {file.parent}; no run writes such a file: do not use it"
            )
    return manifest


def _has_fields(value: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


def verify(folder: Path, outputs: Mapping[str, Any], digest: Callable[[Path], str] = sha256_file) -> None:
    """Compare the ``outputs`` of a finished stage with their files.

    A file above MAX_HASHED_BYTES is read once, and again after a change of its size or time.

    Args:
        digest: returns the SHA-256 of a file.

    Raises:
        RunError: a file is missing or differs from its record.
    """
    for name, recorded in outputs.items():
        file, is_large = folder / name, recorded["bytes"] > MAX_HASHED_BYTES
        must_read = not is_large or not (file.is_file() and is_verified(file, recorded["sha256"]))
        verify_file(folder, name, recorded, digest if must_read else None)
        if is_large and must_read:
            remember(file, recorded["sha256"])


def verify_file(
    folder: Path, name: str, recorded: Mapping[str, Any], digest: Callable[[Path], str] | None = sha256_file
) -> None:
    """Compare a file with its record, or only its size if ``digest`` is None. Raises RunError."""
    file, size = folder / name, recorded["bytes"]
    if not file.is_file():
        damage = "is missing"
    elif file.stat().st_size != size:
        damage = f"has {file.stat().st_size} bytes, not the recorded {size}"
    elif digest is not None and digest(file) != recorded["sha256"]:
        damage = "has other contents than recorded (sha256)"
    else:
        return
    if file.is_symlink():
        raise RunError(
            f"{file} is a reference to {file.readlink()}, which {damage}; put that file back, or remove {folder} so "
            "that the stage is made again"
        )
    raise RunError(f"{file} {damage}; put the file back, or remove {folder} so that the stage is made again")


# --- verified large files ---------------------------------------------------------------------------------------------


def remember(file: Path, sha256: str) -> None:
    """Remember that ``file`` has these contents now."""
    with suppress(OSError):
        note = _find_note(file)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, _describe(file, sha256))


def is_verified(file: Path, sha256: str) -> bool:
    """Whether ``file`` had these contents when it was read last and has not changed since."""
    try:
        return bool(read_json(_find_note(file)) == _describe(file, sha256))
    except (OSError, DataError):
        return False


def _describe(file: Path, sha256: str) -> dict[str, Any]:
    status = file.stat()
    return {"path": str(file.resolve()), "bytes": status.st_size, "changed": status.st_mtime_ns, "sha256": sha256}


def _find_note(file: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache / "mathse" / "verified" / f"{name}.json"
