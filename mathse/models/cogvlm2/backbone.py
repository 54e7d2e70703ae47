"""CogVLM2 as a backbone: at most one image in a row, the published prompt, token types beside the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL.Image import Image
from torch import Tensor

from mathse.config.backbones import CogVLM2 as Settings
from mathse.errors import CheckpointError
from mathse.models.architecture import Architecture
from mathse.models.base import Backbone, Features
from mathse.models.checkpoint import as_dtype, open_model, read_config, resolve, wrap_library_errors
from mathse.models.cogvlm2.configuration import CogVLM2Config
from mathse.models.cogvlm2.layout import IMAGE, compute_positions
from mathse.models.cogvlm2.modeling import CogVLM2ForConditionalGeneration
from mathse.models.cogvlm2.processing import CogVLM2Processor
from mathse.models.cogvlm2.prompt import build_chat_template, check_template
from mathse.models.row import Row
from mathse.models.trial import try_tokenizer

END_OF_TURN = "<|eot_id|>"  # Llama 3's, at which sampling stops too
_KEYS = ("vision_config", "num_multi_query_heads")  # they identify a published config.json, which has no model_type


class CogVLM2Backbone(Backbone):
    """A ``CogVLM2ForConditionalGeneration`` with its ``CogVLM2Processor``."""

    family: ClassVar[str] = "cogvlm2"
    max_images: int | None = 1
    pictures_first: bool = True  # the image follows BOS
    parts: Mapping[str, str] = {
        "connector": r"model\.vision\.(conv|linear_proj|boi|eoi)(\.|$)",
        "tower": r"model\.vision\.(patch_embedding|transformer)(\.|$)",
    }
    lora_scopes: Mapping[str, str] = {  # the tokens of answers go only through the language experts
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
        processor.chat_template = build_chat_template(template)  # a server then renders the prompts of the training
        self.never_sampled = [self.pad_id]  # also the image's placeholder
        vocabulary = self.tokenizer.get_vocab()
        self.end_ids = [self.end_id]
        if END_OF_TURN in vocabulary:
            self.end_ids.append(vocabulary[END_OF_TURN])

    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        # Ids of a prompt: BOS, the image's placeholders, the text. The processor has all templates.
        prompts = []
        for row, row_images in zip(map(self.as_read, rows), images, strict=True):
            history = [(self.defuse(question), self.defuse(answer)) for question, answer in row.get("history", ())]
            encoded = self.processor.encode(self.defuse(row["question"]), bool(row_images), history, self.template)
            prompts.append(encoded["input_ids"])
        return prompts

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        # All images have the same size, and no prompt depends on pixels.
        return [len(ids) for ids in self.prompt_ids(rows, [[{}] * len(row["images"]) for row in rows])]

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        """Return ``pixel_values`` (1, 3, S, S) of each picture."""
        return [{"pixel_values": pixels} for pixels in self.processor.prepare_pixels(pictures).split(1)]

    def extras(self, prompt: list[int], response: list[int], features: Features) -> dict[str, Tensor]:
        """Return ``token_type_ids`` (T,): 1 for the tokens of the image, which follow BOS."""
        types = torch.zeros(len(prompt) + len(response), dtype=torch.long)
        if features:
            types[1 : 1 + self.processor.image_tokens] = IMAGE
        return {"token_type_ids": types}

    def positions(self, ids: list[int], features: Features) -> Tensor:
        return compute_positions(self.extras(ids, [], features)["token_type_ids"][None])[0]

    def texts(self, responses: Sequence[list[int]]) -> list[str]:
        """Return the stripped texts: responses are encoded separately, and a sampled text may start with a space."""
        return [text.strip() for text in super().texts(responses)]

    def tower(self, image: Features) -> Tensor:
        """Return (1, 1 + patches, C)."""
        vision = self.model.model.vision
        seen: Tensor = vision.tower(image["pixel_values"].to(vision.dtype))
        return seen

    def connector(self, seen: Tensor) -> Tensor:
        """Convert (N, 1 + patches, C) to (N, image tokens, H)."""
        tokens: Tensor = self.model.model.vision.connect(seen)
        return tokens

    def without_images(self) -> Tensor:
        """Return the features of zero images.

        With them a trained connector gets zero gradients, as with zero pixel tensors, and a sharded tower does not run,
        as on the other ranks.
        """
        config = self.model.config.vision_config
        shape = (config.grid**2 + 1, config.hidden_size)  # the connector's input
        if self.tower_features is not None and "connector" in self.tower_features.parts:
            shape = (config.image_tokens, self.model.config.hidden_size)  # the connector's output
        return torch.zeros(0, *shape, dtype=torch.bfloat16, device=self.device)

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        return self.processor.image_tokens

    @property
    def max_image_tokens(self) -> int:
        return self.processor.image_tokens


def architecture(settings: Settings) -> Architecture:
    """Return the model of a folder's config.json, without weights."""
    folder = Path(settings.path)
    config = _read_cogvlm2_config(folder, settings.rope_precision)
    model = open_model(
        CogVLM2ForConditionalGeneration, folder, attention=settings.attention, config=config, weights=False
    )
    # Every picture has the same size.
    seen, tokens = config.vision_config.num_positions, config.vision_config.image_tokens
    return Architecture(CogVLM2Backbone.bare(model), settings.dtype, (seen, seen), (tokens, tokens))


@wrap_library_errors
def load(settings: Settings, weights: bool = True) -> CogVLM2Backbone:
    """Open a CogVLM2 checkpoint, published or saved by this package.

    ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``.
    """
    check_template(settings.template)
    folder = resolve(settings.path, settings.revision, weights)
    config = _read_cogvlm2_config(folder, settings.rope_precision)
    try_tokenizer(folder)
    processor = CogVLM2Processor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if processor.image_tokens != config.vision_config.image_tokens:
        size = processor.image_processor.size["height"]
        raise CheckpointError(
            f"{folder}: processor_config.json makes images of {size} pixels, config.json needs "
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
        sampling.do_sample = True  # otherwise transformers refuses to save these settings
    return CogVLM2Backbone(model, processor, settings.template)


def _read_cogvlm2_config(folder: Path, rope_precision: str) -> CogVLM2Config:
    """Return config.json of a CogVLM2. Raises CheckpointError for another model."""
    published = read_config(folder)
    model_type = published.get("model_type")
    missing = [key for key in _KEYS if key not in published]
    is_foreign = model_type not in (None, CogVLM2Config.model_type)
    if is_foreign or missing:
        reason = f"has model_type = {model_type!r}" if is_foreign else f"has no {' and '.join(missing)}"
        raise CheckpointError(f"{folder} is not a checkpoint of backbone=cogvlm2: its config.json {reason}")
    try:
        return CogVLM2Config.from_pretrained(
            folder, rope_precision=rope_precision, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, TypeError, StrictDataclassError) as e:
        raise CheckpointError(f"{folder / 'config.json'}: {' '.join(str(e).split())}") from None
