"""What every family shares: a decoder that reads a prompt, images included, and goes on writing.

A family says how a prompt becomes ids, how a picture becomes tensors, and which extra tensors its model wants a token;
encoding, batching and sampling are here, once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from mathse.data.images import load_image
from mathse.errors import DataError
from mathse.models.base import IGNORED, Backbone, Completion, Encoded
from mathse.models.cache import BoundedCache
from mathse.models.row import Row

# A pattern for ``lora_scopes``: the matrices of a decoder that transformers builds like Llama's.
DECODER_SCOPE = r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
Features = dict[str, Tensor]  # of one image: tensors whose first dimensions add up over images


class CausalBackbone(Backbone):
    """The hooks of a family: ``prompt_ids``, ``prepare`` and ``extras``; the rest is shared."""

    sampling_extras: ClassVar[tuple[str, ...]] = ()  # those of ``extras`` that ``generate`` takes too

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer
        self.end_id: int = self.tokenizer.eos_token_id  # what a response ends with
        self.end_ids: list[int] = [self.end_id]  # what sampling stops at
        self.pad_id: int = self.tokenizer.pad_token_id
        self.never_sampled: list[int] = []  # an image token in a path would need an image
        self._images: BoundedCache[Features] = BoundedCache(32 * 2**20)

    # --- what a family says ---

    @abstractmethod
    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        """The token ids of each row's prompt, its images expanded to their tokens."""

    @abstractmethod
    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        """The model's tensors of each picture."""

    def extras(self, prompt: list[int], response: list[int], features: Features) -> dict[str, Tensor]:
        """Per-token tensors (..., T) that the model wants beside the ids; they are padded with 0."""
        return {}

    # --- encoding ---

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        for row in rows:
            if (reason := self.too_many(row)) is not None:
                raise DataError(reason)
        # the images of all rows in one call of the image processor
        features = iter(self._features_of([image for row in rows for image in row["images"]]))
        images = [[next(features) for _ in row["images"]] for row in rows]
        prompts = self.prompt_ids(rows, images)
        # A response is encoded apart from its prompt: no token may span the two, since sampling starts between them.
        answers = [self.defuse(row["response"]) for row in rows if "response" in row]
        responses = iter(self.tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else [])
        encoded = []
        for row, row_images, prompt in zip(rows, images, prompts, strict=True):
            response = [*next(responses), self.end_id] if "response" in row else []
            joined = join(row_images)
            encoded.append(Encoded(prompt, response, joined, self.extras(prompt, response, joined)))
        return encoded

    def defuse(self, text: str) -> str:
        """User text in which no special token of the tokenizer stands any more."""
        # "<|im_end|>" in a problem becomes "< |im_end|>", which is ordinary text; else a problem could end its own turn
        for token in self.tokenizer.all_special_tokens:
            if token in text:
                text = text.replace(token, token[:1] + " " + token[1:])
        return text

    def _features_of(self, images: Sequence[str | Path | Image]) -> list[Features]:
        """The tensors of each image, in order; those of files are kept in a bounded cache."""
        missing = [key for key in dict.fromkeys(map(_key, images)) if key not in self._images]
        new: dict[Hashable, Features] = {}
        if missing:
            opened = {_key(image): image for image in images}
            new = dict(zip(missing, self.prepare([self._open(opened[key]) for key in missing]), strict=True))
        features = [new[key] if key in new else self._images[key] for key in map(_key, images)]
        for key, value in new.items():
            if isinstance(key, str):  # a file; an image in memory may be another one by the next call
                copies = {name: tensor.clone() for name, tensor in value.items()}  # no view that holds its batch
                self._images.put(key, copies, sum(tensor.nbytes for tensor in copies.values()))
        return features

    def _open(self, image: str | Path | Image) -> Image:
        picture = load_image(str(image)) if isinstance(image, (str, Path)) else image
        if (reason := self.misshapen(image, *picture.size)) is not None:
            raise DataError(reason)
        return picture

    # --- batches ---

    def pad(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        labels = [torch.tensor([IGNORED] * len(e.prompt) + e.response) for e in encoded]  # Eq. 1: the response alone
        # Right-padded and causal: no position sees the padding, so a fit needs no mask.
        return {  # (B, T of the longest row), extras (..., B, T), features image-major over the batch
            "input_ids": _padded([torch.tensor(e.ids) for e in encoded], self.pad_id),
            "labels": _padded(labels, IGNORED),
            **{name: _padded([e.extras[name] for e in encoded], 0) for name in encoded[0].extras},
            **join([e.features for e in encoded if e.features]),
        }

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        encoded = self.encode(rows)
        return {**self.pad(encoded), "attention_mask": _padded([torch.ones(len(e.ids)).long() for e in encoded], 0)}

    def _left_padded(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        """Prompts, as ``generate`` takes them: it goes on behind the last position, so a row's prompt ends there."""
        extras = {
            name: _padded([e.extras[name][..., : len(e.prompt)] for e in encoded], 0, left=True)
            for name in self.sampling_extras
        }
        return {
            "input_ids": _padded([torch.tensor(e.prompt) for e in encoded], self.pad_id, left=True),
            "attention_mask": _padded([torch.ones(len(e.prompt)).long() for e in encoded], 0, left=True),
            **extras,
            **join([e.features for e in encoded if e.features]),
        }

    # --- sampling ---

    @torch.inference_mode()
    def complete(
        self,
        rows: Sequence[Row],
        *,
        n: int = 1,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        watch: Sequence[int] = (),
        begun: Sequence[int] = (),
    ) -> list[list[Completion]]:
        prompts = self.encode(rows)
        if begun:
            longer = [[*encoded.prompt, *begun] for encoded in prompts]
            prompts = [
                replace(encoded, prompt=ids, extras=self.extras(ids, [], encoded.features))
                for encoded, ids in zip(prompts, longer, strict=True)
            ]
        batch = {k: v.to(self.device) for k, v in self._left_padded(prompts).items()}
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:  # always explicit: a checkpoint's own defaults may make n samples identical
            sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        watcher = Watch(watch)
        was_training = self.model.training
        self.model.eval()
        # whatever else draws in this process goes on as if nothing had been sampled here
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            out = self.model.generate(
                **batch,
                **sampling,
                num_return_sequences=n,
                max_new_tokens=max_new_tokens,
                suppress_tokens=self.never_sampled or None,
                eos_token_id=self.end_ids,
                pad_token_id=self.pad_id,
                logits_processor=LogitsProcessorList([watcher] if watch else []),
                use_cache=True,
            )
        self.model.train(was_training)
        return self._completions(out[:, batch["input_ids"].shape[1] - len(begun) :].cpu(), watcher, n)

    def _completions(self, sampled: Tensor, watcher: Watch, n: int) -> list[list[Completion]]:
        """``sampled`` (B * n, T) as n completions a row, each cut behind its first end token."""
        ended = torch.isin(sampled, torch.tensor(self.end_ids)).long()
        lengths = torch.where(ended.any(1), ended.argmax(1) + 1, sampled.shape[1]).tolist()
        ids = [row[:length].tolist() for row, length in zip(sampled, lengths, strict=True)]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        watched = torch.stack(watcher.steps, dim=1).cpu() if watcher.steps else None  # (B * n, steps, W)
        begun = sampled.shape[1] - (watched.shape[1] if watched is not None else 0)
        flat = [
            Completion(text, i, watched[k, : len(i) - begun] if watched is not None else None)
            for k, (text, i) in enumerate(zip(texts, ids, strict=True))
        ]
        return [flat[k : k + n] for k in range(0, len(flat), n)]

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


class ChatBackbone(CausalBackbone):
    """Families whose processor has a chat template with an image placeholder in it."""

    @abstractmethod
    def expand(self, features: Features) -> str:
        """What the placeholder of one image becomes: its tokens, written out."""

    def render(self, row: Row) -> str:
        """The prompt text of a row, with the chat template; special tokens in user text lose their meaning."""
        turns = [*row.get("history", ()), (row["question"], None)]
        messages: list[dict[str, Any]] = []
        for question, answer in turns:
            images = [] if messages else [{"type": "image"} for _ in row["images"]]  # of the first turn
            messages.append({"role": "user", "content": [*images, {"type": "text", "text": self.defuse(question)}]})
            if answer is not None:
                messages.append({"role": "assistant", "content": self.defuse(answer)})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        texts = []
        for row, row_images in zip(rows, images, strict=True):
            # one placeholder an image; user text holds none, see ``defuse``
            pieces = self.render(row).split(self.processor.image_token)
            expanded = [*map(self.expand, row_images), ""]
            texts.append("".join(piece + image for piece, image in zip(pieces, expanded, strict=True)))
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]


class Watch(LogitsProcessor):
    """Keeps the log-probabilities of a few tokens at each sampling step, and changes nothing."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        exact = scores.float()  # (B * n, vocabulary), before temperature and truncation
        self.steps.append(exact[:, self.tokens] - exact.logsumexp(-1, keepdim=True))
        return scores


def join(features: Sequence[Features]) -> Features:
    """The tensors of several images as those of one batch."""
    if len(features) == 1:  # not copied
        return dict(features[0])
    return {name: torch.cat([f[name] for f in features]) for name in (features[0] if features else ())}


def _padded(tensors: Sequence[Tensor], value: int, left: bool = False) -> Tensor:
    """(..., T) tensors of several rows as (..., B, T of the longest)."""
    width = max(t.shape[-1] for t in tensors)
    missing = [(width - t.shape[-1], 0) if left else (0, width - t.shape[-1]) for t in tensors]
    return torch.stack([F.pad(t, m, value=value) for t, m in zip(tensors, missing, strict=True)], dim=-2)


def _key(image: str | Path | Image) -> Hashable:
    return str(image) if isinstance(image, (str, Path)) else id(image)
