"""Model families behind one contract: the only room that knows transformers and peft."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.errors import CheckpointError

if TYPE_CHECKING:
    from mathse.models.base import Backbone

# By name and not by object: transformers is imported when a family is opened, and not before.
FAMILIES = {
    "tiny": "mathse.models.tiny.TinyBackbone",
    "qwen2vl": "mathse.models.qwen2vl.load",
    "internvl2_5": "mathse.models.internvl2_5.load",
    "cogvlm2": "mathse.models.cogvlm2.load",
}


def load(family: str, path: str | Path, **options: Any) -> Backbone:
    """Open a checkpoint of a family, from a folder or by hub id.

    Args:
        family: tiny, qwen2vl, internvl2_5 or cogvlm2.
        options: ``dtype`` (a torch.dtype or its name), ``attention``, ``revision``, and what the family's own loader
            takes, such as pixel bounds.
    Raises CheckpointError, in one sentence, if the family is unknown or the checkpoint is not one of it.
    """
    if family not in FAMILIES:
        raise CheckpointError(f"backbone family {family!r}: must be one of {', '.join(FAMILIES)}")
    module, _, name = FAMILIES[family].rpartition(".")
    backbone: Backbone = getattr(import_module(module), name)(path=str(path), **options)
    return backbone


def quiet() -> None:
    """No progress bars and no advice from transformers: the run has its own voice."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
