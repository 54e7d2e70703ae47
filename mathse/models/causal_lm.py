"""``backbone=causal_lm``: any language model that transformers opens as ``AutoModelForCausalLM``. It reads no pictures.

The properties of the family are derived from the model and its tokenizer: the chat template renders the prompt, the
token that the template writes after an assistant's turn ends a response, and adapters are on the linear layers of the
decoder. Settings override each of them. ``backbone=smollm2`` is such a model with weights in a Python package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from PIL.Image import Image
from transformers import AutoModelForCausalLM

from mathse.config.backbones import CausalLM as Settings
from mathse.models.any_model import apply_settings, derive_lora_pattern, open_any_model, read_class
from mathse.models.architecture import Architecture
from mathse.models.base import Features
from mathse.models.chat import ChatBackbone
from mathse.models.checkpoint import open_model, open_tokenizer, wrap_library_errors
from mathse.models.row import Row, TurnPart

NO_SUCH_MODEL = "causal language model of that type; for a model with pictures pass backbone=hf"
Family = TypeVar("Family", bound="CausalLMBackbone")


class CausalLMBackbone(ChatBackbone):
    """A transformers model with a decoder and a head. ``processor`` is its tokenizer."""

    family: ClassVar[str] = "causal_lm"
    max_images: int | None = 0

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.lora_scopes = {"language": derive_lora_pattern(model, model)}

    @classmethod
    def bare(cls, model: Any) -> Self:
        backbone = super().bare(model)
        backbone.lora_scopes = {"language": derive_lora_pattern(model, model)}
        return backbone

    def content(self, parts: Sequence[TurnPart]) -> Any:
        return "".join(self.defuse(part.text) for part in parts)  # these templates concatenate it with strings

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


def architecture(settings: Settings) -> Architecture:
    """Return the model of a folder's config.json, without weights."""
    folder = Path(settings.path)
    config, model_class = read_class(AutoModelForCausalLM, folder, NO_SUCH_MODEL)
    model = open_model(model_class, folder, attention=settings.attention, config=config, weights=False)
    return Architecture(CausalLMBackbone.bare(model), settings.dtype)


@wrap_library_errors
def load(settings: Settings, weights: bool = True) -> CausalLMBackbone:
    """Open a language model; ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``."""
    return open_language_model(CausalLMBackbone, settings, weights)


def open_language_model(family: type[Family], settings: Settings, weights: bool) -> Family:
    """Open a checkpoint's language model as a backbone of the class ``family``."""
    folder, model = open_any_model(AutoModelForCausalLM, settings, weights, NO_SUCH_MODEL)
    backbone = family(model, open_tokenizer(folder))
    apply_settings(backbone, settings, settings.path)
    return backbone
