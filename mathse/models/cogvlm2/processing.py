"""Pictures and questions into CogVLM2's inputs, as the published preprocessing makes them."""

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


def square_image_processor(image_size: int) -> CLIPImageProcessorPil:
    """Squared without keeping the aspect ratio, bicubic, CLIP's mean and deviation.

    The PIL one equals the published pixels; the torchvision one differs by a level or two, at places by twenty.
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
        super().__init__(image_processor, tokenizer, chat_template=chat_template or prompt.chat_template("chat"))

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> None:
        """Any object that does the job will do."""

    @property
    def image_tokens(self) -> int:
        """Tokens an image takes, begin and end token included; the same for every image."""
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
        """One row, or several with lists throughout (``images`` with None for a row without).

        Args:
            text: the question; several are padded on the left.
            images: a PIL image or a path, at most one a row.
            history: earlier (question, answer) turns.
            template: base, chat or vqa, see ``prompt_text``.
            answer: what the model should say; adds ``labels``, -100 off the answer and its end token.
        Returns input_ids, attention_mask, token_type_ids (B, T), pixel_values (images, 3, S, S) if there are any, and
        labels (B, T) if there are answers. Raises DataError for a second image in a row or an unreadable one.
        """
        if kwargs.pop("return_tensors", "pt") not in ("pt", None) or not kwargs.pop("padding", True) or kwargs:
            raise TypeError(f"CogVLM2Processor gives padded torch tensors; it takes no {', '.join(kwargs) or 'others'}")
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        count = len(texts)
        histories = _rows(history, single, count, "history")
        answers = _rows(answer, single, count, "answer")
        pictures = [_only(p) for p in _rows(images, single, count, "images")]
        rows = [
            self.encode(t, p is not None, h or (), template, a)
            for t, p, h, a in zip(texts, pictures, histories, answers, strict=True)
        ]
        batch = self.pad(rows)
        if shown := [_opened(p) for p in pictures if p is not None]:
            batch["pixel_values"] = self.pixels(shown)
        return BatchFeature(batch)

    def encode(
        self, query: str, image: bool, history: History = (), template: str = "chat", answer: str | None = None
    ) -> dict[str, list[int]]:
        """A row as lists: BOS, the image's placeholders, the prompt; then the answer, encoded apart, and EOS."""
        # the image stands behind BOS, whatever turn it belongs to
        placeholders = self.image_tokens if image else 0
        text = prompt.prompt_text(query, history, template)
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
        """Rows of ``encode``, padded on the left: on the right, a short row would go on from its padding."""
        if len({tuple(row) for row in rows}) > 1:
            raise DataError("answer: give one for each row, or for none")
        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}
        return {
            name: torch.tensor([[fill.get(name, 0)] * (width - len(row[name])) + row[name] for row in rows])
            for name in rows[0]
        }

    def pixels(self, pictures: Sequence[Any]) -> torch.Tensor:
        """(N, 3, S, S)."""
        return self.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def apply_chat_template(
        self, conversation: Any, chat_template: str | None = None, tokenize: bool = False, **kwargs: Any
    ) -> Any:
        """Messages as text (BOS and one placeholder an image in front), or with ``tokenize`` as the model's inputs."""
        if not tokenize:
            return super().apply_chat_template(conversation, chat_template=chat_template, tokenize=False, **kwargs)
        many = isinstance(conversation[0], Sequence)
        talks = conversation if many else [conversation]
        rendered = super().apply_chat_template(
            talks, chat_template=chat_template, tokenize=False, add_generation_prompt=True
        )
        images = [[part for message in talk for part in _parts(message) if part["type"] == "image"] for talk in talks]
        marks = [self.tokenizer.bos_token + self.tokenizer.pad_token * len(shown) for shown in images]
        texts = [text.removeprefix(mark) for text, mark in zip(rendered, marks, strict=True)]
        batch = self(text=texts, images=[[_shown(i) for i in shown] for shown in images], template="base")
        return batch if kwargs.get("return_dict", True) else batch["input_ids"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """From what ``save_pretrained`` wrote, or from a published folder, whose config.json gives the image's size.

        Raises CheckpointError where the tokenizer's or the config's file is missing.
        """
        source = str(pretrained_model_name_or_path)
        hub = {name: kwargs[name] for name in _HUB if kwargs.get(name) is not None}
        saved, _ = cls.get_processor_dict(source, **hub)
        config = _config(source, hub)
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source, trust_remote_code=False, **hub)
        except (OSError, ValueError, TypeError) as e:
            reason = " ".join(str(e).split())[:200]
            raise CheckpointError(f"{source}: no tokenizer.json that can be opened ({reason})") from None
        _align(tokenizer, config)
        vision = config.get("vision_config", {})
        patch_size = saved.get("patch_size", vision.get("patch_size", 14))
        if isinstance(options := saved.get("image_processor"), dict):
            image_processor = CLIPImageProcessorPil(
                **{k: v for k, v in options.items() if k not in ("image_processor_type", "processor_class")}
            )
        elif "image_size" in vision:
            image_processor = square_image_processor(vision["image_size"])
        else:
            raise CheckpointError(f"{source}: no processor_config.json and no config.json to say how large images are")
        return cls(image_processor, tokenizer, patch_size=patch_size, chat_template=saved.get("chat_template"))


def _config(source: str, hub: dict[str, Any]) -> dict[str, Any]:
    try:
        return PreTrainedConfig.get_config_dict(source, **hub)[0]
    except OSError:  # a processor can be saved without a model
        return {}


def _align(tokenizer: Any, config: Mapping[str, Any]) -> None:
    """The special tokens of config.json: the published tokenizer names no padding token."""
    for name in ("bos", "eos", "pad"):
        wanted = config.get(f"{name}_token_id")
        if isinstance(wanted, int) and wanted != getattr(tokenizer, f"{name}_token_id"):
            token = tokenizer.convert_ids_to_tokens(wanted)
            if token is None:
                raise CheckpointError(f"config.json: {name}_token_id = {wanted} is not in the tokenizer")
            setattr(tokenizer, f"{name}_token", token)


def _rows(value: Any, single: bool, count: int, name: str) -> list[Any]:
    if single:
        return [value]
    rows = [None] * count if value is None else list(value)
    if len(rows) != count:
        raise DataError(f"{name}: {len(rows)} entries for {count} texts; give one each, None where there is none")
    return rows


def _only(images: Any) -> Any:
    """The image of a row, or None."""
    if isinstance(images, (list, tuple)):
        if len(images) > 1:
            raise DataError(f"{len(images)} images in a row, and CogVLM2 takes one; join them to one picture")
        return images[0] if images else None
    return images


def _opened(image: Any) -> Any:
    if isinstance(image, (str, Path)):
        return load_image(str(image))
    return image.convert("RGB") if isinstance(image, Image) else image


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [] if isinstance(message["content"], str) else list(message["content"])


def _shown(part: Mapping[str, Any]) -> Any:
    for key in ("image", "path", "url"):
        if key in part:
            return part[key]
    raise DataError("an image part of a message must hold the picture under 'image' or its file under 'path'")
