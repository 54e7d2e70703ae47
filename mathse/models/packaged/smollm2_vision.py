"""``backbone=smollm2_vision``: a LLaVA of a pretrained language model and a pretrained tower, for a single CPU core.

Its checkpoint is made of the weights of two packages (``mathse.models.packaged.llava``). ``backbone=hf`` and plain
transformers can open it too. This class adds a fixed size of pictures and stored features of a frozen tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForImageTextToText

from mathse.config.backbones import SmolLM2Vision as Settings
from mathse.models import hf
from mathse.models.any_model import read_class
from mathse.models.architecture import Architecture
from mathse.models.base import Features
from mathse.models.checkpoint import open_model, wrap_library_errors
from mathse.models.packaged.llava import folder_of

__all__ = ["SmolLM2VisionBackbone", "architecture", "folder_of", "load"]


class SmolLM2VisionBackbone(hf.HFBackbone):
    """A ``LlavaForConditionalGeneration``. Every picture is scaled to the same size."""

    family: ClassVar[str] = "smollm2_vision"

    def __init__(self, model: Any, processor: Any, settings: Settings) -> None:
        saved = processor.image_processor.size
        size = {
            "height": settings.image_height or saved["height"],
            "width": settings.image_width or saved["width"],
        }
        # The processor counts tokens by the crop size.
        processor.image_processor.size = processor.image_processor.crop_size = size
        super().__init__(model, processor, settings)

    def preprocessing(self) -> Mapping[str, Any]:
        config = self.model.config
        return {
            **super().preprocessing(),
            "layer": config.vision_feature_layer,
            "select": config.vision_feature_select_strategy,
        }

    def tower(self, image: Features) -> Tensor:
        """Return (1, patches, C), without the class token."""
        seen: list[Tensor] = []
        model = self.model.model
        with model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            model.get_image_features(image["pixel_values"])
        return seen[0]

    def connector(self, seen: Tensor) -> Tensor:
        """Convert (pictures, patches, C) to (pictures, patches, H)."""
        tokens: Tensor = self.model.model.multi_modal_projector(seen)
        return tokens

    def pooled(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        return list(tokens)


def architecture(settings: Settings) -> Architecture | None:
    """Return the model of a folder's config.json, without weights; None if only its processor knows the image size."""
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


@wrap_library_errors
def load(settings: Settings, weights: bool = True) -> SmolLM2VisionBackbone:
    """Open the model from its two packages or from a folder; ``weights`` False: only for prompts."""
    return hf.open_vision_model(SmolLM2VisionBackbone, settings, weights)
