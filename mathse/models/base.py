"""The contract of a model family: a vision-language model, its processor, and one path from a prompt to token ids.

Training, sampling, judging and evaluation all call ``Backbone.encode``, so a prompt has the same ids in all of them. A
family defines how a prompt becomes ids, how a picture becomes tensors, and which extra tensors its model takes for each
token. Encoding, batching and sampling are shared and are in this file.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
import transformers
from PIL.Image import Image
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mathse.data.images import image_size, load_image
from mathse.errors import ConfigError, DataError
from mathse.models.cache import BoundedCache
from mathse.models.decoding import (
    CACHE_NAMES,
    Draws,
    GoOn,
    Piece,
    ReadRows,
    TokenWatch,
    Written,
    read_prompts,
    write,
    write_where,
)
from mathse.models.lower_layers import compute_last_states
from mathse.models.marks import TokenizerMarks
from mathse.models.operations import Amounts, count_prompt
from mathse.models.row import Row, with_pictures_first
from mathse.types import PromptStyle

if TYPE_CHECKING:
    from mathse.models.tower_features import TowerFeatures

IGNORED = -100  # label of positions without loss
IMAGE_CACHE_BYTES = 256 * 2**20  # reading and preparing a picture again takes longer than keeping it
Features = dict[str, Tensor]  # tensors of an image; tensors of several images are concatenated in the first dimension
TOWER_FEATURES = "tower_features"  # key in Features: the output of the frozen tower, which replaces the pixels
BYTES_PER_TOKEN_ID = 64  # two Python lists hold each id: a pointer and an int object in each

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """A row as token ids: the prompt (images expanded), then the response with its end token."""

    prompt: list[int]
    response: list[int]
    features: dict[str, Tensor]  # per-image tensors (pixels, grids), image-major
    extras: dict[str, Tensor]  # per-token tensors (..., len(prompt) + len(response)) that the model takes in training

    @property
    def nbytes(self) -> int:
        """Approximate memory of the row in bytes."""
        tensors = (*self.features.values(), *self.extras.values())
        return BYTES_PER_TOKEN_ID * len(self.ids) + sum(tensor.nbytes for tensor in tensors)

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.response

    def with_pixels_in(self, dtype: torch.dtype) -> Encoded:
        """Return a copy with the pictures' floating-point tensors in ``dtype``; integer tensors (grids) keep theirs."""
        features = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.features.items()}
        return replace(self, features=features)


class Length(NamedTuple):
    """The number of tokens of a row as the model reads it."""

    prompt: int  # images expanded
    response: int  # end token included

    @property
    def total(self) -> int:
        return self.prompt + self.response


@dataclass(frozen=True)
class Completion:
    """A sampled response: text, token ids (with the end token if it was sampled), log-probabilities of watched tokens.

    If the response had a given beginning, text and ids include it; ``watched`` starts at the first sampled token.
    """

    text: str
    ids: list[int]
    watched: Tensor | None = None  # (sampled tokens, watched tokens): log-probabilities at each step
    prompt: Amounts = Amounts()  # the prompt that was read before the response, once for all samples of a row
    given: int = 0  # number of ids after the prompt that were read, not sampled
    sampled: int = 0  # number of ids that the model sampled
    log_probs: list[float] | None = None  # of each sampled id, under the distribution that it was sampled from


class Backbone(ABC):
    """A model family around a transformers model and its processor.

    A family implements ``prompt_ids``, ``prepare``, ``extras`` and the number of tokens of an image. ``tower`` and
    ``connector`` are needed only for stored features of a frozen tower. Everything else is shared.
    """

    family: ClassVar[str]
    prompt_style: PromptStyle = "full"
    max_images: int | None = None  # per row; None: no limit
    pictures_first: bool = False  # the model reads all pictures before the text, wherever the question marks them
    parts: Mapping[str, str] = {}  # "tower", "connector": patterns of parameter names; see mathse.models.parts
    lora_scopes: Mapping[str, str] = {}  # scope -> pattern of the full names of the modules that get an adapter
    sampling_extras: tuple[str, ...] = ()  # names in ``extras`` that ``generate`` takes too
    sequences_at_once: int | None = None  # the largest sampling batch that fits the memory; None: none was too large
    adapter: Any = None  # a PeftModel around ``model``; see mathse.models.adapters
    adapter_folder: Path | None = None  # the folder of ``adapter``; None: training has just created it
    frozen_layers: int = 0  # lower layers of the language model that training freezes; see mathse.models.lower_layers
    tower_features: TowerFeatures | None = None  # stored features of the frozen tower

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.tokenizer = getattr(processor, "tokenizer", processor)  # a language model's processor is its tokenizer
        self.end_id: int = self.tokenizer.eos_token_id  # the last token of a response
        self.end_ids: list[int] = [self.end_id]  # sampling stops at any of them
        self.pad_id: int = self.tokenizer.pad_token_id
        self.never_sampled: list[int] = []  # an image token in a path would need an image
        self._images: BoundedCache[Features] = BoundedCache(IMAGE_CACHE_BYTES)
        self._warned_pictures_first = False

    @classmethod
    def bare(cls, model: Any) -> Self:
        """Return this family around a model without a processor.

        Its parameters can be counted and prepared for training; it cannot encode a row.
        """
        backbone = cls.__new__(cls)
        backbone.model = model
        return backbone

    # --- defined by each family ---

    @abstractmethod
    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        """Return the token ids of each row's prompt, with the tokens of its images."""

    @abstractmethod
    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        """Return the model's input tensors of each picture."""

    def extras(self, prompt: list[int], response: list[int], features: Features) -> dict[str, Tensor]:
        """Return the per-token tensors (..., T) that the model takes beside the ids. Batches pad them with 0."""
        return {}

    @abstractmethod
    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        """Return the number of tokens of an image of this size in pixels.

        Args:
            trained: True for a row of training data, False for a row to answer.
        """

    @property
    @abstractmethod
    def max_image_tokens(self) -> int:
        """The largest number of tokens of an image."""

    @contextmanager
    def preparing(self, trained: bool) -> Iterator[None]:
        """Prepare images for training (``trained``) or for answering within the context, if the family differs."""
        yield

    def preprocessing(self) -> Mapping[str, Any]:
        """Return everything beside an image's content that determines the output of ``prepare``."""
        images = self.processor.image_processor
        return {
            "family": self.family,
            "class": type(images).__name__,
            "settings": images.to_dict(),
            "transformers": transformers.__version__,
        }

    def tower(self, image: Features) -> Tensor:
        """Return the connector's input (units, ..., C) for one prepared image."""
        raise NotImplementedError(f"backbone={self.family} has no tower with features that can be stored")

    def connector(self, seen: Tensor) -> Tensor:
        """Return the decoder's input for the output of ``tower`` for one or several images."""
        raise NotImplementedError(f"backbone={self.family} has no connector that can run by itself")

    def pooled(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        """Return the output of ``connector`` for a batch in the form that the model takes."""
        return tokens

    def make_encoder_output(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        """Return the output of the vision encoder for a batch, made from the output of ``connector``."""
        return BaseModelOutputWithPooling(pooler_output=self.pooled(tokens, batch))

    def findings(self) -> list[str]:
        """Return sentences about properties that were derived from the model; shown before the first training run."""
        return []

    def without_images(self) -> Tensor | None:
        """Return the substitute for the output of ``tower`` in a training batch of text only; None: no substitute."""
        return None

    # --- encoding ---

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Return token ids and image features of each row.

        Raises DataError if an image cannot be read or a row has too many images.
        """
        for row in rows:
            if (reason := self.too_many(row)) is not None:
                raise DataError(reason)
        # One call of the image processor for the images of all rows.
        pictures: list[str | Path | Image] = []
        for row in rows:
            pictures += row["images"]
        features = iter(self._features_of(pictures))
        images = [[next(features) for _ in row["images"]] for row in rows]
        prompts = self.prompt_ids(rows, images)
        # A given beginning of a response follows the prompt, encoded separately.
        beginnings = [row.get("begun", "") for row in rows]
        if any(beginnings):
            texts = [self._marks_of_replies.defuse(text) for text in beginnings]
            starts = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            prompts = [[*prompt, *start] for prompt, start in zip(prompts, starts, strict=True)]
        encoded = []
        for row_images, prompt, response in zip(images, prompts, self._response_ids(rows), strict=True):
            joined = join(row_images)
            encoded.append(Encoded(prompt, response, joined, self.extras(prompt, response, joined)))
        return encoded

    def _response_ids(self, rows: Sequence[Row]) -> list[list[int]]:
        """Return each row's response with its end token, or an empty list for a row without a response."""
        # Prompt and response are encoded separately: a token across both would not be sampled, since sampling starts
        # at the boundary.
        answers = [self._marks_of_replies.defuse(row["response"]) for row in rows if "response" in row]
        responses = iter(self.tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else [])
        # A sampled response keeps its ids: the ids of its text may be others.
        return [
            [*next(responses), self.end_id] if "response" in row else list(row.get("response_ids", ())) for row in rows
        ]

    def lengths(self, rows: Sequence[Row]) -> list[Length]:
        """Return the number of tokens of each row."""
        prompts, responses = self.prompt_lengths(rows), self._response_ids(rows)
        return [Length(prompt, len(response)) for prompt, response in zip(prompts, responses, strict=True)]

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        """Return ``len(encoded.prompt)`` of each row. A family that knows it without the pixels overrides this."""
        return [len(encoded.prompt) for encoded in self.encode(rows)]

    def encoder(self) -> Self:
        """Return a copy without the model, for another process.

        It encodes rows, counts their tokens and pads them. This needs the model's config and none of its weights.
        """
        encoder = copy(self)
        encoder.model, encoder.adapter = SimpleNamespace(config=self.model.config), None
        return encoder

    def as_read(self, row: Row) -> Row:
        """Return the row with its pictures at the places where this model reads them."""
        if not self.pictures_first or not row.get("marked"):
            return row
        if not self._warned_pictures_first:
            self._warned_pictures_first = True
            _logger.warning(
                "backbone=%s reads all pictures before the text: the places that questions mark with <image> are lost",
                self.family,
            )
        return with_pictures_first(row)

    @cached_property
    def marks(self) -> TokenizerMarks:
        """The marks of the tokenizer, and the placeholders that the processor replaces, which need not be tokens."""
        placeholders = (getattr(self.processor, name, None) for name in ("image_token", "video_token", "boi_token"))
        return TokenizerMarks.of(self.tokenizer, map(str, filter(None, placeholders)))

    @cached_property
    def _marks_of_replies(self) -> TokenizerMarks:
        """The marks that are removed from sampled texts and from responses: special tokens, marks of turns and images.

        A reasoning model writes other marks itself ("<think>"). They stay, and it is trained on them.
        """
        if not self.marks.others:
            return self.marks
        # The marks of a turn are the tokens that an additional empty turn adds to a prompt.
        question = Row(question="", images=())
        single, double = self.prompt_ids([question, Row(**question, history=[("", "")])], [(), ()])
        turn_marks = Counter(double) - Counter(single)
        return self.marks.without_others(but={*turn_marks, *self.never_sampled, *self.end_ids})

    def defuse(self, text: str) -> str:
        """Return the text without marks, for a prompt: with a mark, a problem could end its own turn."""
        return self.marks.defuse(text)

    # Training reads the cache that sampling has filled, and autograd refuses inference tensors.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _features_of(self, images: Sequence[str | Path | Image]) -> list[Features]:
        """Return the tensors of each image, in order. A bounded cache keeps the tensors of image files."""
        if self.tower_features is not None and self.tower_features.mode != "off":
            stored = self.tower_features.of(self, images)
            if stored is not None:
                return stored
        missing = [key for key in dict.fromkeys(map(_image_key, images)) if key not in self._images]
        new: dict[Hashable, Features] = {}
        if missing:
            image_of = {_image_key(image): image for image in images}
            new = dict(zip(missing, self.prepare([self.open_picture(image_of[key]) for key in missing]), strict=True))
        features = [new[key] if key in new else self._images[key] for key in map(_image_key, images)]
        for key, value in new.items():
            # Only files: the id of an image in memory may belong to another image at the next call.
            if isinstance(key, str):
                copies = {name: tensor.clone() for name, tensor in value.items()}  # a view would hold the whole batch
                self._images.put(key, copies, sum(tensor.nbytes for tensor in copies.values()))
        return features

    def open_picture(self, image: str | Path | Image) -> Image:
        """Return the picture. Raises DataError if it cannot be read or if the family refuses its shape."""
        picture = load_image(str(image)) if isinstance(image, (str, Path)) else image
        if (reason := self.misshapen(image, *picture.size)) is not None:
            raise DataError(reason)
        return picture

    # --- batches ---

    def pad(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        """Return a right-padded training batch for ``model(**batch)``; the labels are -100 outside the response."""
        labels = [torch.tensor([IGNORED] * len(e.prompt) + e.response) for e in encoded]  # Eq. 1: only the response
        # No mask: with padding on the right and causal attention no position attends to the padding.
        return {  # (B, T of the longest row), extras (..., B, T), features image-major over the batch
            "input_ids": _pad_and_stack([torch.tensor(e.ids) for e in encoded], self.pad_id),
            "labels": _pad_and_stack(labels, IGNORED),
            **{name: _pad_and_stack([e.extras[name] for e in encoded], 0) for name in encoded[0].extras},
            **join([e.features for e in encoded if e.features]),
        }

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return rows with responses as a training batch (see ``pad``) with its mask (B, T)."""
        encoded = self.encode(rows)
        mask = _pad_and_stack([torch.ones(len(e.ids)).long() for e in encoded], 0)
        return {**self.pad(encoded), "attention_mask": mask}

    def _make_pieces(self, encoded: Sequence[Encoded], begun: Sequence[int] = ()) -> list[Piece]:
        """Return each row's prompt with the ids ``begun`` after it, in the form that sampling reads."""
        pieces = []
        for row in encoded:
            ids = [*row.prompt, *begun]
            extras = self.extras(ids, [], row.features)
            positions = extras.get("position_ids")
            per_token = {name: extras[name] for name in self.sampling_extras}
            per_token["position_ids"] = self.positions(ids, row.features) if positions is None else positions
            pieces.append(Piece(ids, per_token, row.features))
        return pieces

    def _pad_left(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Return pieces as a left-padded batch: sampling continues at the last position, which each row must fill."""
        batch = {
            "input_ids": _pad_and_stack([torch.tensor(p.ids) for p in pieces], self.pad_id, left=True),
            "attention_mask": _pad_and_stack([torch.ones(len(p.ids)).long() for p in pieces], 0, left=True),
            **{name: _pad_and_stack([p.per_token[name] for p in pieces], 0, left=True) for name in pieces[0].per_token},
            **join([p.features for p in pieces if p.features]),
        }
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def answer_states(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the decoder's states (N, h) and the targets (N,) of the N response positions of a batch.

        Prompts, which are most of the positions, need no logits: Eq. 1 sums over the response.
        """
        # Position t predicts token t + 1: the states lose their last position and the labels their first.
        inputs = self.with_features({k: v for k, v in batch.items() if k != "labels"})
        hidden = compute_last_states(self, inputs)[:, :-1]  # (B, T - 1, h)
        targets = batch["labels"][:, 1:]
        answered = targets != IGNORED  # (B, T - 1)
        return hidden[answered], targets[answered]

    def answer_logits(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (N, vocabulary) and targets (N,) of the N response positions of a batch, all at once.

        The loss of a training run works in chunks instead: ``mathse.training.loss``.
        """
        states, targets = self.answer_states(batch)
        return self.head(states), targets

    def with_features(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """Return a batch in the form that the model takes, with stored features of the frozen tower if it has them."""
        features, stored = self.tower_features, batch.get(TOWER_FEATURES)
        if features is None:
            return batch
        if stored is None and features.mode == "read":  # training
            stored = self.without_images()
        if stored is None:
            return batch
        tokens = stored
        if "connector" not in features.parts:  # the connector is trained
            # The dtype of the tower's output for pixels; in training, autocast chooses the dtype of the products.
            tokens = self.connector(stored.to(self.model.dtype))
        rest = {name: tensor for name, tensor in batch.items() if name != TOWER_FEATURES}
        return {**rest, "mm_encoder_outputs": {"image": self.make_encoder_output(tokens, batch)}}

    # --- sampling ---

    def positions(self, ids: list[int], features: Features) -> Tensor:
        """Return the positions (..., T) of a row's tokens in sampling."""
        return torch.arange(len(ids))

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
        go_on: GoOn | None = None,
        with_log_probs: bool = False,
    ) -> list[list[Completion]]:
        """Sample n responses for each row, reading each prompt once. The draws depend only on ``seed``.

        A batch that does not fit the memory is sampled in parts with the same draws: the texts are equal up to
        rounding. Later batches start with the size that did fit.

        Args:
            n: responses for each row.
            temperature: 0: greedy decoding.
            watch: token ids; each ``Completion.watched`` has their log-probabilities.
            begun: ids at the beginning of every response; ``max_new_tokens`` does not count them.
            go_on: (only n = 1) gets the log-probabilities (W,) of the W tokens of ``watch`` after ``begun``. It returns
                ids with which the response continues, or None: then the response is its most likely next token.
                ``watched`` has only these log-probabilities.
            with_log_probs: return the log-probability of each sampled token too.

        Returns:
            n completions for each row.

        Raises ConfigError if a single sequence does not fit the memory.
        """
        features = self.tower_features
        with nullcontext() if features is None else features.use("fill"):
            encoded = self.encode(rows)
        pieces = self._make_pieces(encoded, begun)
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:  # always explicit: a checkpoint's own defaults may make n samples identical
            sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        images = [tuple(map(_image_key, row["images"])) for row in rows]
        total, done = len(rows) * n, 0
        written: list[Written] = []
        was_training = self.model.training
        self.model.eval()
        try:
            while done < total:
                count = min(self.sequences_at_once or total, total - done)
                part = range(done, done + count)
                try:
                    draws = Draws(total, torch.Generator(self.device).manual_seed(seed)) if temperature > 0 else None
                    watcher = TokenWatch(watch) if watch else None
                    settings = {"max_new_tokens": max_new_tokens, **sampling}
                    written += self._write(pieces, images, part, n, watcher, draws, go_on, settings, with_log_probs)
                    done += count
                    continue
                except torch.OutOfMemoryError as e:
                    if count == 1:
                        longest = max(len(piece.ids) for piece in pieces)
                        raise ConfigError(
                            f"a single sequence does not fit the memory of {self.device}: up to {longest:,} tokens of "
                            f"prompt and {max_new_tokens:,} new ones; lower max_new_tokens, or let pictures take fewer "
                            "tokens (backbone.max_pixels, backbone.eval_tiles)"
                        ) from e
                # Outside of the except block: its traceback holds the tensors that did not fit.
                self.sequences_at_once = (count + 1) // 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                _logger.warning(
                    "out of memory at %d sequences: this model samples at most %d at a time from now on. The draws "
                    "belong to the batch, so the texts stay equal up to rounding; a smaller batch_size avoids the "
                    "failed attempt",
                    count,
                    self.sequences_at_once,
                )
        finally:
            self.model.train(was_training)
        texts = self.texts([[*begun, *response.ids] for response in written])
        prompts = [count_prompt(len(piece.ids), piece.features, self.patch_size) for piece in pieces]
        completions = []
        for k, (text, response) in enumerate(zip(texts, written, strict=True)):
            ids = [*begun, *response.ids]
            sampled = len(response.ids) - response.given
            completions.append(
                Completion(text, ids, response.watched, prompts[k // n], response.given, sampled, response.log_probs)
            )
        return [completions[k : k + n] for k in range(0, len(completions), n)]

    def _write(
        self,
        pieces: Sequence[Piece],
        images: Sequence[Hashable],
        part: range,
        n: int,
        watch: TokenWatch | None,
        draws: Draws | None,
        go_on: GoOn | None,
        settings: Mapping[str, Any],
        with_log_probs: bool = False,
    ) -> list[Written]:
        """Sample the sequences ``part`` of a batch with n sequences for each of ``pieces``.

        Args:
            images: identifies the images of each piece; equal images can be read once.
            settings: arguments of transformers' ``generate``.
        """
        used = slice(part.start // n, (part.stop - 1) // n + 1)  # the prompts of this part
        prompts = pieces[used]
        end_ids = torch.tensor(self.end_ids, device=self.device)
        sequences = torch.arange(part.start, part.stop, device=self.device)

        def loop(model: Any, input_ids: Tensor, logits_processor: Any, **prepared: Any) -> list[Written]:
            cache = {name: prepared[name] for name in CACHE_NAMES if name in prepared}
            rows = ReadRows(model, cache, lambda pieces: self.with_features(self._pad_left(pieces)))
            logits = read_prompts(rows, prompts, images[used], self.never_sampled)
            write_on = partial(
                write,
                rows,
                process=logits_processor,
                draws=draws,
                end_ids=end_ids,
                max_new_tokens=settings["max_new_tokens"],
                with_log_probs=with_log_probs,
            )
            if go_on is not None and watch is not None:
                likeliest = logits_processor(input_ids, logits).argmax(-1)
                return write_where(go_on, rows, prompts, likeliest, watch, input_ids, write_on)
            if n > 1:
                prompt_of = sequences // n - used.start  # (sequences of this part,)
                rows.select(prompt_of)
                logits, input_ids = logits[prompt_of], input_ids[prompt_of]
            return write_on(logits, input_ids, sequences, watch=watch)

        # ``generate`` makes the cache and the logits processors, some of them from the checkpoint's own settings.
        batch = self._pad_left([replace(prompt, features={}) for prompt in prompts])
        written: list[Written] = self.model.generate(
            **batch,
            **settings,
            custom_generate=loop,
            suppress_tokens=self.never_sampled or None,
            eos_token_id=self.end_ids,
            pad_token_id=self.pad_id,
            logits_processor=LogitsProcessorList([watch] if watch is not None else []),
            use_cache=True,
        )
        return written

    def texts(self, responses: Sequence[list[int]]) -> list[str]:
        """Return the text of each response, without marks."""
        marks = self._marks_of_replies.ids  # includes the special tokens
        responses = [[index for index in ids if index not in marks] for ids in responses]
        return self.tokenizer.batch_decode(responses, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def generate(
        self, rows: Sequence[Row], n: int = 1, max_new_tokens: int = 128, temperature: float = 0.0, **sampling: Any
    ) -> list[list[str]]:
        """Return the texts of ``complete``: a list of n strings for each row."""
        done = self.complete(rows, n=n, max_new_tokens=max_new_tokens, temperature=temperature, **sampling)
        return [[c.text for c in row] for row in done]

    # --- limits of a row ---

    @property
    def context(self) -> int:
        """The model's context length in tokens, for prompt and response together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def refusal(self, row: Row) -> str | None:
        """Return why this family cannot take a row's images, with a remedy; None if it can.

        Reads the headers of image files, not the pixels.
        """
        if (reason := self.too_many(row)) is not None:
            return reason
        sizes = [image.size if isinstance(image, Image) else image_size(str(image)) for image in row["images"]]
        for image, (width, height) in zip(row["images"], sizes, strict=True):
            if (reason := self.misshapen(image, width, height)) is not None:
                return reason
        return None

    def too_many(self, row: Row) -> str | None:
        """Return the ``refusal`` by the number of images."""
        if self.max_images is None or len(row["images"]) <= self.max_images:
            return None
        count = f"{len(row['images'])} images, and backbone={self.family} takes at most {self.max_images} a row"
        return f"{count}; join them into one picture, or choose another backbone"

    def misshapen(self, image: object, width: int, height: int) -> str | None:
        """Return the ``refusal`` by an image's size in pixels."""
        return None

    def too_long(self, row: Row, limit: int) -> str | None:
        """Return why a row of more than ``limit`` tokens (prompt and response) is refused; None if it fits.

        A token has at least one byte, so most rows are known to fit without being encoded.
        """
        texts = [row["question"], row.get("response", "")]
        for turn in row.get("history", ()):
            texts += turn
        turns = 2 + len(row.get("history", ()))
        overhead = self._tokens_around_turn * turns + self.max_image_tokens * len(row["images"])
        if overhead + sum(len(text.encode()) for text in texts) <= limit:
            return None
        count = len(self.encode([row])[0].ids)
        return f"{count:,} tokens, and at most {limit:,} fit; shorten the row, or its images" if count > limit else None

    @cached_property
    def _tokens_around_turn(self) -> int:
        """The number of tokens that the chat template puts around a turn."""
        return len(self.encode([Row(question="", images=())])[0].prompt)

    # --- the model ---

    def save(self, folder: Path) -> None:
        """Write model and processor, so that plain ``from_pretrained`` opens them (weights as safetensors)."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    @property
    def patch_size(self) -> int:
        """The side of a patch of the tower in pixels; 1 for a model without a tower."""
        side = getattr(getattr(self.model.config, "vision_config", None), "patch_size", 1)
        return int(side if isinstance(side, int) else side[0])

    @property
    def decoder(self) -> Any:
        """The model without its head; its output has ``last_hidden_state``."""
        return self.model.model

    @property
    def head(self) -> Any:
        """The matrix that computes logits from the decoder's states."""
        return self.model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> Self:
        self.model.to(device)
        return self


def join(features: Sequence[Features]) -> Features:
    """Concatenate the tensors of several images, by name."""
    if not features:
        return {}
    if len(features) == 1:  # avoids a copy
        return dict(features[0])
    return {name: _pad_and_concatenate([f[name] for f in features]) for name in features[0]}


def _pad_and_concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors in the first dimension; smaller tensors are padded with 0 in the other dimensions.

    The other dimensions differ where an image has a variable number of tiles.
    """
    if len({tensor.shape[1:] for tensor in tensors}) > 1:
        largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        padded = []
        for tensor in tensors:
            pad: list[int] = []  # F.pad counts from the last dimension: (before, after) for each
            for most, size in zip(largest[::-1], tensor.shape[:0:-1], strict=True):
                pad += [0, most - size]
            padded.append(F.pad(tensor, pad))
        tensors = padded
    return torch.cat(list(tensors))


def _pad_and_stack(tensors: Sequence[Tensor], value: int, left: bool = False) -> Tensor:
    """Stack (..., T) tensors of B rows as (..., B, T of the longest), padded with ``value``."""
    width = max(t.shape[-1] for t in tensors)
    missing = [(width - t.shape[-1], 0) if left else (0, width - t.shape[-1]) for t in tensors]
    return torch.stack([F.pad(t, m, value=value) for t, m in zip(tensors, missing, strict=True)], dim=-2)


def _image_key(image: str | Path | Image) -> Hashable:
    return str(image) if isinstance(image, (str, Path)) else id(image)
