"""A checkpoint by reference: the weights that no fit has changed stay where they came from.

The first stage of a run holds the student before any training. Of a published model that is 15 to 39 GB that lie on the
disk already; its checkpoint folder has links to them, beside a config and a processor of its own, so whatever opens a
folder opens this one. The stage's manifest has size and SHA-256 of what the links lead to, as of any other file.

The published InternVL2.5 has a layout of its own, which is converted whenever it is opened; queries, keys and values
lie in one matrix there, so links to it cannot be a folder of the other layout. Its reference is a published folder
itself: this package opens it, and plain transformers says that it does not know its model type. Where others than we
have to open the checkpoint, an engine say, it is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

from mathse.errors import CheckpointError
from mathse.models.base import Backbone
from mathse.models.checkpoint import (
    INDEX,
    PROMPT_FILES,
    PUBLISHED_LAYOUTS,
    Stored,
    expect_weights,
    headers,
    read_config,
    stored_dtype,
)


def write(backbone: Backbone, folder: Path, plain: bool = False) -> bool:
    """Write the checkpoint of an unchanged model into ``folder``; False, and nothing, where it came from no folder, or
    from one of a layout that this package does not know, or, if ``plain``, that transformers alone does not."""
    model = backbone.model
    if not (name := getattr(model, "name_or_path", "")) or not Path(name).is_dir():
        return False
    source = Path(name).absolute()
    stored = headers(source)
    model_type = read_config(source).get("model_type")
    if model_type not in (None, model.config.model_type):
        if plain or model_type not in PUBLISHED_LAYOUTS:
            return False
        for pattern in PROMPT_FILES:
            for file in sorted(source.glob(pattern)):
                shutil.copyfile(file, folder / file.name)
        _link(stored, folder)
        return True
    config = deepcopy(model.config)
    config.architectures = [type(model).__name__]
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = stored_dtype(stored)
    try:
        expect_weights(type(model), config, stored, source)
    except CheckpointError:  # it opens by way of a config of another form
        return False
    config.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, folder / INDEX)
    _link(stored, folder)
    return True


def _link(stored: Mapping[str, Stored], folder: Path) -> None:
    for file in sorted({header.file for header in stored.values()}):
        (folder / file.name).symlink_to(file)
