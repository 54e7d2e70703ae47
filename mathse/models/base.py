"""The contract of a backbone: a vision-language model, its processor, and the one way a prompt becomes token ids.

Training, sampling, judging and evaluation all go through ``encode``, so a prompt's ids are equal in all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL.Image import Image
from torch import Tensor

from mathse.data.images import image_size
from mathse.models.row import Row
from mathse.types import PromptStyle

IGNORED = -100  # label of positions without loss


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
    """A model family. ``model`` and ``processor`` are transformers objects; nothing outside this package makes them."""

    family: ClassVar[str]
    prompt_style: ClassVar[PromptStyle] = "full"
    max_images: ClassVar[int | None] = None  # a row; None: any number
    parts: ClassVar[Mapping[str, str]] = {}  # tower, connector: patterns of names in memory; see mathse.models.parts
    lora_scopes: ClassVar[Mapping[str, str]] = {}  # by scope, what a module's whole name matches to get an adapter
    adapter: Any = None  # a PeftModel around ``model`` during a fit of method=lora; see mathse.models.adapters
    model: Any
    processor: Any
    tokenizer: Any

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Token ids and image features of each row; a DataError if an image cannot be read."""

    @abstractmethod
    def pad(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        """A right-padded training batch that ``model(**batch)`` takes: labels are -100 off the response."""

    @abstractmethod
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

    @abstractmethod
    def image_tokens(self, width: int, height: int) -> int:
        """How many tokens an image of this size in pixels takes."""

    @property
    @abstractmethod
    def max_image_tokens(self) -> int:
        """The most tokens an image can take."""

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

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write model and processor so that plain ``from_pretrained`` opens them (weights as safetensors)."""

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows with responses -> a training batch, see ``pad``."""
        return self.pad(self.encode(rows))

    def generate(
        self, rows: Sequence[Row], n: int = 1, max_new_tokens: int = 128, temperature: float = 0.0, **sampling: Any
    ) -> list[list[str]]:
        """The texts of ``complete``: a list of n strings a row."""
        done = self.complete(rows, n=n, max_new_tokens=max_new_tokens, temperature=temperature, **sampling)
        return [[c.text for c in row] for row in done]

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

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> Self:
        self.model.to(device)
        return self
