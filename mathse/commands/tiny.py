"""``mathse tiny [FAMILY] DST``: a small random-weight checkpoint of a family's true architecture.

For trying out a command, a server or a script in seconds, without a download.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mathse.config.backbones import SAYS_ITSELF, CogVLM2, InternVL3, InternVL25, Qwen3VL, Qwen25VL
from mathse.config.program import program
from mathse.errors import CheckpointError
from mathse.runs.layout import OWN_SETTINGS
from mathse.runs.store import write_json

if TYPE_CHECKING:
    from mathse.models.base import Backbone

BUILDERS = {  # called with a seed; the Backbone returned is saved
    "tiny": "mathse.models.tiny.tiny",
    "qwen2vl": "mathse.models.tiny.tiny_qwen2vl",
    # The families that are wings have a function of this name beside their _target_.
    "qwen2_5_vl": Qwen25VL()._target_.replace(".load", ".make_tiny"),
    "qwen3_vl": Qwen3VL()._target_.replace(".load", ".make_tiny"),
    "internvl3": InternVL3()._target_.replace(".load", ".make_tiny"),
    "internvl2_5": InternVL25()._target_.replace(".load", ".make_tiny"),
    "cogvlm2": CogVLM2()._target_.replace(".load", ".make_tiny"),
}
OTHERS = {"causal_lm": "mathse.models.tiny.tiny_causal_lm"}  # which backbone=causal_lm opens
# Model types that backbone=hf opens: the names in mathse.models.tiny_hf, which loads transformers.
HF_CLASSES = (
    "internvl",
    "llava",
    "llava_onevision",
    "smolvlm",
    "gemma3",
    "glm4v",
    "idefics3",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=program("tiny"), description="A small random-weight checkpoint of a family's true architecture"
    )
    parser.add_argument("family", nargs="?", default="tiny", choices=(*BUILDERS, *OTHERS, *HF_CLASSES))
    parser.add_argument("folder", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.folder.exists() and any(arguments.folder.iterdir()):
        raise CheckpointError(f"{arguments.folder} is not empty; name a new folder")
    from mathse.models import FAMILIES, quiet  # here: --help needs no torch

    quiet()
    if arguments.family in HF_CLASSES:
        from mathse.models.tiny_hf import tiny

        backbone: Backbone = tiny(arguments.family, arguments.seed)
    else:
        module, _, name = {**BUILDERS, **OTHERS}[arguments.family].rpartition(".")
        backbone = getattr(import_module(module), name)(arguments.seed)
    backbone.save(arguments.folder)
    section = FAMILIES[arguments.family if arguments.family in FAMILIES else "hf"]
    own = {"backbone": {"_target_": section()._target_, **SAYS_ITSELF[section]}}
    write_json(arguments.folder / OWN_SETTINGS, own)  # several families have models of one type
    parameters = sum(p.numel() for p in backbone.model.parameters())
    print(f"{arguments.folder}: {arguments.family}, {parameters:,} parameters, random weights")
    return 0
