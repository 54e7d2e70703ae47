"""Output folders of commands: filled under another name, published by a rename, and replaced only if we made them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathse.errors import DataError
from mathse.runs.store import make_folder, publish_folder, read_json, write_json

MADE_BY = "made_by"  # key in the marker that names this program


def publish(out: Path, marker: str, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Publish a folder as ``out``, in place of an older folder of this command.

    Args:
        marker: name of the JSON file that marks the folder as ours.
        fill: writes the folder's files and returns the contents of ``marker``.

    Raises:
        DataError: ``out`` has files but no marker of ours, or a file in it was added or changed later. Nothing has been
            written then.
    """
    out = out.resolve()  # so that a link keeps pointing to it, and "." has a name
    made_at = (out / marker).stat().st_mtime_ns if is_made_by_us(out / marker) else None
    if made_at is None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"--out {out}: exists and was not made by this command (no {marker} of it); name a new folder")
    if made_at is not None:
        # The marker is written last, so a newer file was added or changed by the user.
        for file in sorted(out.rglob("*")):
            if file.is_file() and file.stat().st_mtime_ns > made_at:
                changed = file.relative_to(out)
                raise DataError(f"--out {out}: {changed} was added or changed since it was made; name a new folder")
    make_folder(out.parent)
    unfinished = out.with_name(f".{out.name}.unfinished.partial")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed command
    try:
        unfinished.mkdir()
        write_json(unfinished / marker, {MADE_BY: "mathse", **fill(unfinished)})
        publish_folder(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_made_by_us(marker: Path) -> bool:
    """Whether a file is a marker of this program, and not another program's file of the same name."""
    if not marker.is_file():
        return False
    try:
        contents = read_json(marker)
    except DataError:
        return False
    return isinstance(contents, dict) and contents.get(MADE_BY) == "mathse"
