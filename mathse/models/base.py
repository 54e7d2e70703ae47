"""A backbone: a vision-language model, its processor, and the one way a prompt becomes token ids.

Training, sampling, judging and evaluation all go through ``encode``, so a prompt's ids are equal in all of them. A
family says how a prompt becomes ids, how a picture becomes tensors, and which extra tensors its model wants a token;
encoding, batching and sampling are here, once.
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
    Watch,
    Written,
    read_prompts,
    write,
    write_where,
)
from mathse.models.lower_layers import last_states
from mathse.models.marks import Marks
from mathse.models.operations import Amounts, prompt_amounts
from mathse.models.row import Row, with_pictures_first
from mathse.types import PromptStyle

if TYPE_CHECKING:
    from mathse.models.tower_features import TowerFeatures

IGNORED = -100  # label of positions without loss
IMAGE_CACHE = 256 * 2**20  # bytes; drawing and preparing a picture anew costs more than keeping it
Features = dict[str, Tensor]  # of one image: tensors whose first dimensions add up over images
TOWER_FEATURES = "tower_features"  # among them instead of pixels: what the frozen tower made of the image

_logger = logging.getLogger(__name__)


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

    def with_pixels_in(self, dtype: torch.dtype) -> Encoded:
        """The same with its pictures' numbers in another dtype; what counts (grids) stays whole."""
        features = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.features.items()}
        return replace(self, features=features)


class Length(NamedTuple):
    """Tokens of a row as the model sees it."""

    prompt: int  # images expanded
    response: int  # end token included

    @property
    def total(self) -> int:
        return self.prompt + self.response


@dataclass(frozen=True)
class Completion:
    """A sampled response: its text, its token ids (end token included if it came) and the odds of watched tokens.

    Of a response that was begun, text and ids hold its beginning too; ``watched`` starts with what was sampled.
    """

    text: str
    ids: list[int]
    watched: Tensor | None = None  # (tokens sampled, watched tokens): log-probabilities at each step
    prompt: Amounts = Amounts()  # what was read before it, once for all samples of a row
    given: int = 0  # ids that were read behind that
    sampled: int = 0  # ids that were written by the model


class Backbone(ABC):
    """A model family. ``model`` and ``processor`` are transformers objects; nothing outside this package makes them.

    The hooks of a family: ``prompt_ids``, ``prepare``, ``extras``, how many tokens an image takes, and, where features
    of a frozen tower are to be kept, ``tower`` and ``connector``; the rest is shared.
    """

    family: ClassVar[str]
    prompt_style: PromptStyle = "full"
    max_images: int | None = None  # a row; None: any number
    pictures_first: bool = False  # whether the model reads them before all text, wherever a question marks their places
    parts: Mapping[str, str] = {}  # tower, connector: patterns of names in memory; see mathse.models.parts
    lora_scopes: Mapping[str, str] = {}  # by scope, what a module's whole name matches to get an adapter
    sampling_extras: tuple[str, ...] = ()  # those of ``extras`` that ``generate`` takes too
    sequences_at_once: int | None = None  # that fit the memory in sampling; None: no batch was too large so far
    adapter: Any = None  # a PeftModel around ``model``; see mathse.models.adapters
    adapter_folder: Path | None = None  # where it came from; None: a fit has just put it on
    frozen_layers: int = 0  # of the language model, the lower ones, during a fit; see mathse.models.lower_layers
    tower_features: TowerFeatures | None = None  # kept features of the frozen tower; see mathse.models.tower_features

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.tokenizer = getattr(processor, "tokenizer", processor)  # of text alone, a tokenizer is all there is
        self.end_id: int = self.tokenizer.eos_token_id  # what a response ends with
        self.end_ids: list[int] = [self.end_id]  # what sampling stops at
        self.pad_id: int = self.tokenizer.pad_token_id
        self.never_sampled: list[int] = []  # an image token in a path would need an image
        self._images: BoundedCache[Features] = BoundedCache(IMAGE_CACHE)
        self._said_pictures_first = False

    @classmethod
    def bare(cls, model: Any) -> Self:
        """This family around a model without a processor: its parameters can be counted and prepared for a fit; it
        encodes no row."""
        backbone = cls.__new__(cls)
        backbone.model = model
        return backbone

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
    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        """How many tokens an image of this size in pixels takes, in a row to train on or to answer."""

    @property
    @abstractmethod
    def max_image_tokens(self) -> int:
        """The most tokens an image can take."""

    @contextmanager
    def preparing(self, trained: bool) -> Iterator[None]:
        """Within, images are prepared as those of rows to train on, or to answer, where these differ."""
        yield

    def preprocessing(self) -> Mapping[str, Any]:
        """All that decides, beside an image's content, what ``prepare`` makes of it."""
        images = self.processor.image_processor
        return {
            "family": self.family,
            "class": type(images).__name__,
            "settings": images.to_dict(),
            "transformers": transformers.__version__,
        }

    def tower(self, image: Features) -> Tensor:
        """What the connector reads of one prepared image, (units, ..., C)."""
        raise NotImplementedError(f"backbone={self.family} has no tower whose features can be kept")

    def connector(self, seen: Tensor) -> Tensor:
        """What the decoder reads, from what ``tower`` gives of one or several images."""
        raise NotImplementedError(f"backbone={self.family} has no connector that can be run by itself")

    def pooled(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        """``connector``'s output for a batch, as the model takes it."""
        return tokens

    def encoder_output(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        """``connector``'s output for a batch as the tower's output that the model takes in its place."""
        return BaseModelOutputWithPooling(pooler_output=self.pooled(tokens, batch))

    def findings(self) -> list[str]:
        """What was found out of a model that no file describes, in sentences; shown before the first fit."""
        return []

    def without_images(self) -> Tensor | None:
        """What a batch of text alone has for ``tower``'s output in a fit; None: nothing."""
        return None

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
        begun = [row.get("begun", "") for row in rows]
        if any(begun):
            texts = [self._marks_of_replies.defuse(text) for text in begun]
            starts = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            prompts = [[*prompt, *start] for prompt, start in zip(prompts, starts, strict=True)]
        encoded = []
        for row_images, prompt, response in zip(images, prompts, self._response_ids(rows), strict=True):
            joined = join(row_images)
            encoded.append(Encoded(prompt, response, joined, self.extras(prompt, response, joined)))
        return encoded

    def _response_ids(self, rows: Sequence[Row]) -> list[list[int]]:
        """Each row's response with its end token; empty where it has none."""
        # encoded apart from the prompt: no token may span the two, since sampling starts between them
        answers = [self._marks_of_replies.defuse(row["response"]) for row in rows if "response" in row]
        responses = iter(self.tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else [])
        return [[*next(responses), self.end_id] if "response" in row else [] for row in rows]

    def lengths(self, rows: Sequence[Row]) -> list[Length]:
        """How many tokens each row comes to."""
        prompts, responses = self.prompt_lengths(rows), self._response_ids(rows)
        return [Length(prompt, len(response)) for prompt, response in zip(prompts, responses, strict=True)]

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        """``len(encoded.prompt)`` of each row; a family that knows it without reading pixels says so."""
        return [len(encoded.prompt) for encoded in self.encode(rows)]

    def encoder(self) -> Self:
        """This backbone without its model: it encodes rows, counts their tokens and pads them, which takes the model's
        sizes and none of its weights. So it can be sent to another process."""
        encoder = copy(self)
        encoder.model, encoder.adapter = SimpleNamespace(config=self.model.config), None
        return encoder

    def as_read(self, row: Row) -> Row:
        """The row with its pictures where this model reads them."""
        if not self.pictures_first or not row.get("marked"):
            return row
        if not self._said_pictures_first:
            self._said_pictures_first = True
            _logger.warning(
                "backbone=%s reads pictures before all text: the places that questions mark by <image> are not kept",
                self.family,
            )
        return with_pictures_first(row)

    @cached_property
    def marks(self) -> Marks:
        """The marks of its tokenizer, and the placeholders that its processor replaces, which need not be tokens."""
        placeholders = (getattr(self.processor, name, None) for name in ("image_token", "video_token", "boi_token"))
        return Marks.of(self.tokenizer, map(str, filter(None, placeholders)))

    @cached_property
    def _marks_of_replies(self) -> Marks:
        """Those that neither a sampled text holds nor a row trains on: special tokens, the marks of turns and pictures.

        A reasoning model writes others itself ("<think>"), and is trained on what it wrote.
        """
        if not self.marks.others:
            return self.marks
        question = Row(question="", images=())
        one, two = self.prompt_ids([question, Row(**question, history=[("", "")])], [(), ()])
        return self.marks.without_others(but={*(Counter(two) - Counter(one)), *self.never_sampled, *self.end_ids})

    def defuse(self, text: str) -> str:
        """Text of a prompt without marks: a problem could end its own turn by one."""
        return self.marks.defuse(text)

    @torch.inference_mode(False)  # a fit takes what sampling has left in the cache, and inference tensors train nothing
    @torch.no_grad()
    def _features_of(self, images: Sequence[str | Path | Image]) -> list[Features]:
        """The tensors of each image, in order; those of files are kept in a bounded cache."""
        if self.tower_features is not None and self.tower_features.mode != "off":
            stored = self.tower_features.of(self, images)
            if stored is not None:
                return stored
        missing = [key for key in dict.fromkeys(map(_key, images)) if key not in self._images]
        new: dict[Hashable, Features] = {}
        if missing:
            opened = {_key(image): image for image in images}
            new = dict(zip(missing, self.prepare([self.opened(opened[key]) for key in missing]), strict=True))
        features = [new[key] if key in new else self._images[key] for key in map(_key, images)]
        for key, value in new.items():
            if isinstance(key, str):  # a file; an image in memory may be another one by the next call
                copies = {name: tensor.clone() for name, tensor in value.items()}  # no view that holds its batch
                self._images.put(key, copies, sum(tensor.nbytes for tensor in copies.values()))
        return features

    def opened(self, image: str | Path | Image) -> Image:
        """The picture itself. Raises DataError where it cannot be read, or is of a shape that the family refuses."""
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

    def _pieces(self, encoded: Sequence[Encoded], begun: Sequence[int] = ()) -> list[Piece]:
        """Each row's prompt, and behind it the ids that its response has been begun with, as sampling reads it."""
        pieces = []
        for row in encoded:
            ids = [*row.prompt, *begun]
            extras = self.extras(ids, [], row.features)
            positions = extras.get("position_ids")
            per_token = {name: extras[name] for name in self.sampling_extras}
            per_token["position_ids"] = self.positions(ids, row.features) if positions is None else positions
            pieces.append(Piece(ids, per_token, row.features))
        return pieces

    def _left_padded(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Pieces as a batch to be read before sampling, which goes on behind the last position: so a row ends there."""
        batch = {
            "input_ids": _padded([torch.tensor(p.ids) for p in pieces], self.pad_id, left=True),
            "attention_mask": _padded([torch.ones(len(p.ids)).long() for p in pieces], 0, left=True),
            **{name: _padded([p.per_token[name] for p in pieces], 0, left=True) for name in pieces[0].per_token},
            **join([p.features for p in pieces if p.features]),
        }
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def answer_states(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the decoder hands to the ``head`` (N, h), and the targets (N,), of the N response positions of a
        batch. Prompts need no logits (Eq. 1 sums over the response), and they are most of the positions."""
        # position t predicts token t + 1, so hidden states lose their last position and labels their first
        inputs = self.with_features({k: v for k, v in batch.items() if k != "labels"})
        hidden = last_states(self, inputs)[:, :-1]  # (B, T - 1, h)
        targets = batch["labels"][:, 1:]
        answered = targets != IGNORED  # (B, T - 1)
        return hidden[answered], targets[answered]

    def answer_logits(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, vocabulary) and targets (N,) of the N response positions of a batch, all at once: for a fit's loss
        see ``mathse.training.loss``."""
        states, targets = self.answer_states(batch)
        return self.head(states), targets

    def with_features(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """A batch whose images are features of the frozen tower, as the model takes it; others as they are."""
        features, stored = self.tower_features, batch.get(TOWER_FEATURES)
        if features is None:
            return batch
        if stored is None and features.mode == "read":  # in a fit
            stored = self.without_images()
        if stored is None:
            return batch
        tokens = stored
        if "connector" not in features.parts:  # the connector trains
            # the dtype of pixels as the tower would have handed them on; autocast sees to it in a fit
            tokens = self.connector(stored.to(self.model.dtype))
        rest = {name: tensor for name, tensor in batch.items() if name != TOWER_FEATURES}
        return {**rest, "mm_encoder_outputs": {"image": self.encoder_output(tokens, batch)}}

    # --- sampling ---

    def positions(self, ids: list[int], features: Features) -> Tensor:
        """Positions (..., T) of a row's tokens in sampling."""
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
    ) -> list[list[Completion]]:
        """Sample n responses a row (greedily at temperature 0), each prompt read once; draws depend on ``seed``.

        A batch that does not fit the memory is written in parts, with the same draws: texts are equal to rounding.
        Later batches begin with the size that did fit.

        Args:
            begun: ids that every response begins with; ``max_new_tokens`` does not count them.
            go_on: decides by the log-probabilities (W,) of the tokens of ``watch`` behind ``begun`` (n = 1): ids that
                the response goes on with, or None to end it there, with its likeliest next token. ``watched`` holds
                these log-probabilities alone.
        """
        features = self.tower_features
        with nullcontext() if features is None else features.used("fill"):
            encoded = self.encode(rows)
        pieces = self._pieces(encoded, begun)
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:  # always explicit: a checkpoint's own defaults may make n samples identical
            sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        images = [tuple(map(_key, row["images"])) for row in rows]
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
                    watcher = Watch(watch) if watch else None
                    settings = {"max_new_tokens": max_new_tokens, **sampling}
                    written += self._write(pieces, images, part, n, watcher, draws, go_on, settings)
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
                # behind the except block, whose traceback holds what did not fit
                self.sequences_at_once = (count + 1) // 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                _logger.warning(
                    "out of memory at %d sequences: this model writes %d at a time from here on. Draws are a batch's, "
                    "so texts stay equal to rounding; a smaller batch_size avoids the attempt",
                    count,
                    self.sequences_at_once,
                )
        finally:
            self.model.train(was_training)
        texts = self.texts([[*begun, *response.ids] for response in written])
        prompts = [prompt_amounts(len(piece.ids), piece.features, self.patch_size) for piece in pieces]
        flat = [
            Completion(
                text,
                [*begun, *response.ids],
                response.watched,
                prompts[k // n],
                response.given,
                len(response.ids) - response.given,
            )
            for k, (text, response) in enumerate(zip(texts, written, strict=True))
        ]
        return [flat[k : k + n] for k in range(0, len(flat), n)]

    def _write(
        self,
        pieces: Sequence[Piece],
        images: Sequence[Hashable],
        part: range,
        n: int,
        watch: Watch | None,
        draws: Draws | None,
        go_on: GoOn | None,
        settings: Mapping[str, Any],
    ) -> list[Written]:
        """The sequences ``part`` of a batch, n for each of ``pieces``; ``settings`` are generate's."""
        used = slice(part.start // n, (part.stop - 1) // n + 1)  # the prompts of this part
        prompts = pieces[used]
        end_ids = torch.tensor(self.end_ids, device=self.device)
        sequences = torch.arange(part.start, part.stop, device=self.device)

        def loop(model: Any, input_ids: Tensor, logits_processor: Any, **prepared: Any) -> list[Written]:
            cache = {name: prepared[name] for name in CACHE_NAMES if name in prepared}
            rows = ReadRows(model, cache, lambda pieces: self.with_features(self._left_padded(pieces)))
            logits = read_prompts(rows, prompts, images[used], self.never_sampled)
            write_on = partial(
                write,
                rows,
                process=logits_processor,
                draws=draws,
                end_ids=end_ids,
                max_new_tokens=settings["max_new_tokens"],
            )
            if go_on is not None and watch is not None:
                likeliest = logits_processor(input_ids, logits).argmax(-1)
                return write_where(go_on, rows, prompts, likeliest, watch, input_ids, write_on)
            if n > 1:
                of_prompt = sequences // n - used.start
                rows.select(of_prompt)
                logits, input_ids = logits[of_prompt], input_ids[of_prompt]
            return write_on(logits, input_ids, sequences, watch=watch)

        # generate makes the logits processors, by the checkpoint's settings too, and the cache
        batch = self._left_padded([replace(prompt, features={}) for prompt in prompts])
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
        """The text of each response."""
        marks = self._marks_of_replies.ids  # special tokens are among them
        responses = [[index for index in ids if index not in marks] for ids in responses]
        return self.tokenizer.batch_decode(responses, skip_special_tokens=True, clean_up_tokenization_spaces=False)

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
    def patch_size(self) -> int:
        """The side of a tower's patch in pixels; 1 where there is no tower."""
        side = getattr(getattr(self.model.config, "vision_config", None), "patch_size", 1)
        return int(side if isinstance(side, int) else side[0])

    @property
    def decoder(self) -> Any:
        """The model without its head: it gives ``last_hidden_state``."""
        return self.model.model

    @property
    def head(self) -> Any:
        """The matrix that makes logits of the decoder's states."""
        return self.model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> Self:
        self.model.to(device)
        return self


def join(features: Sequence[Features]) -> Features:
    """The tensors of several images as those of one batch."""
    if len(features) == 1:  # not copied
        return dict(features[0])
    return {name: _stacked([f[name] for f in features]) for name in (features[0] if features else ())}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other; where they differ in another dimension than the first (tiles of a picture, of which
    each has its own number), the smaller ones are padded with 0."""
    if len({tensor.shape[1:] for tensor in tensors}) > 1:
        most = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        missing = [[n for m, s in zip(most[::-1], t.shape[:0:-1], strict=True) for n in (0, m - s)] for t in tensors]
        tensors = [F.pad(tensor, pad) for tensor, pad in zip(tensors, missing, strict=True)]
    return torch.cat(list(tensors))


def _padded(tensors: Sequence[Tensor], value: int, left: bool = False) -> Tensor:
    """(..., T) tensors of several rows as (..., B, T of the longest)."""
    width = max(t.shape[-1] for t in tensors)
    missing = [(width - t.shape[-1], 0) if left else (0, width - t.shape[-1]) for t in tensors]
    return torch.stack([F.pad(t, m, value=value) for t, m in zip(tensors, missing, strict=True)], dim=-2)


def _key(image: str | Path | Image) -> Hashable:
    return str(image) if isinstance(image, (str, Path)) else id(image)
