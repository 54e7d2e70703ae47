"""A checkpoint's backbone without its weights: it encodes prompts, and that is all it can do.

For whoever has the model answer elsewhere and wants to know what its prompts come to: a server's student and ORM, the
check of data before a training. A family that is not ours has its own loader, which may know no ``weights=False``; it
is opened whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathse.config import build, replace_values
from mathse.config.backbones import SAYS_ITSELF
from mathse.models.base import Backbone


def prompt_reader(section: Any, folder: Path, whole: Callable[[], Backbone]) -> Backbone:
    """The reader of an exported checkpoint of the backbone that ``section`` sets."""
    exported = SAYS_ITSELF.get(type(section))
    if exported is None:
        return whole()
    reader: Backbone = build(replace_values(section, path=str(folder), **exported), weights=False)
    return reader


def reader_as_set(section: Any, whole: Callable[[], Backbone]) -> Backbone:
    """The reader of the checkpoint that ``section`` names, with the bounds and words that it sets.

    Weights are neither read nor fetched; without a path (the tiny family's random weights) all is opened.

    Raises CheckpointError as the family's own loader does.
    """
    if type(section) not in SAYS_ITSELF or section.path is None:
        return whole()
    reader: Backbone = build(section, weights=False)
    return reader
