"""InternVL2.5 as a backbone: tiles, prompts, and folders of both layouts.

A picture is cut into the grid of square tiles with the nearest aspect ratio. If there are several tiles, a thumbnail
follows them. A tile has ``image_seq_length`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import GenerationConfig, InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from mathse.config.backbones import InternVL25BackboneConfig
from mathse.data.image_decoding import jpeg
from mathse.models.architecture import Architecture
from mathse.models.base import IMAGE_CACHE_BYTES, Encoded, Features
from mathse.models.cache import BoundedCache
from mathse.models.chat import DECODER_SCOPE, ChatBackbone
from mathse.models.checkpoint import as_dtype, expect_family, open_model, open_processor, resolve, wrap_library_errors
from mathse.models.internvl2_5.published import (
    INTERNLM2,
    MODEL_TYPE,
    Language,
    build_chat_template,
    build_native_config,
    read_published,
)
from mathse.models.internvl2_5.tokenizer import END
from mathse.models.row import Row
from mathse.seeds import derive

JPEG_QUALITY = (75, 100)  # range of the random JPEG compression in the published training code

Family = TypeVar("Family", bound="InternVL25Backbone")


class InternVL25Backbone(ChatBackbone):
    """An ``InternVLForConditionalGeneration`` with its ``InternVLProcessor``.

    In a row of training data (with a response), a picture has at most ``train_tiles`` tiles and, with ``jpeg``, is
    compressed at random first. In a row to answer, it has at most ``eval_tiles`` tiles. The thumbnail is an additional
    tile.
    """

    family: ClassVar[str] = "internvl2_5"
    language: ClassVar[Language] = INTERNLM2  # of published folders
    parts: Mapping[str, str] = {
        "connector": r"model\.multi_modal_projector(\.|$)",
        "tower": r"model\.vision_tower(\.|$)",
    }
    lora_scopes: Mapping[str, str] = {
        "language": DECODER_SCOPE,
        "tower": r"model\.vision_tower\.encoder\.layer\.\d+\.(attention\.([qkv]_proj|projection_layer)|mlp\.fc[12])",
    }

    image_marks: ClassVar[int] = 2  # <img> and </img>

    def __init__(self, model: Any, processor: Any, settings: InternVL25BackboneConfig) -> None:
        super().__init__(model, processor)
        self.train_tiles, self.eval_tiles = settings.train_tiles, settings.eval_tiles
        self.jpeg, self.jpeg_seed = settings.jpeg, settings.jpeg_seed
        self.image_id = model.config.image_token_id
        # A path with a mark of an image would need an image.
        self.never_sampled = list(processor.image_token_ids)
        self.end_id = self.tokenizer.convert_tokens_to_ids(END)  # not </s>, the tokenizer's own, which ends no turn
        ends = model.generation_config.eos_token_id or []  # an id or a list of ids
        self.end_ids = sorted({self.end_id, *(ends if isinstance(ends, list) else [ends])})
        self._tiles = settings.eval_tiles
        # Two caches, by whether rows are training data: the same picture has other tiles in each.
        self._caches = {True: self._images, False: BoundedCache[Features](IMAGE_CACHE_BYTES)}

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        encoded: dict[int, Encoded] = {}
        # Rows of training data and rows to answer have different numbers of tiles, so each kind is encoded separately.
        for trained in (True, False):
            positions = [i for i, row in enumerate(rows) if ("response" in row) == trained]
            with self.preparing(trained):
                group = [self._compress(rows[i]) if trained and self.jpeg else rows[i] for i in positions]
                encoded |= zip(positions, super().encode(group) if group else [], strict=True)
        return [encoded[i] for i in range(len(rows))]

    @contextmanager
    def preparing(self, trained: bool) -> Iterator[None]:
        # Another number of tiles, and another cache.
        self._tiles, self._images = self.train_tiles if trained else self.eval_tiles, self._caches[trained]
        try:
            yield
        finally:
            self._tiles = self.eval_tiles

    def _compress(self, row: Row) -> Row:
        """Return the row with compressed pictures. The draw depends on the row, so a resumed run sees equal pixels."""
        key = (self.jpeg_seed, "jpeg", row["question"], row["response"])
        images = [
            jpeg(self.open_picture(image), *JPEG_QUALITY, seed=derive(*key, k)) for k, image in enumerate(row["images"])
        ]
        return {**row, "images": images}

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        """Return ``pixel_values`` (tiles, 3, side, side) of each picture: the grid row by row, then the thumbnail."""
        batch = self.processor.image_processor(
            list(pictures), crop_to_patches=True, max_patches=self._tiles, return_tensors="pt"
        )
        counts = torch.as_tensor(batch["num_patches"]).tolist()  # tiles of each picture, with the thumbnail
        return [{"pixel_values": tiles} for tiles in batch["pixel_values"].split(counts)]

    def preprocessing(self) -> Mapping[str, Any]:
        return {**super().preprocessing(), "tiles": self._tiles}

    def tower(self, image: Features) -> Tensor:
        """Return (tiles, tokens, C): the projector's input, after the pixel shuffle."""
        model = self.model.model
        seen: list[Tensor] = []
        with model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            model.get_image_features(image["pixel_values"])
        return seen[0]

    def connector(self, seen: Tensor) -> Tensor:
        """Convert (tiles, tokens, C) to (tiles, tokens, H)."""
        tokens: Tensor = self.model.model.multi_modal_projector(seen)
        return tokens

    def expand(self, features: Features) -> str:
        tiles = len(next(iter(features.values())))  # the first dimension of pixels and of tower features
        tokens = self.processor.image_token * (self.processor.image_seq_length * tiles)
        return self.processor.start_image_token + tokens + self.processor.end_image_token

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        """Return the tokens of the picture. ``<img>`` before it and ``</img>`` after it are two more."""
        limits = {"crop_to_patches": True, "max_patches": self.train_tiles if trained else self.eval_tiles}
        tiles = self.processor.image_processor.get_number_of_image_patches(height, width, limits)
        return tiles * self.processor.image_seq_length

    def tokens_in_row(self, row: Row, width: int, height: int) -> int:
        return self.image_tokens(width, height, trained="response" in row)

    @property
    def max_image_tokens(self) -> int:
        most = max(self.train_tiles, self.eval_tiles)
        tiles = most + 1 if most > 1 else 1  # the thumbnail
        return tiles * self.processor.image_seq_length + 3  # <img>, </img> and the line's end


def architecture(settings: InternVL25BackboneConfig) -> Architecture:
    """Return the model of a folder's config.json in either layout, without weights."""
    return read_architecture(InternVL25Backbone, settings)


def read_architecture(family: type[InternVL25Backbone], settings: InternVL25BackboneConfig) -> Architecture:
    """Return the model of the family that a folder's config.json describes, without weights."""
    folder, config = Path(settings.path), None
    published = expect_family(folder, family.family, (InternVLConfig.model_type, MODEL_TYPE))
    if published["model_type"] == MODEL_TYPE:
        # The tokenizer defines the id of the image token. It changes no size, so any id will do.
        config = build_native_config(published, family.language, image_token_id=0, where=str(folder / "config.json"))
    model = open_model(
        InternVLForConditionalGeneration, folder, attention=settings.attention, config=config, weights=False
    )
    vision, seq_length = model.config.vision_config, model.config.image_seq_length
    cells = (vision.image_size[0] // vision.patch_size[0]) * (vision.image_size[1] // vision.patch_size[1])
    tiles = [most + (most > 1) for most in (settings.train_tiles, settings.eval_tiles)]  # with the thumbnail
    images, limits = GotOcr2ImageProcessorPil(), {"crop_to_patches": True, "max_patches": settings.eval_tiles}
    return Architecture(
        family.bare(model),
        settings.dtype,
        (tiles[0] * (cells + 1), tiles[1] * (cells + 1)),  # with a class token for each tile
        (tiles[0] * seq_length + 3, tiles[1] * seq_length + 3),  # <img>, </img> and the line's end
        lambda width, height: images.get_number_of_image_patches(height, width, limits) * seq_length + 3,
    )


@wrap_library_errors
def load(settings: InternVL25BackboneConfig, weights: bool = True) -> InternVL25Backbone:
    """Open an InternVL2.5 checkpoint, in the published layout or in transformers'.

    ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``.
    """
    return open_family(InternVL25Backbone, settings, weights)


def open_family(family: type[Family], settings: InternVL25BackboneConfig, weights: bool) -> Family:
    """Open a checkpoint of the family."""
    folder = resolve(settings.path, settings.revision, weights)
    config, processor, generation = read_folder(folder, settings.system, family)
    model = open_model(
        InternVLForConditionalGeneration,
        folder,
        dtype=as_dtype(settings.dtype),
        attention=settings.attention,
        config=config,
        weights=weights,
    )
    if generation is not None:
        model.generation_config = generation
    return family(model, processor, settings)


def read_folder(
    folder: Path, system: str | None = None, family: type[InternVL25Backbone] = InternVL25Backbone
) -> tuple[InternVLConfig | None, InternVLProcessor, GenerationConfig | None]:
    """Read everything except the weights from a folder of either layout.

    Returns:
        Config and generation settings, which are None for transformers' layout, where transformers reads them itself,
        and the processor.

    Raises CheckpointError for a folder of another family.
    """
    config = generation = None
    config_json = expect_family(folder, family.family, (InternVLConfig.model_type, MODEL_TYPE))
    if config_json["model_type"] == MODEL_TYPE:
        config, processor, generation = read_published(folder, family.language)
    else:
        processor = open_processor(folder)
        # With Pillow the pixels equal the published ones. The torchvision processor that AutoProcessor opens differs by
        # 1 or 2 of 255 levels, and by 20 at single pixels of reduced images.
        processor.image_processor = GotOcr2ImageProcessorPil.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if system is not None:
        processor.chat_template = build_chat_template(system, processor.image_token)
    # Prompts are encoded as servers encode them, without the tokens that the tokenizer adds, so the template must write
    # <s>. The templates of checkpoints that others converted leave it to the tokenizer.
    tokenizer, template = processor.tokenizer, processor.chat_template
    if isinstance(template, str) and tokenizer("")["input_ids"] == [tokenizer.bos_token_id]:
        rendered = processor.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
        if not rendered.startswith(tokenizer.bos_token):
            processor.chat_template = "{{ bos_token }}" + template
    return config, processor, generation
