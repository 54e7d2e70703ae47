"""A folder that appears whole: filled aside, published by a rename, and made anew only where it is one of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathse.errors import DataError
from mathse.runs.store import make_folder, publish_folder, read_json, write_json

MADE_BY = "made_by"  # what a marker says, beside what there is to say of the folder


def publish(out: Path, marker: str, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Let ``fill`` write a folder, which then takes the name ``out``; what it returns is written as ``marker``.

    Raises DataError, before anything is written, where ``out`` holds something and no such file, so that it is not
    ours, and where a file in it was added or changed since.
    """
    out = out.resolve()  # a link goes on pointing to it; "." has a name
    if out.exists() and not _is_ours(out / marker) and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"--out {out}: exists and was not made by this command (no {marker} of it); name a new folder")
    if (changed := _changed_since(out / marker)) is not None:
        raise DataError(f"--out {out}: {changed} was added or changed since it was made; name a new folder")
    make_folder(out.parent)
    unfinished = out.with_name(f".{out.name}.unfinished.partial")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a kill left
    try:
        unfinished.mkdir()
        write_json(unfinished / marker, {MADE_BY: "mathse", **fill(unfinished)})
        publish_folder(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _changed_since(marker: Path) -> Path | None:
    """A file beside the marker, or below, that is newer: the marker is written last."""
    if not marker.is_file():
        return None
    made = marker.stat().st_mtime_ns
    below = sorted(marker.parent.rglob("*"))
    return next((f.relative_to(marker.parent) for f in below if f.is_file() and f.stat().st_mtime_ns > made), None)


def _is_ours(marker: Path) -> bool:
    """A file of another program may have the same name."""
    if not marker.is_file():
        return False
    try:
        said = read_json(marker)
    except DataError:
        return False
    return isinstance(said, dict) and said.get(MADE_BY) == "mathse"
