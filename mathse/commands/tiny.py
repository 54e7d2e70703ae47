"""``python -m mathse tiny [FAMILY] DST``: a small random-weight checkpoint of a family's true architecture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mathse.errors import CheckpointError

BUILDERS = {  # called with a seed; the Backbone returned is saved
    "tiny": "mathse.models.tiny.tiny",
    "qwen2vl": "mathse.models.tiny.tiny_qwen2vl",
    "internvl2_5": "mathse.models.internvl2_5.tiny.tiny_internvl2_5",
    "cogvlm2": "mathse.models.cogvlm2.tiny.tiny_cogvlm2",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mathse tiny", description=__doc__)
    parser.add_argument("family", nargs="?", default="tiny", choices=tuple(BUILDERS))
    parser.add_argument("folder", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    if asked.folder.exists() and any(asked.folder.iterdir()):
        raise CheckpointError(f"{asked.folder} is not empty; name a new folder")
    from mathse.models import quiet  # here: --help needs no torch

    quiet()
    module, _, name = BUILDERS[asked.family].rpartition(".")
    backbone = getattr(import_module(module), name)(asked.seed)
    backbone.save(asked.folder)
    parameters = sum(p.numel() for p in backbone.model.parameters())
    print(f"{asked.folder}: {asked.family}, {parameters:,} parameters, random weights")
    return 0
