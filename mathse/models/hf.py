"""``backbone=hf``: any vision-language model that transformers opens as ``AutoModelForImageTextToText``.

The model's own processor and chat template write the prompt and prepare pictures. The properties of the family are
derived: the tower is the module beside the text model; a projector, merger or connector between them is the connector;
adapters are on the linear layers of the two stacks; an image has the tokens that the processor writes for a picture of
its size, and these tokens are never sampled. All of it is shown before the first step, and settings override it.

Tested with tiny random models of their true classes: Qwen2.5-VL, Qwen3-VL, InternVL3, LLaVA-OneVision, SmolVLM,
Gemma 3, GLM-4V, Idefics3, LLaVA with DINOv2 (tests/backbones/test_hf.py). Features of a frozen tower cannot be stored
for such a model, except with ``backbone=smollm2_vision``, which extends it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mathse.config.backbones import HF as Settings
from mathse.data.images import image_size
from mathse.errors import CheckpointError, DataError
from mathse.models.any_model import apply_settings, derive_lora_pattern, open_any_model
from mathse.models.base import Features
from mathse.models.chat import ChatBackbone
from mathse.models.checkpoint import open_processor, wrap_library_errors
from mathse.models.row import Row

# Names of the modules between tower and text model.
CONNECTOR_NAMES = re.compile(r"projector|connector|merger|downsample|resampler|mlp1|aligner")
# Names of image tokens in a config: NAME_token_id or NAME_token_index.
IMAGE_TOKENS = ("image", "video", "vision_start", "vision_end", "boi", "eoi", "image_start", "image_end")
PROMPT_INPUTS = ("rows", "cols", "num_crops")  # outputs of image processors for the prompt, not for the model
LARGE_SIZES = ((4096, 4096), (8192, 256), (256, 8192), (512, 512))  # pixels: sizes of pictures with the most tokens
PROBE_SIZE = (64, 64)  # pixels

NO_SUCH_MODEL = "model of that type that reads pictures and writes text; for a text model pass backbone=causal_lm"

Family = TypeVar("Family", bound="HFBackbone")


class HFBackbone(ChatBackbone):
    """A transformers model with ``model.model`` (tower, connector, text model) and a head."""

    family: ClassVar[str] = "hf"

    def __init__(self, model: Any, processor: Any, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        super().__init__(model, processor)
        config, inner = model.config, model.model
        self.max_images = settings.max_images
        self.image_id: int = next(
            i
            for i in (
                getattr(config, "image_token_id", None),
                getattr(config, "image_token_index", None),
                getattr(processor, "image_token_id", None),
            )
            if i is not None
        )
        forward = inspect.signature(type(model).forward).parameters
        self._inputs = tuple(name for name in forward if name not in PROMPT_INPUTS)
        if "batch_num_images" in forward and self.max_images is None:
            self.max_images = 1  # LLaVA-OneVision cuts the pictures of a row with several differently
        self._needs_token_types = "token_type_ids" in forward
        if self._needs_token_types:
            self.sampling_extras = ("token_type_ids",)
        # M-RoPE positions come from a method of the model that needs its config and no weight.
        self._rope_class = type(inner) if hasattr(inner, "get_rope_index") else None
        self._expansions: dict[tuple[int, int], str] = {}  # size in pixels -> the text that replaces an image

        self.name_parts(settings)

        # Never sampled: the tokens of an image, which would need an image. They are the marks in the text of an image,
        # the ids that the config names, and the tokens of the setting.
        written = self.tokenizer(self.expansion(*PROBE_SIZE), add_special_tokens=False)["input_ids"]
        image_ids = {self.image_id, *(i for i in written if i in self.marks.ids)}
        for name in IMAGE_TOKENS:
            for end in ("id", "index"):
                if isinstance(index := getattr(config, f"{name}_token_{end}", None), int):
                    image_ids.add(index)
        image_ids |= {self.tokenizer.convert_tokens_to_ids(token) for token in settings.never_sampled}
        self.never_sampled = sorted(image_ids - {self.end_id})
        self._max_image_tokens = settings.max_image_tokens

    def name_parts(self, settings: Settings) -> None:
        """Set ``parts`` and ``lora_scopes`` from the settings, and derive the patterns that they leave open."""
        model, inner = self.model, self.model.model
        text = inner.get_decoder()
        self.parts = dict(derive_parts(inner, text))
        if settings.tower is not None:
            self.parts["tower"] = settings.tower
        if settings.connector is not None:
            self.parts["connector"] = settings.connector
        scopes = {"language": settings.lora_language or derive_lora_pattern(model, text)}
        tower = settings.lora_tower
        if not tower:
            patterns = []
            for name, child in inner.named_children():
                if child is not text and not CONNECTOR_NAMES.search(name):
                    patterns.append(derive_lora_pattern(model, child))
            tower = "|".join(pattern for pattern in patterns if pattern)
        self.lora_scopes = scopes | ({"tower": tower} if tower else {})

    # --- prompts ---

    def template_keeps_order(self) -> bool:
        """Return whether the chat template writes a picture between the texts around it; some write it first."""
        content = [{"type": "text", "text": "before"}, {"type": "image"}, {"type": "text", "text": "behind"}]
        written = self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        before, mark, _ = written.partition(self.processor.image_token)
        return not mark or "before" in before

    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        texts = []
        for row in rows:
            pieces = self.render(row).split(self.processor.image_token)
            sizes = [i.size if isinstance(i, Image) else image_size(str(i)) for i in row["images"]]
            expanded = [*(self.expansion(*size) for size in sizes), ""]
            if len(pieces) != len(expanded):
                raise CheckpointError(
                    f"backbone={self.family}: the chat template writes {self.processor.image_token!r} "
                    f"{len(pieces) - 1} times for {len(sizes)} images; pass backbone.chat_template=FILE, a template "
                    "that writes it once for each image"
                )
            texts.append("".join(piece + image for piece, image in zip(pieces, expanded, strict=True)))
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        return [len(ids) for ids in self.prompt_ids(rows, ())]

    def expand(self, features: Features) -> str:
        raise NotImplementedError("the text of an image follows from its size: see ``expansion``")

    def expansion(self, width: int, height: int) -> str:
        """Return the text that replaces the placeholder of an image of this size; a blank image gives it."""
        if (width, height) not in self._expansions:
            self._prepare_picture(PIL.Image.new("RGB", (width, height)))
        return self._expansions[width, height]

    # --- pictures ---

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        return [self._prepare_picture(picture) for picture in pictures]

    def _prepare_picture(self, picture: Image) -> Features:
        """Return the model's tensors of one picture, and store its expansion by its size."""
        kwargs = self.processor._merge_kwargs(tokenizer_init_kwargs={}, return_tensors="pt")["images_kwargs"]
        try:
            done = self.processor.image_processor([picture], **{**kwargs, "return_tensors": "pt"})
        except ValueError as error:  # a shape that the processor refuses
            size = f"{picture.width} x {picture.height} pixels"
            raise DataError(f"an image of {size} is refused by the image processor: {error}") from None
        self._expansions[picture.size] = self.processor.replace_image_token(done, image_idx=0)
        return {name: torch.as_tensor(value) for name, value in done.items() if name in self._inputs}

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        return len(self.tokenizer(self.expansion(width, height), add_special_tokens=False)["input_ids"])

    @property
    def max_image_tokens(self) -> int:
        if self._max_image_tokens is None and hasattr(self.processor, "_get_num_multimodal_tokens"):
            # The processor counts the tokens without cutting a picture, but without tokens around an image (begin,
            # end, line breaks). The probe gives their number.
            sizes = [(height, width) for width, height in (*LARGE_SIZES, PROBE_SIZE)]
            *counts, probe = self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
            self._max_image_tokens = max(counts) + max(0, self.image_tokens(*PROBE_SIZE) - probe)
        elif self._max_image_tokens is None:
            self._max_image_tokens = max(self.image_tokens(*size) for size in LARGE_SIZES)
        return self._max_image_tokens

    # --- tokens ---

    def extras(self, prompt: list[int], response: list[int], features: Features) -> dict[str, Tensor]:
        ids = prompt + response
        extras = {}
        if self._needs_token_types:
            extras["token_type_ids"] = self._mark_image_tokens(ids)
        if self._rope_class is not None:
            extras["position_ids"] = self.positions(ids, features)
        return extras

    def positions(self, ids: list[int], features: Features) -> Tensor:
        """Return positions (T,), or (3, T) with M-RoPE, by the model's own function."""
        if self._rope_class is None:
            return super().positions(ids, features)
        if "image_grid_thw" not in features:
            return torch.arange(len(ids)).expand(3, -1)
        # An instance without weights: ``get_rope_index`` reads only the config.
        model = object.__new__(self._rope_class)
        model.__dict__["config"] = self.model.config
        token_types = self._mark_image_tokens(ids)[None]
        positions, _ = model.get_rope_index(
            torch.tensor([ids]), mm_token_type_ids=token_types, image_grid_thw=features["image_grid_thw"]
        )
        return torch.as_tensor(positions)[-3:, 0].long()

    def _mark_image_tokens(self, ids: list[int]) -> Tensor:
        """Return (T,): 1 for a token of an image, 0 for text."""
        return torch.tensor([i == self.image_id for i in ids]).long()

    def findings(self) -> list[str]:
        tokens, name = self.tokenizer.convert_ids_to_tokens, f"backbone={self.family}"
        sentences = [
            *super().findings(),
            f"{name}: a response ends with {tokens(self.end_id)!r}, sampling stops at {tokens(self.end_ids)}; "
            f"never sampled: {tokens(self.never_sampled)}",
            f"{name}: an image of 448 x 448 pixels takes {self.image_tokens(448, 448):,} tokens",
            *(f"{name}: {part} is {pattern}" for part, pattern in self.parts.items()),
            *(f"{name}: adapters of scope {scope} go on {p}" for scope, p in self.lora_scopes.items()),
        ]
        if self.pictures_first:
            sentences.append(
                f"{name}: the chat template writes pictures before all text, wherever a question marks their "
                "places; backbone.chat_template=FILE sets another template"
            )
        return sentences


def derive_parts(inner: Any, text: Any) -> Mapping[str, str]:
    """Return patterns of the connector and the tower, over names of the whole model.

    Args:
        inner: ``model.model`` of the whole model.
        text: the text model in ``inner``; every other module with parameters is a tower or a connector.
    """
    towers, connectors = [], []
    for name, child in inner.named_children():
        if child is text or not any(True for _ in child.parameters()):
            continue
        if CONNECTOR_NAMES.search(name):
            connectors.append(re.escape(name))
            continue
        towers.append(re.escape(name))
        # A connector may be a module inside of the tower.
        for below, _ in child.named_children():
            if CONNECTOR_NAMES.search(below):
                connectors.append(rf"{re.escape(name)}\.{re.escape(below)}")
    connectors += [re.escape(name) for name, _ in inner.named_parameters(recurse=False)]  # LLaVA's newline
    parts = {}
    if connectors:
        parts["connector"] = rf"model\.({'|'.join(connectors)})(\.|$)"
    if towers:
        parts["tower"] = rf"model\.({'|'.join(towers)})\."
    return parts


@wrap_library_errors
def load(settings: Settings, weights: bool = True) -> HFBackbone:
    """Open a vision-language model; ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``."""
    return open_vision_model(HFBackbone, settings, weights)


def open_vision_model(family: type[Family], settings: Any, weights: bool) -> Family:
    """Open a checkpoint's vision-language model as a backbone of the class ``family``, with that family's settings."""
    folder, model = open_any_model(AutoModelForImageTextToText, settings, weights, NO_SUCH_MODEL)
    processor = open_processor(folder)
    needed = ("image_token", "image_processor", "replace_image_token")
    missing = [name for name in needed if not hasattr(processor, name)]
    if missing or not hasattr(model, "model") or not hasattr(model.model, "get_decoder"):
        raise CheckpointError(
            f"{folder}: {type(model).__name__} with {type(processor).__name__} does not have the structure that "
            f"backbone=hf needs ({missing[0] if missing else 'a text model beside a tower'} is missing); such a family "
            "needs a backbone of its own (CONTRIBUTING.md, Add a backbone)"
        )
    backbone = family(model, processor, settings)
    apply_settings(backbone, settings, settings.path)
    backbone.pictures_first = not backbone.template_keeps_order()
    backbone.never_sampled = [i for i in backbone.never_sampled if i not in backbone.end_ids]
    return backbone
