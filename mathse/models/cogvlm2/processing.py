"""The conversion of pictures and questions to CogVLM2's inputs, as in the published preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from transformers import BatchFeature, CLIPImageProcessorPil, PreTrainedConfig, PreTrainedTokenizerFast, ProcessorMixin

from mathse.data.images import load_image
from mathse.errors import CheckpointError, DataError
from mathse.models.cogvlm2 import prompt
from mathse.models.cogvlm2.configuration import MERGE
from mathse.models.cogvlm2.layout import IMAGE

IGNORED = -100
History = Sequence[tuple[str, str]]
_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def make_square_image_processor(image_size: int) -> CLIPImageProcessorPil:
    """Return a processor that scales to a square (bicubic, any aspect ratio), with CLIP's mean and deviation.

    With Pillow the pixels equal the published ones. The torchvision processor differs by 1 or 2 levels, rarely by 20.
    """
    size = {"height": image_size, "width": image_size}
    return CLIPImageProcessorPil(size=size, resample=3, do_center_crop=False)


class CogVLM2Processor(ProcessorMixin):
    """``processor(text=query, images=image, history=[(q, a)], template="chat", answer=None)`` -> the model's inputs.

    The tokenizer needs ``encode`` and the ids bos, eos and pad; pad is also the image's placeholder.
    """

    valid_templates: ClassVar[tuple[str, ...]] = ("base", "chat", "vqa")

    def __init__(
        self, image_processor: Any, tokenizer: Any, patch_size: int = 14, chat_template: str | None = None
    ) -> None:
        self.patch_size = patch_size
        super().__init__(image_processor, tokenizer, chat_template=chat_template or prompt.build_chat_template("chat"))

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> None:
        """Accept any object: transformers would demand one of its own classes."""

    @property
    def image_tokens(self) -> int:
        """Tokens of an image, with its begin and end token. It is the same for every image."""
        return (self.image_processor.size["height"] // self.patch_size // MERGE) ** 2 + 2

    def __call__(
        self,
        text: str | Sequence[str],
        images: Any = None,
        history: Any = None,
        template: str = "chat",
        answer: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Encode a row, or several rows with lists for all arguments (in ``images``, None for a row without an image).

        Args:
            text: the question; several are padded on the left.
            images: PIL images or paths, at most one in a row.
            history: earlier (question, answer) turns.
            template: base, chat or vqa, see ``build_prompt``.
            answer: the target answer; adds ``labels``, -100 outside of the answer and its end token.

        Returns:
            input_ids, attention_mask, token_type_ids (B, T); pixel_values (images, 3, S, S) if there are images; labels
            (B, T) if there are answers.

        Raises DataError for a second image in a row and for an unreadable image.
        """
        if kwargs.pop("return_tensors", "pt") not in ("pt", None) or not kwargs.pop("padding", True) or kwargs:
            raise TypeError(f"CogVLM2Processor gives padded torch tensors; it takes no {', '.join(kwargs) or 'others'}")
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        count = len(texts)
        histories = _split_rows(history, single, count, "history")
        answers = _split_rows(answer, single, count, "answer")
        pictures = [_expect_single(p) for p in _split_rows(images, single, count, "images")]
        rows = [
            self.encode(t, p is not None, h or (), template, a)
            for t, p, h, a in zip(texts, pictures, histories, answers, strict=True)
        ]
        batch = self.pad(rows)
        if loaded := [_load_picture(p) for p in pictures if p is not None]:
            batch["pixel_values"] = self.prepare_pixels(loaded)
        return BatchFeature(batch)

    def encode(
        self, query: str, image: bool, history: History = (), template: str = "chat", answer: str | None = None
    ) -> dict[str, list[int]]:
        """Return a row as lists: BOS, the image's placeholders, the prompt, then the answer and EOS.

        Prompt and answer are encoded separately. The image follows BOS, in whichever turn it is.
        """
        placeholders = self.image_tokens if image else 0
        text = prompt.build_prompt(query, history, template)
        ids = [self.tokenizer.bos_token_id, *[self.tokenizer.pad_token_id] * placeholders, *self._ids(text)]
        response = [] if answer is None else [*self._ids(answer), self.tokenizer.eos_token_id]
        length = len(ids) + len(response)
        row = {
            "input_ids": ids + response,
            "attention_mask": [1] * length,
            "token_type_ids": [0] + [IMAGE] * placeholders + [0] * (length - 1 - placeholders),
        }
        return row if answer is None else {**row, "labels": [IGNORED] * len(ids) + response}

    def pad(self, rows: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return a batch of rows of ``encode``, padded on the left: sampling continues at the last position."""
        if len({tuple(row) for row in rows}) > 1:
            raise DataError("answer: give one for each row, or for none")
        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}
        batch = {}
        for name in rows[0]:
            padded = [[fill.get(name, 0)] * (width - len(row[name])) + row[name] for row in rows]
            batch[name] = torch.tensor(padded)
        return batch

    def prepare_pixels(self, pictures: Sequence[Any]) -> torch.Tensor:
        """Return (N, 3, S, S)."""
        return self.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def apply_chat_template(
        self, conversation: Any, chat_template: str | None = None, tokenize: bool = False, **kwargs: Any
    ) -> Any:
        """Render messages as text, with BOS and a placeholder for each image first; ``tokenize``: as model inputs."""
        if not tokenize:
            return super().apply_chat_template(conversation, chat_template=chat_template, tokenize=False, **kwargs)
        many = isinstance(conversation[0], Sequence)
        conversations = conversation if many else [conversation]
        rendered = super().apply_chat_template(
            conversations, chat_template=chat_template, tokenize=False, add_generation_prompt=True
        )
        # ``self`` writes BOS and the placeholders itself, so they are removed from the rendered texts.
        texts, images = [], []
        for text, messages in zip(rendered, conversations, strict=True):
            pictures = _list_pictures(messages)
            texts.append(text.removeprefix(self.tokenizer.bos_token + self.tokenizer.pad_token * len(pictures)))
            images.append(pictures)
        batch = self(text=texts, images=images, template="base")
        return batch if kwargs.get("return_dict", True) else batch["input_ids"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Open the folder of ``save_pretrained`` or a published folder, where config.json has the size of images.

        Raises CheckpointError if the file of the tokenizer or the config is missing.
        """
        source = str(pretrained_model_name_or_path)
        hub = {name: kwargs[name] for name in _HUB if kwargs.get(name) is not None}
        saved, _ = cls.get_processor_dict(source, **hub)
        config = _read_config_dict(source, hub)
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source, trust_remote_code=False, **hub)
        except (OSError, ValueError, TypeError) as e:
            reason = " ".join(str(e).split())[:200]
            raise CheckpointError(f"{source}: no tokenizer.json that can be opened ({reason})") from None
        _set_special_tokens(tokenizer, config)
        vision = config.get("vision_config", {})
        patch_size = saved.get("patch_size", vision.get("patch_size", 14))
        if isinstance(options := saved.get("image_processor"), dict):
            image_processor = CLIPImageProcessorPil(
                **{k: v for k, v in options.items() if k not in ("image_processor_type", "processor_class")}
            )
        elif "image_size" in vision:
            image_processor = make_square_image_processor(vision["image_size"])
        else:
            raise CheckpointError(f"{source}: neither processor_config.json nor config.json has the size of images")
        return cls(image_processor, tokenizer, patch_size=patch_size, chat_template=saved.get("chat_template"))


def _read_config_dict(source: str, hub: dict[str, Any]) -> dict[str, Any]:
    try:
        return PreTrainedConfig.get_config_dict(source, **hub)[0]
    except OSError:  # a processor can be saved without a model
        return {}


def _set_special_tokens(tokenizer: Any, config: Mapping[str, Any]) -> None:
    """Set the special tokens of config.json: the published tokenizer has no padding token."""
    for name in ("bos", "eos", "pad"):
        wanted = config.get(f"{name}_token_id")
        if isinstance(wanted, int) and wanted != getattr(tokenizer, f"{name}_token_id"):
            token = tokenizer.convert_ids_to_tokens(wanted)
            if token is None:
                raise CheckpointError(f"config.json: {name}_token_id = {wanted} is not in the tokenizer")
            setattr(tokenizer, f"{name}_token", token)


def _split_rows(value: Any, single: bool, count: int, name: str) -> list[Any]:
    """Return an argument of ``CogVLM2Processor.__call__`` as a list with an entry for each row."""
    if single:
        return [value]
    rows = [None] * count if value is None else list(value)
    if len(rows) != count:
        raise DataError(f"{name}: {len(rows)} entries for {count} texts; give one each, or None for a row without")
    return rows


def _expect_single(images: Any) -> Any:
    """Return the image of a row, or None. Raises DataError for several images."""
    if isinstance(images, (list, tuple)):
        if len(images) > 1:
            raise DataError(f"{len(images)} images in a row, and CogVLM2 takes one; join them to one picture")
        return images[0] if images else None
    return images


def _load_picture(image: Any) -> Any:
    if isinstance(image, (str, Path)):
        return load_image(str(image))
    return image.convert("RGB") if isinstance(image, Image) else image


def _list_pictures(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the pictures in the messages of a conversation, in order."""
    pictures = []
    for message in messages:
        if isinstance(message["content"], str):
            continue
        for part in message["content"]:
            if part["type"] == "image":
                pictures.append(_read_picture_part(part))
    return pictures


def _read_picture_part(part: Mapping[str, Any]) -> Any:
    for key in ("image", "path", "url"):
        if key in part:
            return part[key]
    raise DataError("an image part of a message must have the picture under 'image' or its file under 'path'")
