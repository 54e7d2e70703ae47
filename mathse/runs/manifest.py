"""A stage's manifest: read as a file that may come from anybody, and compared with the files that it lists.

``stage.begun.json`` stands while a stage is being made and holds what it depends on (``RECORD``); ``stage.json`` stands
once it is finished and lists its files too. ``mathse.runs.stage_cache`` writes both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mathse.errors import RunError
from mathse.runs.store import read_json, sha256_file
from mathse.runs.verified_files import is_verified, remember

# What both manifests of a stage start with.
RECORD = {"stage": str, "identity": str, "config": dict, "keys": list, "after": dict}
OUTPUT = {"sha256": str, "bytes": int}  # what a finished stage's manifest says of each file
HASHED_BYTES = 64 * 2**20  # files up to this size are read at each check, larger ones once


def read_record(file: Path) -> dict[str, Any]:
    """What a stage depends on, from either manifest of it. Raises RunError where the file is no manifest."""
    record = read_json(file)
    if missing := [key for key in RECORD if not _has_fields(record, {key: RECORD[key]})]:
        raise RunError(f"{file} is not a stage's manifest: it lacks {missing}; remove {file.parent} to make it again")
    checked: dict[str, Any] = record
    return checked


def read_manifest(file: Path) -> dict[str, Any]:
    """The stage.json of a finished stage. Raises RunError where it is none, and where it lists files that are not below
    its folder."""
    if not file.is_file():
        raise RunError(f"{file.parent} is not a finished stage: it has no {file.name}")
    manifest = read_record(file)
    if not _has_fields(manifest, {"outputs": dict, "summary": dict}) or not all(
        _has_fields(output, OUTPUT) for output in manifest["outputs"].values()
    ):
        raise RunError(f"{file} does not say which files the stage made; remove {file.parent} to make it again")
    for name in manifest["outputs"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(
                f"{file} lists {name!r}, which is not below {file.parent}; no run writes that: do not use it"
            )
    return manifest


def _has_fields(value: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


def verify(folder: Path, outputs: Mapping[str, Any], digest: Callable[[Path], str] = sha256_file) -> None:
    """Raise RunError where one of a finished stage's ``outputs`` is missing or differs from its record. A file above
    HASHED_BYTES is read once and then only measured, as long as nobody writes it anew. ``digest``: the SHA-256 of a
    file."""
    for name, recorded in outputs.items():
        file, large = folder / name, recorded["bytes"] > HASHED_BYTES
        read = not large or not (file.is_file() and is_verified(file, recorded["sha256"]))
        verify_file(folder, name, recorded, digest if read else None)
        if large and read:
            remember(file, recorded["sha256"])


def verify_file(
    folder: Path, name: str, recorded: Mapping[str, Any], digest: Callable[[Path], str] | None = sha256_file
) -> None:
    """The same for one file. ``digest`` None: only its size is compared."""
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
