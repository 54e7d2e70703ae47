"""``backbone=hf``: any vision-language model that transformers opens as ``AutoModelForImageTextToText``.

Its own processor and chat template write the prompt and prepare pictures. What a family of ours says of itself is found
out: the tower is what lies beside the text model, a projector, a merger or a connector between them is the connector,
adapters go on the linear layers of the two stacks, an image takes the tokens that the processor writes for a picture of
its size, and the tokens of these are never sampled. All of it is shown before the first step, and can be said by hand.

Tried as tiny random models of their true classes: Qwen2.5-VL, Qwen3-VL, InternVL3, LLaVA-OneVision, SmolVLM, Gemma 3,
GLM-4V, Idefics3, LLaVA with DINOv2 (tests/backbones/test_hf.py). Features of a frozen tower cannot be kept for such a
model; ``backbone=smollm2_vision``, which is one of them, can.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from PIL import Image as Pictures
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mathse.config.backbones import HFBackboneConfig
from mathse.data.images import image_size
from mathse.errors import CheckpointError, DataError
from mathse.models.asked import apply_settings, lora_pattern_of, open_asked
from mathse.models.base import Features
from mathse.models.chat import ChatBackbone
from mathse.models.checkpoint import open_processor, told_in_a_sentence
from mathse.models.row import Row

CONNECTING = re.compile(r"projector|connector|merger|downsample|resampler|mlp1|aligner")  # modules between the two
MARKS = ("image", "video", "vision_start", "vision_end", "boi", "eoi", "image_start", "image_end")
NOT_OF_THE_MODEL = ("rows", "cols", "num_crops")  # that image processors give for the prompt alone
EXTREMES = ((4096, 4096), (8192, 256), (256, 8192), (512, 512))  # pixels: pictures that take most tokens
PROBE = (64, 64)  # pixels

NO_SUCH_MODEL = "model of that type that reads pictures and writes text; one of text alone is backbone=causal_lm"

Family = TypeVar("Family", bound="HFBackbone")


class HFBackbone(ChatBackbone):
    """A model of any class with ``model.model`` (tower, connector, text model) and a head."""

    family: ClassVar[str] = "hf"

    def __init__(self, model: Any, processor: Any, settings: HFBackboneConfig | None = None) -> None:
        settings = settings or HFBackboneConfig()
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
        self._inputs = tuple(name for name in forward if name not in NOT_OF_THE_MODEL)
        if "batch_num_images" in forward and self.max_images is None:
            self.max_images = 1  # LLaVA-OneVision cuts a row's pictures otherwise where there are several
        self._types_of_tokens = "token_type_ids" in forward
        if self._types_of_tokens:
            self.sampling_extras = ("token_type_ids",)
        # M-RoPE: positions are the model's own function of ids and grids, which needs its config and no weight
        self._positions_of = type(inner) if hasattr(inner, "get_rope_index") else None
        self._expansions: dict[tuple[int, int], str] = {}  # by size in pixels: the text that stands for an image

        self.name_parts(settings)

        # an image's tokens in a path would need an image
        written = self.tokenizer(self.expansion(*PROBE), add_special_tokens=False)["input_ids"]
        named = (getattr(config, f"{mark}_token_{end}", None) for mark in MARKS for end in ("id", "index"))
        marks = {self.image_id, *(i for i in written if i in self.marks.ids), *(i for i in named if isinstance(i, int))}
        marks |= {self.tokenizer.convert_tokens_to_ids(token) for token in settings.never_sampled}
        self.never_sampled = sorted(marks - {self.end_id})
        self._most = settings.max_image_tokens

    def name_parts(self, settings: HFBackboneConfig) -> None:
        """Find the parts and the modules that adapters go on, where the settings do not say them."""
        model, inner = self.model, self.model.model
        text = inner.get_decoder()
        self.parts = dict(parts_of(inner, text))
        if settings.tower is not None:
            self.parts["tower"] = settings.tower
        if settings.connector is not None:
            self.parts["connector"] = settings.connector
        scopes = {"language": settings.lora_language or lora_pattern_of(model, text)}
        tower = settings.lora_tower or "|".join(
            pattern
            for name, child in inner.named_children()
            if child is not text and not CONNECTING.search(name) and (pattern := lora_pattern_of(model, child))
        )
        self.lora_scopes = scopes | ({"tower": tower} if tower else {})

    # --- prompts ---

    def template_keeps_order(self) -> bool:
        """Whether the chat template writes a picture where it stands between texts; some write all of them first."""
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
                    f"{len(pieces) - 1} times for {len(sizes)} images; pass backbone.chat_template=FILE, one that "
                    "writes it once an image"
                )
            texts.append("".join(piece + image for piece, image in zip(pieces, expanded, strict=True)))
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        return [len(ids) for ids in self.prompt_ids(rows, ())]

    def expand(self, features: Features) -> str:
        raise NotImplementedError("an image's text follows from its size: see ``expansion``")

    def expansion(self, width: int, height: int) -> str:
        """What the placeholder of an image of this size becomes: what the processor writes for a blank one."""
        if (width, height) not in self._expansions:
            self._prepared(Pictures.new("RGB", (width, height)))
        return self._expansions[width, height]

    # --- pictures ---

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        return [self._prepared(picture) for picture in pictures]

    def _prepared(self, picture: Image) -> Features:
        """The model's tensors of one picture; its text is remembered by its size."""
        kwargs = self.processor._merge_kwargs(tokenizer_init_kwargs={}, return_tensors="pt")["images_kwargs"]
        try:
            done = self.processor.image_processor([picture], **{**kwargs, "return_tensors": "pt"})
        except ValueError as error:  # a shape that it does not take
            size = f"{picture.width} x {picture.height} pixels"
            raise DataError(f"an image of {size} is refused by the image processor: {error}") from None
        self._expansions[picture.size] = self.processor.replace_image_token(done, image_idx=0)
        return {name: torch.as_tensor(value) for name, value in done.items() if name in self._inputs}

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        return len(self.tokenizer(self.expansion(width, height), add_special_tokens=False)["input_ids"])

    @property
    def max_image_tokens(self) -> int:
        if self._most is None and hasattr(self.processor, "_get_num_multimodal_tokens"):  # it cuts no picture for that
            sizes = [(height, width) for width, height in (*EXTREMES, PROBE)]
            *counts, inside = self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
            self._most = max(counts) + max(0, self.image_tokens(*PROBE) - inside)  # begin, end, line breaks
        elif self._most is None:
            self._most = max(self.image_tokens(*size) for size in EXTREMES)
        return self._most

    # --- tokens ---

    def extras(self, prompt: list[int], response: list[int], features: Features) -> dict[str, Tensor]:
        ids = prompt + response
        extras = {}
        if self._types_of_tokens:
            extras["token_type_ids"] = self._is_image(ids)
        if self._positions_of is not None:
            extras["position_ids"] = self.positions(ids, features)
        return extras

    def positions(self, ids: list[int], features: Features) -> Tensor:
        """(T,); with M-RoPE (3, T), as the model's own function has them."""
        if self._positions_of is None:
            return super().positions(ids, features)
        if "image_grid_thw" not in features:
            return torch.arange(len(ids)).expand(3, -1)
        model = object.__new__(self._positions_of)
        model.__dict__["config"] = self.model.config
        positions, _ = model.get_rope_index(
            torch.tensor([ids]), mm_token_type_ids=self._is_image(ids)[None], image_grid_thw=features["image_grid_thw"]
        )
        return torch.as_tensor(positions)[-3:, 0].long()

    def _is_image(self, ids: list[int]) -> Tensor:
        return torch.tensor([i == self.image_id for i in ids]).long()

    def findings(self) -> list[str]:
        tokens, name = self.tokenizer.convert_ids_to_tokens, f"backbone={self.family}"
        return [
            *super().findings(),
            f"{name}: a response ends with {tokens(self.end_id)!r}, sampling stops at {tokens(self.end_ids)}; "
            f"never sampled: {tokens(self.never_sampled)}",
            f"{name}: an image of 448 x 448 pixels takes {self.image_tokens(448, 448):,} tokens",
            *(f"{name}: {part} is {pattern}" for part, pattern in self.parts.items()),
            *(f"{name}: adapters of scope {scope} go on {p}" for scope, p in self.lora_scopes.items()),
            *[
                f"{name}: the chat template writes pictures before all text, wherever a question marks their "
                "places; backbone.chat_template=FILE takes another"
            ][: self.pictures_first],
        ]


def parts_of(inner: Any, text: Any) -> Mapping[str, str]:
    """Patterns of the connector and the tower, over names of the whole model. ``inner``: its ``model``."""
    towers, connecting = [], []
    for name, child in inner.named_children():
        if child is text or not any(True for _ in child.parameters()):
            continue
        if CONNECTING.search(name):
            connecting.append(re.escape(name))
            continue
        towers.append(re.escape(name))
        connecting += [
            rf"{re.escape(name)}\.{re.escape(below)}" for below, _ in child.named_children() if CONNECTING.search(below)
        ]
    connecting += [re.escape(name) for name, _ in inner.named_parameters(recurse=False)]  # LLaVA's newline
    parts = {}
    if connecting:
        parts["connector"] = rf"model\.({'|'.join(connecting)})(\.|$)"
    if towers:
        parts["tower"] = rf"model\.({'|'.join(towers)})\."
    return parts


@told_in_a_sentence
def load(settings: HFBackboneConfig, weights: bool = True) -> HFBackbone:
    """Open a vision-language model; ``weights`` False: for prompts alone, see ``mathse.models.prompt_reader``."""
    return opened(HFBackbone, settings, weights)


def opened(family: type[Family], settings: Any, weights: bool) -> Family:
    """A checkpoint's vision-language model as a backbone of this class; ``settings``: of its family."""
    folder, model = open_asked(AutoModelForImageTextToText, "hf", settings, weights, NO_SUCH_MODEL)
    processor = open_processor(folder)
    lacking = [
        name for name in ("image_token", "image_processor", "replace_image_token") if not hasattr(processor, name)
    ]
    if lacking or not hasattr(model, "model") or not hasattr(model.model, "get_decoder"):
        raise CheckpointError(
            f"{folder}: {type(model).__name__} with {type(processor).__name__} is not built as backbone=hf needs it "
            f"({lacking[0] if lacking else 'a text model beside a tower'} is missing); such a family needs a backbone "
            "of its own (CONTRIBUTING.md, Add a backbone)"
        )
    backbone = family(model, processor, settings)
    apply_settings(backbone, settings, settings.path)
    backbone.pictures_first = not backbone.template_keeps_order()
    backbone.never_sampled = [i for i in backbone.never_sampled if i not in backbone.end_ids]
    return backbone
