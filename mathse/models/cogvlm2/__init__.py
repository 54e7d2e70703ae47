"""CogVLM2 for transformers 5: our own port, because the published code does not run there any more.

``CogVLM2Config``, ``CogVLM2Processor`` and ``CogVLM2ForConditionalGeneration`` open the published folder. The import of
this package registers them with transformers' Auto classes as ``cogvlm2``.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from mathse.models.cogvlm2.backbone import CogVLM2Backbone, architecture, load
from mathse.models.cogvlm2.configuration import CogVLM2Config, CogVLM2VisionConfig
from mathse.models.cogvlm2.modeling import CogVLM2ForConditionalGeneration, CogVLM2Model
from mathse.models.cogvlm2.processing import CogVLM2Processor
from mathse.models.cogvlm2.tiny import tiny_cogvlm2 as make_tiny

__all__ = [
    "CogVLM2Backbone",
    "CogVLM2Config",
    "CogVLM2ForConditionalGeneration",
    "CogVLM2Model",
    "CogVLM2Processor",
    "CogVLM2VisionConfig",
    "architecture",
    "load",
    "make_tiny",
]

AutoConfig.register(CogVLM2Config.model_type, CogVLM2Config, exist_ok=True)
AutoModelForImageTextToText.register(CogVLM2Config, CogVLM2ForConditionalGeneration, exist_ok=True)
AutoProcessor.register(CogVLM2Config, CogVLM2Processor, exist_ok=True)
