"""A checkpoint's backbone without its weights: it encodes prompts, and that is all it can do.

For whoever has the model answer elsewhere and wants to know what its prompts come to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from mathse.backbones.base import Backbone
from mathse.backbones.checkpoint import open_processor
from mathse.backbones.internvl2_5.backbone import InternVL25Backbone
from mathse.backbones.internvl2_5.processor import pil_tiles, write_bos
from mathse.backbones.qwen2vl import Qwen2VLBackbone
from mathse.backbones.tiny import TinyBackbone
from mathse.config import backbones as settings


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
        processor = open_processor(folder)
        processor.image_processor = pil_tiles(folder)
        write_bos(processor)
        return InternVL25Backbone(_weightless(folder), processor, section.train_tiles, section.eval_tiles)
    return whole()


def _weightless(folder: Path) -> Any:
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    if (folder / "generation_config.json").is_file():  # it may say where a turn ends
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model
