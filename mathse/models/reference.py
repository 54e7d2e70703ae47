"""Write a checkpoint by reference: weights that no training has changed stay in their original files.

The first stage of a run has the student before any training. A published model has 15 to 39 GB, which are already on
the disk. Its checkpoint folder gets links to the weight files, beside a config and a processor of its own, so every
program opens it like any other folder. The stage's manifest has size and SHA-256 of the files behind the links.

The published InternVL2.5 has a different layout, with queries, keys and values in a common matrix, and is converted
whenever it is opened. Links to its weights cannot form a folder in transformers' layout, so its reference is a folder
in the published layout. This package opens it; plain transformers reports an unknown model type. If other programs must
open the checkpoint, such as an inference engine, the weights are written instead.
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
    find_stored_dtype,
    read_config,
    read_headers,
)


def write(backbone: Backbone, folder: Path, plain: bool = False) -> bool:
    """Write the checkpoint of an unchanged model into ``folder`` by reference, if that is possible.

    Args:
        plain: transformers alone must be able to open the checkpoint.

    Returns:
        False, and writes nothing, if the model came from no folder or from a layout that cannot be referred to.
    """
    model = backbone.model
    if not (name := getattr(model, "name_or_path", "")) or not Path(name).is_dir():
        return False
    source = Path(name).absolute()
    stored = read_headers(source)
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
        part.dtype = find_stored_dtype(stored)
    try:
        expect_weights(type(model), config, stored, source)
    except CheckpointError:  # the folder's weights need its own config to be opened
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
