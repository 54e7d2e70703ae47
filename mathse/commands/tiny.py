"""``mathse tiny [FAMILY] DST``: write a small random-weight checkpoint of a family's true architecture.

It serves to try a command, a server or a script in seconds, without a download.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mathse.config.backbones import (
    SAYS_ITSELF,
    CogVLM2BackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
)
from mathse.config.program import format_command
from mathse.errors import CheckpointError
from mathse.runs.layout import OWN_SETTINGS
from mathse.runs.store import write_json

if TYPE_CHECKING:
    from mathse.models.base import Backbone

BUILDERS = {  # family -> function from a seed to a Backbone
    "tiny": "mathse.models.tiny.tiny",
    "qwen2vl": "mathse.models.tiny.tiny_qwen2vl",
    # A family that is a wing has a function make_tiny beside its _target_.
    "qwen2_5_vl": Qwen25VLBackboneConfig()._target_.replace(".load", ".make_tiny"),
    "qwen3_vl": Qwen3VLBackboneConfig()._target_.replace(".load", ".make_tiny"),
    "internvl3": InternVL3BackboneConfig()._target_.replace(".load", ".make_tiny"),
    "internvl2_5": InternVL25BackboneConfig()._target_.replace(".load", ".make_tiny"),
    "cogvlm2": CogVLM2BackboneConfig()._target_.replace(".load", ".make_tiny"),
}
OTHERS = {"causal_lm": "mathse.models.tiny.tiny_causal_lm"}  # for backbone=causal_lm
# Model types for backbone=hf. mathse.models.tiny_hf has the same names, but loads transformers.
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
    """Run the subcommand and return its exit code. Raises CheckpointError for a folder that is not empty."""
    parser = argparse.ArgumentParser(
        prog=format_command("tiny"),
        description="Write a small random-weight checkpoint of a family's true architecture.",
    )
    parser.add_argument("family", nargs="?", default="tiny", choices=(*BUILDERS, *OTHERS, *HF_CLASSES))
    parser.add_argument("folder", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.folder.exists() and any(arguments.folder.iterdir()):
        raise CheckpointError(f"{arguments.folder} is not empty; name a new folder")
    from mathse.models import FAMILIES, silence_transformers  # loads torch, which --help does not need

    silence_transformers()
    if arguments.family in HF_CLASSES:
        from mathse.models.tiny_hf import tiny

        backbone: Backbone = tiny(arguments.family, arguments.seed)
    else:
        module, _, name = {**BUILDERS, **OTHERS}[arguments.family].rpartition(".")
        backbone = getattr(import_module(module), name)(arguments.seed)
    backbone.save(arguments.folder)
    section = FAMILIES[arguments.family if arguments.family in FAMILIES else "hf"]
    # Several families have models of the same type, so the folder records its family.
    settings = {"backbone": {"_target_": section()._target_, **SAYS_ITSELF[section]}}
    write_json(arguments.folder / OWN_SETTINGS, settings)
    parameters = sum(p.numel() for p in backbone.model.parameters())
    print(f"{arguments.folder}: {arguments.family}, {parameters:,} parameters, random weights")
    return 0
