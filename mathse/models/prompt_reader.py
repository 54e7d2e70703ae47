"""A checkpoint's backbone without its weights: it encodes prompts, and that is all it can do.

For whoever has the model answer elsewhere and wants to know what its prompts come to: a server's student and ORM, the
check of data before a training. A family that is not ours has its own loader, which may know no ``weights=False``; it
is opened whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathse.config import backbones as settings
from mathse.config import build, with_values
from mathse.models.base import Backbone

# What an exported checkpoint says itself, by the section's class: pixel bounds, the system text and the chat template
# lie in its folder, and it is what a server renders and cuts pictures by, whatever the settings are now.
_EXPORTED: dict[type, dict[str, Any]] = {
    settings.TinyBackbone: {},
    settings.Qwen2VL: {"min_pixels": None, "max_pixels": None},
    settings.InternVL25: {"system": None},
    settings.CogVLM2: {},
    settings.CausalLM: {"system": None, "chat_template": None},
    settings.HF: {"system": None, "chat_template": None},
    settings.SmolLM2: {"system": None, "chat_template": None},
    settings.SmolLM2Vision: {"system": None, "chat_template": None, "image_height": None, "image_width": None},
}


def prompt_reader(section: Any, folder: Path, whole: Callable[[], Backbone]) -> Backbone:
    """The reader of an exported checkpoint of the backbone that ``section`` sets."""
    exported = _EXPORTED.get(type(section))
    if exported is None:
        return whole()
    reader: Backbone = build(with_values(section, path=str(folder), **exported), weights=False)
    return reader


def reader_as_set(section: Any, whole: Callable[[], Backbone]) -> Backbone:
    """The reader of the checkpoint that ``section`` names, with the bounds and words that it sets.

    Weights are neither read nor fetched; without a path (the tiny family's random weights) all is opened.

    Raises CheckpointError as the family's own loader does.
    """
    if type(section) not in _EXPORTED or section.path is None:
        return whole()
    reader: Backbone = build(section, weights=False)
    return reader
