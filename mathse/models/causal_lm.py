"""``backbone=causal_lm``: any language model that transformers opens as ``AutoModelForCausalLM``; it reads no pictures.

Nothing is known of the family beforehand, so what it needs is asked of the model and its tokenizer: a prompt is what
their chat template renders, a response ends with the token that the template puts behind an assistant's turn, and
adapters go on the linear layers of the decoder. Each can be set instead. ``backbone=smollm2`` is such a model, whose
weights come with a Python package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from PIL.Image import Image
from transformers import AutoModelForCausalLM

from mathse.config.backbones import CausalLMBackboneConfig
from mathse.models.architecture import Architecture
from mathse.models.asked import apply_settings, lora_pattern_of, open_asked, read_class
from mathse.models.base import Features
from mathse.models.chat import ChatBackbone
from mathse.models.checkpoint import open_model, open_tokenizer, told_in_a_sentence
from mathse.models.row import Part, Row

NO_SUCH_MODEL = "causal language model of that type; a model with pictures is backbone=hf"
Family = TypeVar("Family", bound="CausalLMBackbone")


class CausalLMBackbone(ChatBackbone):
    """A model of any class of transformers' that has a decoder and a head; ``processor`` is its tokenizer."""

    family: ClassVar[str] = "causal_lm"
    max_images: int | None = 0

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.lora_scopes = {"language": lora_pattern_of(model, model)}

    @classmethod
    def bare(cls, model: Any) -> Self:
        backbone = super().bare(model)
        backbone.lora_scopes = {"language": lora_pattern_of(model, model)}
        return backbone

    def content(self, parts: Sequence[Part]) -> Any:
        return "".join(self.defuse(part.text) for part in parts)  # their templates add it to a string

    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer([self.render(row) for row in rows], add_special_tokens=False)["input_ids"]
        return ids

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        return [len(ids) for ids in self.prompt_ids(rows, ())]

    @property
    def decoder(self) -> Any:
        return self.model.base_model

    def preprocessing(self) -> dict[str, Any]:
        return {"family": self.family}

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        raise NotImplementedError("a language model prepares no pictures")

    def expand(self, features: Features) -> str:
        raise NotImplementedError("a language model has no tokens for a picture")

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        return 0

    @property
    def max_image_tokens(self) -> int:
        return 0


def architecture(settings: CausalLMBackboneConfig) -> Architecture:
    """The model of a folder's config.json, without numbers; it reads no pictures."""
    folder = Path(settings.path)
    config, model_class = read_class(AutoModelForCausalLM, folder, NO_SUCH_MODEL)
    model = open_model(model_class, folder, attention=settings.attention, config=config, weights=False)
    return Architecture(CausalLMBackbone.bare(model), settings.dtype)


@told_in_a_sentence
def load(settings: CausalLMBackboneConfig, weights: bool = True) -> CausalLMBackbone:
    """Open a language model; ``weights`` False: for prompts alone, see ``mathse.models.prompt_reader``."""
    return opened(CausalLMBackbone, settings, weights)


def opened(family: type[Family], settings: CausalLMBackboneConfig, weights: bool) -> Family:
    """A checkpoint's language model as a backbone of this class."""
    folder, model = open_asked(AutoModelForCausalLM, "causal_lm", settings, weights, NO_SUCH_MODEL)
    backbone = family(model, open_tokenizer(folder))
    apply_settings(backbone, settings, settings.path)
    return backbone
