"""A checkpoint's backbone without its weights, which only encodes prompts.

It counts the tokens of prompts where another program runs the model: for the student and the ORM behind a server, and
for the check of data before training. The loader of a family in a user's own package may not know ``weights=False``;
then the whole model is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathse.config import build, with_values
from mathse.config.backbones import SAYS_ITSELF
from mathse.models.base import Backbone


def open_exported_reader(section: Any, folder: Path, open_whole: Callable[[], Backbone]) -> Backbone:
    """Open the prompt reader of an exported checkpoint in ``folder``.

    Args:
        section: the ``backbone`` settings of the exported model.
        open_whole: opens the whole model, if the family has no reader.
    """
    exported = SAYS_ITSELF.get(type(section))
    if exported is None:
        return open_whole()
    reader: Backbone = build(with_values(section, path=str(folder), **exported), weights=False)
    return reader


def open_reader(section: Any, open_whole: Callable[[], Backbone]) -> Backbone:
    """Open the prompt reader of the checkpoint that ``section`` names, with the section's image sizes and prompts.

    Weights are neither read nor downloaded. Without a path (the tiny family's random weights) the whole model is
    opened.

    Raises CheckpointError as the family's own loader does.
    """
    if type(section) not in SAYS_ITSELF or section.path is None:
        return open_whole()
    reader: Backbone = build(section, weights=False)
    return reader
