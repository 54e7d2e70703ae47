"""Model families behind one contract: the only room that knows transformers and peft."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config import build, make_settings
from mathse.config.backbones import (
    HF,
    CausalLM,
    CogVLM2,
    InternVL3,
    InternVL25,
    Qwen2VL,
    Qwen3VL,
    Qwen25VL,
    SmolLM2,
    SmolLM2Vision,
    TinyBackbone,
)
from mathse.errors import CheckpointError

if TYPE_CHECKING:
    from mathse.models.base import Backbone

FAMILIES: dict[str, type[Any]] = {
    "tiny": TinyBackbone,
    "qwen2vl": Qwen2VL,
    "internvl2_5": InternVL25,
    "cogvlm2": CogVLM2,
    "qwen2_5_vl": Qwen25VL,
    "qwen3_vl": Qwen3VL,
    "internvl3": InternVL3,
    "causal_lm": CausalLM,
    "smollm2": SmolLM2,
    "smollm2_vision": SmolLM2Vision,
    "hf": HF,
}


def load(family: str, path: str | Path, *, weights: bool = True, **settings: Any) -> Backbone:
    """Open a checkpoint of a family, from a folder or by hub id.

    Args:
        family: one of ``FAMILIES``.
        weights: False for prompts alone, see ``mathse.models.prompt_reader``.
        settings: as in ``mathse.config.backbones``: ``dtype`` (a torch.dtype or its name), ``attention``, ``revision``,
            and what the family itself has, such as pixel bounds.
    Raises CheckpointError, in one sentence, if the family is unknown or the checkpoint is not of the family, and
    ConfigError for a wrong setting.
    """
    if family not in FAMILIES:
        raise CheckpointError(f"backbone family {family!r}: must be one of {', '.join(FAMILIES)}")
    if settings.get("dtype") is not None:
        settings["dtype"] = str(settings["dtype"]).removeprefix("torch.")
    section = make_settings(FAMILIES[family], "backbone", {"path": str(path), **settings})
    backbone: Backbone = build(section, weights=weights)
    return backbone


def family_of(target: str) -> str | None:
    """The family whose module or package has the class or function ``target``; None for a class of the user's own."""
    for family, section in FAMILIES.items():
        module: str = section()._target_.rpartition(".")[0]
        if target.startswith(f"{module}."):
            return family
    return None


def beside_target(section: Any, name: str) -> Any:
    """The function ``name`` of the module or package that has the ``_target_`` of a ``backbone`` section.

    A family in a package of its own is reached through its option only. Beside ``load`` such a package may have
    ``make_tiny(seed)``, which builds a small model with random weights, and ``folder_of(path)``, which makes a
    checkpoint folder of a GGUF file or of packages' files.
    """
    return getattr(import_module(section._target_.rpartition(".")[0]), name)


def quiet() -> None:
    """No progress bars and no advice from transformers: the run has its own voice."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
