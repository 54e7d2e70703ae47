"""Model families behind one contract: the only room that knows transformers and peft."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config import build, make_settings
from mathse.config.backbones import (
    CausalLMBackboneConfig,
    CogVLM2BackboneConfig,
    HFBackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen2VLBackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
    SmolLM2BackboneConfig,
    SmolLM2VisionBackboneConfig,
    TinyBackboneConfig,
)
from mathse.errors import CheckpointError

if TYPE_CHECKING:
    from mathse.models.base import Backbone

FAMILIES: dict[str, type[Any]] = {
    "tiny": TinyBackboneConfig,
    "qwen2vl": Qwen2VLBackboneConfig,
    "internvl2_5": InternVL25BackboneConfig,
    "cogvlm2": CogVLM2BackboneConfig,
    "qwen2_5_vl": Qwen25VLBackboneConfig,
    "qwen3_vl": Qwen3VLBackboneConfig,
    "internvl3": InternVL3BackboneConfig,
    "causal_lm": CausalLMBackboneConfig,
    "smollm2": SmolLM2BackboneConfig,
    "smollm2_vision": SmolLM2VisionBackboneConfig,
    "hf": HFBackboneConfig,
}


def load(family: str, path: str | Path, *, weights: bool = True, **settings: Any) -> Backbone:
    """Open a checkpoint of a family, from a folder or by hub id.

    Args:
        family: one of ``FAMILIES``.
        weights: False: only for prompts, see ``mathse.models.prompt_reader``.
        settings: as in ``mathse.config.backbones``: ``dtype`` (a torch.dtype or its name), ``attention``, ``revision``,
            and the family's own settings, such as limits of pixels.

    Raises CheckpointError if the family is unknown or the checkpoint is of another family, and ConfigError for a wrong
    setting.
    """
    if family not in FAMILIES:
        raise CheckpointError(f"backbone family {family!r}: must be one of {', '.join(FAMILIES)}")
    if settings.get("dtype") is not None:
        settings["dtype"] = str(settings["dtype"]).removeprefix("torch.")
    section = make_settings(FAMILIES[family], "backbone", {"path": str(path), **settings})
    backbone: Backbone = build(section, weights=weights)
    return backbone


def find_family(target: str) -> str | None:
    """Return the family with the class or function ``target``; None for a target in a user's own package."""
    for family, section in FAMILIES.items():
        module: str = section()._target_.rpartition(".")[0]
        if target.startswith(f"{module}."):
            return family
    return None


def import_beside_target(section: Any, name: str) -> Any:
    """Return the function ``name`` from the module or package of the ``_target_`` of a ``backbone`` section.

    A family that is a wing is imported only through its option. Beside ``load`` its package may have
    ``make_tiny(seed)``, which builds a small model with random weights, and ``folder_of(path)``, which converts a GGUF
    file or the files of packages to a checkpoint folder.
    """
    return getattr(import_module(section._target_.rpartition(".")[0]), name)


def silence_transformers() -> None:
    """Turn off transformers' progress bars and warnings; a run reports its own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
