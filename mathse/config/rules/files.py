"""Files, folders and checkpoints that settings name: what is wrong with one, as a sentence for every rule alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mathse.config.mistakes import show

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NEITHER = "neither a folder that exists nor a hub id of the form org/name; pass one of them"


def check_file(path: str, value: str | None, content: str) -> Iterator[str]:
    """Nothing where the setting at ``path`` is null or a file; ``content`` says what such a file has in it."""
    if value is not None and not Path(value).is_file():
        yield f"{path} = {show(value)}: no such file; it {content}"


def check_checkpoint(path: str, value: str | None, required: str) -> Iterator[str]:
    """Nothing where the setting at ``path`` is null or a model's folder; ``required`` says which kind it must be."""
    if value is None or Path(value, "config.json").is_file():
        return
    lacks = "it has no config.json" if Path(value).is_dir() else "there is no such folder"
    # a run's folder, or a stage's, instead of the checkpoint in it
    inside = next((i for i in ("checkpoint", "final/checkpoint") if Path(value, i, "config.json").is_file()), None)
    meant = f"; did you mean {Path(value, inside)}?" if inside else ""
    yield f"{path} = {show(value)}: must be {required}, but {lacks}{meant}"
