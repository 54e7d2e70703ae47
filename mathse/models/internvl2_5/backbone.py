"""InternVL2.5 behind the harness's contract: tiles, prompts, and how a folder of either layout is opened.

A picture is cut into a grid of square tiles whose shape comes nearest to its own, with a thumbnail behind them where
there are several; a tile is ``image_seq_length`` tokens.
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

from mathse.config.backbones import InternVL25 as Settings
from mathse.data.image_decoding import jpeg
from mathse.models.architecture import Architecture
from mathse.models.base import IMAGE_CACHE, Encoded, Features
from mathse.models.cache import BoundedCache
from mathse.models.chat import DECODER_SCOPE, ChatBackbone
from mathse.models.checkpoint import as_dtype, expect_family, open_model, open_processor, resolve, told_in_a_sentence
from mathse.models.internvl2_5.published import (
    INTERNLM2,
    MODEL_TYPE,
    Language,
    chat_template,
    native_config,
    read_published,
)
from mathse.models.internvl2_5.tokenizer import END
from mathse.models.row import Row
from mathse.seeds import derive

QUALITY = (75, 100)  # of random JPEG compression, as the published training code draws it

Family = TypeVar("Family", bound="InternVL25Backbone")


class InternVL25Backbone(ChatBackbone):
    """An ``InternVLForConditionalGeneration`` with its ``InternVLProcessor``.

    A row with a response is trained on: its pictures get at most ``train_tiles`` tiles and, with ``jpeg``, go through a
    random JPEG compression first. Other rows are answered: at most ``eval_tiles`` tiles. The thumbnail is one more.
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

    def __init__(self, model: Any, processor: Any, settings: Settings) -> None:
        super().__init__(model, processor)
        self.train_tiles, self.eval_tiles = settings.train_tiles, settings.eval_tiles
        self.jpeg, self.jpeg_seed = settings.jpeg, settings.jpeg_seed
        self.image_id = model.config.image_token_id
        # where the marks of an image would stand in a path, an image would have to be
        self.never_sampled = list(processor.image_token_ids)
        self.end_id = self.tokenizer.convert_tokens_to_ids(END)  # </s>, the tokenizer's own, ends no turn
        ends = model.generation_config.eos_token_id or []  # one id, or several
        self.end_ids = sorted({self.end_id, *(ends if isinstance(ends, list) else [ends])})
        self._tiles = settings.eval_tiles
        self._caches = {
            True: self._images,
            False: BoundedCache[Features](IMAGE_CACHE),
        }  # by whether rows are trained on

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        encoded: dict[int, Encoded] = {}
        # rows to train on and rows to answer get different numbers of tiles, so each kind is encoded by itself
        for trained in (True, False):
            positions = [i for i, row in enumerate(rows) if ("response" in row) == trained]
            with self.preparing(trained):
                alike = [self._compressed(rows[i]) if trained and self.jpeg else rows[i] for i in positions]
                encoded |= zip(positions, super().encode(alike) if alike else [], strict=True)
        return [encoded[i] for i in range(len(rows))]

    @contextmanager
    def preparing(self, trained: bool) -> Iterator[None]:
        # pictures are cut into another number of tiles; what is cached is kept apart
        self._tiles, self._images = self.train_tiles if trained else self.eval_tiles, self._caches[trained]
        try:
            yield
        finally:
            self._tiles = self.eval_tiles

    def _compressed(self, row: Row) -> Row:
        """The row with its pictures compressed; the draw is the row's own, so a resumed fit sees the same pixels."""
        key = (self.jpeg_seed, "jpeg", row["question"], row["response"])
        images = [jpeg(self.opened(image), *QUALITY, seed=derive(*key, k)) for k, image in enumerate(row["images"])]
        return {**row, "images": images}

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        """``pixel_values`` (tiles, 3, side, side) of each picture: the grid row by row, then the thumbnail."""
        cut = self.processor.image_processor(
            list(pictures), crop_to_patches=True, max_patches=self._tiles, return_tensors="pt"
        )
        counts = torch.as_tensor(cut["num_patches"]).tolist()  # tiles of each picture, the thumbnail included
        return [{"pixel_values": tiles} for tiles in cut["pixel_values"].split(counts)]

    def preprocessing(self) -> Mapping[str, Any]:
        return {**super().preprocessing(), "tiles": self._tiles}

    def tower(self, image: Features) -> Tensor:
        """(tiles, tokens, C): what the projector reads, after the pixel shuffle."""
        model = self.model.model
        seen: list[Tensor] = []
        with model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            model.get_image_features(image["pixel_values"])
        return seen[0]

    def connector(self, seen: Tensor) -> Tensor:
        """(tiles, tokens, C) -> (tiles, tokens, H)."""
        tokens: Tensor = self.model.model.multi_modal_projector(seen)
        return tokens

    def expand(self, features: Features) -> str:
        tiles = len(next(iter(features.values())))  # of pixels or of what the tower made of them
        tokens = self.processor.image_token * (self.processor.image_seq_length * tiles)
        return self.processor.start_image_token + tokens + self.processor.end_image_token

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        """Of the picture alone; ``<img>`` before it and ``</img>`` after it are two more."""
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


def architecture(settings: Settings) -> Architecture:
    """The model of a folder's config.json in either layout, without numbers."""
    return architecture_in(InternVL25Backbone, settings)


def architecture_in(family: type[InternVL25Backbone], settings: Settings) -> Architecture:
    """``architecture`` of a family."""
    folder, config = Path(settings.path), None
    described = expect_family(folder, family.family, (InternVLConfig.model_type, MODEL_TYPE))
    if described["model_type"] == MODEL_TYPE:
        # the id of a picture's token is the tokenizer's, and changes no size
        config = native_config(described, family.language, image_token_id=0, where=str(folder / "config.json"))
    model = open_model(
        InternVLForConditionalGeneration, folder, attention=settings.attention, config=config, weights=False
    )
    vision, seq_length = model.config.vision_config, model.config.image_seq_length
    cells = (vision.image_size[0] // vision.patch_size[0]) * (vision.image_size[1] // vision.patch_size[1])
    tiles = [most + (most > 1) for most in (settings.train_tiles, settings.eval_tiles)]  # with the thumbnail
    cut, limits = GotOcr2ImageProcessorPil(), {"crop_to_patches": True, "max_patches": settings.eval_tiles}
    return Architecture(
        family.bare(model),
        settings.dtype,
        (tiles[0] * (cells + 1), tiles[1] * (cells + 1)),  # a class token a tile
        (tiles[0] * seq_length + 3, tiles[1] * seq_length + 3),  # <img>, </img> and the line's end
        lambda width, height: cut.get_number_of_image_patches(height, width, limits) * seq_length + 3,
    )


@told_in_a_sentence
def load(settings: Settings, weights: bool = True) -> InternVL25Backbone:
    """Open an InternVL2.5 checkpoint, in the published layout or in transformers'.

    ``weights`` False: for prompts alone, see ``mathse.models.prompt_reader``.
    """
    return opened(InternVL25Backbone, settings, weights)


def opened(family: type[Family], settings: Settings, weights: bool) -> Family:
    """A checkpoint of the family."""
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
    """What surrounds the weights of a folder of either layout: config and generation settings (None where they are
    transformers' own files, which it reads itself), and the processor as prompts and pictures are made here.

    Raises CheckpointError for a folder of another family.
    """
    config = generation = None
    described = expect_family(folder, family.family, (InternVLConfig.model_type, MODEL_TYPE))
    if described["model_type"] == MODEL_TYPE:
        config, processor, generation = read_published(folder, family.language)
    else:
        processor = open_processor(folder)
        # On Pillow the pixels are the published ones; the torchvision processor that AutoProcessor opens is off by 1 or
        # 2 of 255 levels, at single pixels of reduced images by 20.
        processor.image_processor = GotOcr2ImageProcessorPil.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if system is not None:
        processor.chat_template = chat_template(system, processor.image_token)
    # Prompts are encoded as servers do it, without what the tokenizer adds, so the template has to write <s>; those of
    # checkpoints that others converted leave it to the tokenizer.
    tokenizer, template = processor.tokenizer, processor.chat_template
    if isinstance(template, str) and tokenizer("")["input_ids"] == [tokenizer.bos_token_id]:
        rendered = processor.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
        if not rendered.startswith(tokenizer.bos_token):
            processor.chat_template = "{{ bos_token }}" + template
    return config, processor, generation
