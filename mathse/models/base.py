"""A backbone: a vision-language model, its processor, and the one way a prompt becomes token ids.

Training, sampling, judging and evaluation all go through ``encode``, so a prompt's ids are equal in all of them. A
family says how a prompt becomes ids, how a picture becomes tensors, and which extra tensors its model wants a token;
encoding, batching and sampling are here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from mathse.data.images import image_size, load_image
from mathse.errors import DataError
from mathse.models.cache import BoundedCache
from mathse.models.row import Row
from mathse.types import PromptStyle

IGNORED = -100  # label of positions without loss
IMAGE_CACHE = 256 * 2**20  # bytes; drawing and preparing a picture anew costs more than keeping it
Features = dict[str, Tensor]  # of one image: tensors whose first dimensions add up over images


@dataclass(frozen=True)
class Encoded:
    """A row as token ids: the prompt (images expanded), then the response with its end token."""

    prompt: list[int]
    response: list[int]
    features: dict[str, Tensor]  # per-image tensors (pixels, grids), image-major
    extras: dict[str, Tensor]  # per-token tensors (..., len(prompt) + len(response)) the model takes in a fit

    @property
    def nbytes(self) -> int:
        """About how much memory the row takes."""
        return 64 * len(self.ids) + sum(t.nbytes for t in (*self.features.values(), *self.extras.values()))

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.response


@dataclass(frozen=True)
class Completion:
    """A sampled response: its text, its token ids (end token included if it came) and the odds of watched tokens.

    Of a response that was begun, text and ids hold its beginning too; ``watched`` starts with what was sampled.
    """

    text: str
    ids: list[int]
    watched: Tensor | None = None  # (tokens sampled, watched tokens): log-probabilities at each step


class Backbone(ABC):
    """A model family. ``model`` and ``processor`` are transformers objects; nothing outside this package makes them.

    The hooks of a family: ``prompt_ids``, ``prepare``, ``extras``, and how many tokens an image takes; the rest is
    shared.
    """

    family: ClassVar[str]
    prompt_style: ClassVar[PromptStyle] = "full"
    max_images: ClassVar[int | None] = None  # a row; None: any number
    parts: ClassVar[Mapping[str, str]] = {}  # tower, connector: patterns of names in memory; see mathse.models.parts
    lora_scopes: ClassVar[Mapping[str, str]] = {}  # by scope, what a module's whole name matches to get an adapter
    sampling_extras: ClassVar[tuple[str, ...]] = ()  # those of ``extras`` that ``generate`` takes too
    adapter: Any = None  # a PeftModel around ``model`` during a fit of method=lora; see mathse.models.adapters

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer
        self.end_id: int = self.tokenizer.eos_token_id  # what a response ends with
        self.end_ids: list[int] = [self.end_id]  # what sampling stops at
        self.pad_id: int = self.tokenizer.pad_token_id
        self.never_sampled: list[int] = []  # an image token in a path would need an image
        self._images: BoundedCache[Features] = BoundedCache(IMAGE_CACHE)

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

    @abstractmethod
    def image_tokens(self, width: int, height: int) -> int:
        """How many tokens an image of this size in pixels takes."""

    @property
    @abstractmethod
    def max_image_tokens(self) -> int:
        """The most tokens an image can take."""

    # --- encoding ---

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Token ids and image features of each row. Raises DataError if an image cannot be read."""
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
        """A right-padded training batch that ``model(**batch)`` takes: labels are -100 off the response."""
        labels = [torch.tensor([IGNORED] * len(e.prompt) + e.response) for e in encoded]  # Eq. 1: the response alone
        # Right-padded and causal: no position sees the padding, so a fit needs no mask.
        return {  # (B, T of the longest row), extras (..., B, T), features image-major over the batch
            "input_ids": _padded([torch.tensor(e.ids) for e in encoded], self.pad_id),
            "labels": _padded(labels, IGNORED),
            **{name: _padded([e.extras[name] for e in encoded], 0) for name in encoded[0].extras},
            **join([e.features for e in encoded if e.features]),
        }

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows with responses -> a training batch, see ``pad``, with its mask (B, T)."""
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

    def answer_logits(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, vocabulary) and targets (N,) of the N response positions of a batch.

        The head runs on these positions alone: prompts need no logits, and with a vocabulary of 150,000 they are
        most of the memory (Eq. 1 sums over the response).
        """
        # position t predicts token t + 1, so hidden states lose their last position and labels their first
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]  # (B, T - 1, H)
        targets = batch["labels"][:, 1:]
        answered = targets != IGNORED  # (B, T - 1)
        return self.model.lm_head(hidden[answered]), targets[answered]

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
        """Sample n responses a row (greedily at temperature 0), images encoded once; draws depend on ``seed``.

        ``begun``: ids that every response begins with; ``max_new_tokens`` does not count them.
        """
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

    def generate(
        self, rows: Sequence[Row], n: int = 1, max_new_tokens: int = 128, temperature: float = 0.0, **sampling: Any
    ) -> list[list[str]]:
        """The texts of ``complete``: a list of n strings a row."""
        done = self.complete(rows, n=n, max_new_tokens=max_new_tokens, temperature=temperature, **sampling)
        return [[c.text for c in row] for row in done]

    # --- what a row may be ---

    @property
    def context(self) -> int:
        """Tokens the model was made for, prompt and response together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def refusal(self, row: Row) -> str | None:
        """Why this family cannot take a row's images (with a remedy); None if it can. Reads headers, not pixels."""
        if (reason := self.too_many(row)) is not None:
            return reason
        sizes = [(i, i.size if isinstance(i, Image) else image_size(str(i))) for i in row["images"]]
        reasons = (self.misshapen(image, *size) for image, size in sizes)
        return next((reason for reason in reasons if reason), None)

    def too_many(self, row: Row) -> str | None:
        """``refusal`` by the number of images alone."""
        if self.max_images is None or len(row["images"]) <= self.max_images:
            return None
        count = f"{len(row['images'])} images, and backbone={self.family} takes at most {self.max_images} a row"
        return f"{count}; join them into one picture, or choose another backbone"

    def misshapen(self, image: object, width: int, height: int) -> str | None:
        """``refusal`` by an image's size in pixels alone."""
        return None

    def too_long(self, row: Row, limit: int) -> str | None:
        """What to say of a row of more than ``limit`` tokens, prompt and response together; None if it fits.

        A token is at least a byte, so most rows are known to fit without being encoded.
        """
        texts = [row["question"], row.get("response", ""), *(t for turn in row.get("history", ()) for t in turn)]
        turns = 2 + len(row.get("history", ()))
        frame = self._frame * turns + self.max_image_tokens * len(row["images"])
        if frame + sum(len(text.encode()) for text in texts) <= limit:
            return None
        count = len(self.encode([row])[0].ids)
        return f"{count:,} tokens, and at most {limit:,} fit; shorten the row, or its images" if count > limit else None

    @cached_property
    def _frame(self) -> int:
        """Tokens that the template puts around a turn."""
        return len(self.encode([Row(question="", images=())])[0].prompt)

    # --- the model ---

    def save(self, folder: Path) -> None:
        """Write model and processor so that plain ``from_pretrained`` opens them (weights as safetensors)."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> Self:
        self.model.to(device)
        return self


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
