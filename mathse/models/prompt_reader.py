"""A checkpoint's backbone without its weights: it encodes prompts, and that is all it can do.

For whoever has the model answer elsewhere and wants to know what its prompts come to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, Qwen2VLConfig

from mathse.config import backbones as settings
from mathse.errors import CheckpointError
from mathse.models.base import Backbone
from mathse.models.checkpoint import PROMPT_FILES, expect_family, open_processor, resolve
from mathse.models.internvl2_5.backbone import InternVL25Backbone, read_folder
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.tiny import TinyBackbone


class _TinyReader(Qwen2VLBackbone):
    """The tiny backbone's prompts around a model that is given."""

    family, prompt_style = TinyBackbone.family, TinyBackbone.prompt_style


def prompt_reader(section: Any, folder: Path, whole: Callable[[], Backbone]) -> Backbone:
    """The reader of an exported checkpoint of the backbone that ``section`` sets. A family that is not ours is opened
    ``whole``."""
    if isinstance(section, (settings.TinyBackbone, settings.Qwen2VL)):
        family = _TinyReader if isinstance(section, settings.TinyBackbone) else Qwen2VLBackbone
        return family(_weightless(folder), open_processor(folder))
    if isinstance(section, settings.InternVL25):
        return _internvl(section, folder, system=None)
    return whole()


def reader_as_set(section: Any, whole: Callable[[], Backbone]) -> Backbone:
    """The reader of the checkpoint that ``section`` names, with the bounds and words that it sets.

    Weights are neither read nor fetched. A family that is not ours, and the tiny one, is opened ``whole``.

    Raises CheckpointError as the family's own loader does.
    """
    if isinstance(section, settings.Qwen2VL):
        folder = resolve(section.path, section.revision, PROMPT_FILES)
        expect_family(folder, Qwen2VLBackbone.family, (Qwen2VLConfig.model_type,))
        reader = Qwen2VLBackbone(_weightless(folder), open_processor(folder))
        reader.processor.image_processor.size = {
            "shortest_edge": section.min_pixels,
            "longest_edge": section.max_pixels,
        }
        return reader
    if isinstance(section, settings.InternVL25):
        return _internvl(section, resolve(section.path, section.revision, PROMPT_FILES), section.system)
    return whole()


def _internvl(section: settings.InternVL25, folder: Path, system: str | None) -> InternVL25Backbone:
    config, processor, generation = read_folder(folder, system)
    model = _weightless(folder, config, generation)
    return InternVL25Backbone(model, processor, section.train_tiles, section.eval_tiles)


def _weightless(folder: Path, config: Any = None, generation: GenerationConfig | None = None) -> Any:
    """The folder's model on the meta device; what is not given is read from the folder.

    Raises CheckpointError for a config.json that makes no model.
    """
    try:
        config = config or AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError, KeyError, RuntimeError, StrictDataclassError) as e:
        raise CheckpointError(f"{folder} cannot be opened ({' '.join(str(e).split())[:400]})") from None
    if generation is None and (folder / "generation_config.json").is_file():  # it may say where a turn ends
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    if generation is not None:
        model.generation_config = generation
    return model
