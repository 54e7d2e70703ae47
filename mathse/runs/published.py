"""A folder that appears whole: filled aside, published by a rename, and made anew only where it is one of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathse.errors import DataError
from mathse.runs.store import make_folder, publish_folder, read_json, write_json

MADE_BY = "made_by"  # the marker's own key, beside those that describe the folder


def publish(out: Path, marker: str, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Let ``fill`` write a folder, which then takes the name ``out``; what it returns is written as ``marker``.

    Raises DataError, before anything is written, where ``out`` holds something and no such file, so that it is not
    ours, and where a file in it was added or changed since.
    """
    out = out.resolve()  # a link goes on pointing to it; "." has a name
    made = (out / marker).stat().st_mtime_ns if is_made_by_us(out / marker) else None
    if made is None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"--out {out}: exists and was not made by this command (no {marker} of it); name a new folder")
    if made is not None:  # the marker is written last, so a newer file came later
        newer = (file for file in sorted(out.rglob("*")) if file.is_file() and file.stat().st_mtime_ns > made)
        if (file := next(newer, None)) is not None:
            changed = file.relative_to(out)
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


def is_made_by_us(marker: Path) -> bool:
    """Whether a file is a marker of ours, and not another program's file of that name."""
    if not marker.is_file():
        return False
    try:
        contents = read_json(marker)
    except DataError:
        return False
    return isinstance(contents, dict) and contents.get(MADE_BY) == "mathse"
