"""A checkpoint by reference: the weights that no fit has changed stay where they came from.

The first stage of a run holds the student before any training. Of a published model that is 15 to 39 GB that lie on the
disk already; its checkpoint folder has links to them, beside a config and a processor of its own, so whatever opens a
folder opens this one. The stage's manifest has size and SHA-256 of what the links lead to, as of any other file.
"""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path

from mathse.errors import CheckpointError
from mathse.models.base import Backbone
from mathse.models.checkpoint import INDEX, expect_weights, headers, read_config, stored_dtype


def write(backbone: Backbone, folder: Path) -> bool:
    """Write the checkpoint of an unchanged model into ``folder``; False, and nothing, where it came from no folder, or
    from one whose layout is not the one that checkpoints have (the published InternVL2.5)."""
    model = backbone.model
    if not (name := getattr(model, "name_or_path", "")) or not Path(name).is_dir():
        return False
    source = Path(name).absolute()
    if read_config(source).get("model_type") not in (None, model.config.model_type):
        return False
    stored = headers(source)
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
    for file in sorted({header.file for header in stored.values()}):
        (folder / file.name).symlink_to(file)
    return True
