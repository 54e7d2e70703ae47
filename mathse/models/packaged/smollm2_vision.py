"""``backbone=smollm2_vision``: a LLaVA of two pretrained halves, small enough for one CPU core.

Its checkpoint is made of two packages' weights (``mathse.models.packaged.llava``); ``backbone=hf`` and plain
transformers open it as well. Beyond ``hf``: every picture has one size, and features of a frozen tower can be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForImageTextToText

from mathse.config.backbones import SmolLM2VisionBackboneConfig
from mathse.models import hf
from mathse.models.architecture import Architecture
from mathse.models.asked import read_class
from mathse.models.base import Features
from mathse.models.checkpoint import open_model, told_in_a_sentence
from mathse.models.packaged.llava import folder_of

__all__ = ["SmolLM2VisionBackbone", "architecture", "folder_of", "load"]


class SmolLM2VisionBackbone(hf.HFBackbone):
    """A ``LlavaForConditionalGeneration``; every picture is scaled to one size."""

    family: ClassVar[str] = "smollm2_vision"

    def __init__(self, model: Any, processor: Any, settings: SmolLM2VisionBackboneConfig) -> None:
        of_checkpoint = processor.image_processor.size
        size = {
            "height": settings.image_height or of_checkpoint["height"],
            "width": settings.image_width or of_checkpoint["width"],
        }
        processor.image_processor.size = processor.image_processor.crop_size = size  # the latter for token counts
        super().__init__(model, processor, settings)

    def preprocessing(self) -> Mapping[str, Any]:
        config = self.model.config
        return {
            **super().preprocessing(),
            "layer": config.vision_feature_layer,
            "select": config.vision_feature_select_strategy,
        }

    def tower(self, image: Features) -> Tensor:
        """(1, patches, C): what the connector reads, without the class token."""
        seen: list[Tensor] = []
        model = self.model.model
        with model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            model.get_image_features(image["pixel_values"])
        return seen[0]

    def connector(self, seen: Tensor) -> Tensor:
        """(pictures, patches, C) -> (pictures, patches, H)."""
        tokens: Tensor = self.model.model.multi_modal_projector(seen)
        return tokens

    def pooled(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        return list(tokens)


def architecture(settings: SmolLM2VisionBackboneConfig) -> Architecture | None:
    """The model of a folder's config.json, without numbers; None where only its processor has the size of pictures."""
    if settings.image_height is None or settings.image_width is None:
        return None
    folder = Path(settings.path)
    config, model_class = read_class(AutoModelForImageTextToText, folder, hf.NO_SUCH_MODEL)
    model = open_model(model_class, folder, attention=settings.attention, config=config, weights=False)
    backbone = SmolLM2VisionBackbone.bare(model)
    backbone.name_parts(settings)
    tokens = (settings.image_height // backbone.patch_size) * (settings.image_width // backbone.patch_size)
    seen = tokens + 1  # the class token
    return Architecture(backbone, settings.dtype, (seen, seen), (tokens, tokens))


@told_in_a_sentence
def load(settings: SmolLM2VisionBackboneConfig, weights: bool = True) -> SmolLM2VisionBackbone:
    """Open it, from its two packages or from a folder; ``weights`` False: for prompts alone."""
    return hf.opened(SmolLM2VisionBackbone, settings, weights)
