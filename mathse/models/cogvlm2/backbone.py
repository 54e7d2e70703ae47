"""CogVLM2 behind the harness's contract: one image a row, the published prompt, token types beside the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL.Image import Image
from torch import Tensor

from mathse.config.backbones import CogVLM2BackboneConfig
from mathse.errors import CheckpointError
from mathse.models.architecture import Architecture
from mathse.models.base import Backbone, Features
from mathse.models.checkpoint import as_dtype, open_model, read_config, resolve, told_in_a_sentence
from mathse.models.cogvlm2.configuration import CogVLM2Config
from mathse.models.cogvlm2.layout import IMAGE, positions
from mathse.models.cogvlm2.modeling import CogVLM2ForConditionalGeneration
from mathse.models.cogvlm2.processing import CogVLM2Processor
from mathse.models.cogvlm2.prompt import chat_template, check_template
from mathse.models.row import Row
from mathse.models.trial import try_tokenizer

END_OF_TURN = "<|eot_id|>"  # Llama 3's; stops a reply too
_KEYS = ("vision_config", "num_multi_query_heads")  # of a published config.json, which has no model_type


class CogVLM2Backbone(Backbone):
    """A ``CogVLM2ForConditionalGeneration`` with its ``CogVLM2Processor``."""

    family: ClassVar[str] = "cogvlm2"
    max_images: int | None = 1
    pictures_first: bool = True  # behind BOS
    parts: Mapping[str, str] = {
        "connector": r"model\.vision\.(conv|linear_proj|boi|eoi)(\.|$)",
        "tower": r"model\.vision\.(patch_embedding|transformer)(\.|$)",
    }
    lora_scopes: Mapping[str, str] = {  # answers run through the language path alone
        "language": r"model\.layers\.\d+\.(self_attn\.language_expert_(query_key_value|dense)"
        r"|mlp\.language_mlp\.(gate|up|down)_proj)",
        "vision_expert": r"model\.layers\.\d+\.(self_attn\.vision_expert_(query_key_value|dense)"
        r"|mlp\.vision_mlp\.(gate|up|down)_proj)",
        "tower": r"model\.vision\.transformer\.layers\.\d+\.(attention\.(query_key_value|dense)|mlp\.fc[12])",
    }
    sampling_extras: tuple[str, ...] = ("token_type_ids",)

    def __init__(self, model: Any, processor: Any, template: str = "chat") -> None:
        check_template(template)
        super().__init__(model, processor)
        self.template = template
        processor.chat_template = chat_template(template)  # what a server renders is what is trained
        self.never_sampled = [self.pad_id]  # also the image's placeholder
        known = self.tokenizer.get_vocab()
        self.end_ids = [self.end_id, *([known[END_OF_TURN]] if END_OF_TURN in known else [])]

    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        # ids of a prompt: BOS, the image's placeholders, the text; the processor knows all templates
        prompts = []
        for row, row_images in zip(map(self.as_read, rows), images, strict=True):
            history = [(self.defuse(question), self.defuse(answer)) for question, answer in row.get("history", ())]
            encoded = self.processor.encode(self.defuse(row["question"]), bool(row_images), history, self.template)
            prompts.append(encoded["input_ids"])
        return prompts

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        # all images are of one size, and no prompt depends on pixels
        return [len(ids) for ids in self.prompt_ids(rows, [[{}] * len(row["images"]) for row in rows])]

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        """``pixel_values`` (1, 3, S, S) of each picture."""
        return [{"pixel_values": pixels} for pixels in self.processor.pixels(pictures).split(1)]

    def extras(self, prompt: list[int], response: list[int], features: Features) -> dict[str, Tensor]:
        """``token_type_ids`` (T,): 1 on the image's tokens, which come right after BOS."""
        types = torch.zeros(len(prompt) + len(response), dtype=torch.long)
        if features:
            types[1 : 1 + self.processor.image_tokens] = IMAGE
        return {"token_type_ids": types}

    def positions(self, ids: list[int], features: Features) -> Tensor:
        return positions(self.extras(ids, [], features)["token_type_ids"][None])[0]

    def texts(self, responses: Sequence[list[int]]) -> list[str]:
        """Stripped: answers are encoded apart from the prompt, and a reply may start with a space."""
        return [text.strip() for text in super().texts(responses)]

    def tower(self, image: Features) -> Tensor:
        """(1, 1 + patches, C)."""
        vision = self.model.model.vision
        seen: Tensor = vision.tower(image["pixel_values"].to(vision.dtype))
        return seen

    def connector(self, seen: Tensor) -> Tensor:
        """(N, 1 + patches, C) -> (N, image tokens, H)."""
        tokens: Tensor = self.model.model.vision.connect(seen)
        return tokens

    def without_images(self) -> Tensor:
        """No image's features: with them a connector that trains gets (zero) gradients, as with zero pixels, and a
        tower in pieces does not run, as it does on no other rank."""
        config = self.model.config.vision_config
        frozen_connector = self.tower_features is not None and "connector" in self.tower_features.parts
        shape = (
            (config.image_tokens, self.model.config.hidden_size)
            if frozen_connector
            else (config.grid**2 + 1, config.hidden_size)
        )
        return torch.zeros(0, *shape, dtype=torch.bfloat16, device=self.device)

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        return self.processor.image_tokens

    @property
    def max_image_tokens(self) -> int:
        return self.processor.image_tokens


def architecture(settings: CogVLM2BackboneConfig) -> Architecture:
    """The model of a folder's config.json, without numbers."""
    folder = Path(settings.path)
    config = _config(folder, settings.rope_precision)
    model = open_model(
        CogVLM2ForConditionalGeneration, folder, attention=settings.attention, config=config, weights=False
    )
    seen, tokens = config.vision_config.num_positions, config.vision_config.image_tokens  # every picture has one size
    return Architecture(CogVLM2Backbone.bare(model), settings.dtype, (seen, seen), (tokens, tokens))


@told_in_a_sentence
def load(settings: CogVLM2BackboneConfig, weights: bool = True) -> CogVLM2Backbone:
    """Open a CogVLM2 checkpoint, published or saved by us; ``weights`` False: for prompts alone, see
    ``mathse.models.prompt_reader``."""
    check_template(settings.template)
    folder = resolve(settings.path, settings.revision, weights)
    config = _config(folder, settings.rope_precision)
    try_tokenizer(folder)
    processor = CogVLM2Processor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if processor.image_tokens != config.vision_config.image_tokens:
        size = processor.image_processor.size["height"]
        raise CheckpointError(
            f"{folder}: processor_config.json makes images of {size} pixels, config.json wants "
            f"{config.vision_config.image_size}; remove processor_config.json"
        )
    model = open_model(
        CogVLM2ForConditionalGeneration,
        folder,
        dtype=as_dtype(settings.dtype),
        attention=settings.attention,
        config=config,
        weights=weights,
    )
    sampling = model.generation_config
    if sampling.temperature is not None or sampling.top_p is not None:
        sampling.do_sample = True  # transformers refuses to save these without it
    return CogVLM2Backbone(model, processor, settings.template)


def _config(folder: Path, rope_precision: str) -> CogVLM2Config:
    """config.json, if it is a CogVLM2's. Raises CheckpointError otherwise."""
    published = read_config(folder)
    kind = published.get("model_type")
    if kind not in (None, CogVLM2Config.model_type) or not all(key in published for key in _KEYS):
        absent = " and ".join(key for key in _KEYS if key not in published)
        reason = f"says model_type = {kind!r}" if kind else f"has no {absent}"
        raise CheckpointError(f"{folder} is not a checkpoint of backbone=cogvlm2: its config.json {reason}")
    try:
        return CogVLM2Config.from_pretrained(
            folder, rope_precision=rope_precision, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, TypeError, StrictDataclassError) as e:
        raise CheckpointError(f"{folder / 'config.json'}: {' '.join(str(e).split())}") from None
