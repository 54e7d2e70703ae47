"""Decoding: read prompts into a KV cache, then sample sequences from it token by token.

transformers' ``generate`` reads a prompt n times for n samples, reads a picture and its question again for each judged
path, and continues to compute sequences that have ended. Here a common prefix is read once and its keys and values are
copied, and ended sequences leave the batch. The loop runs inside ``generate``, as its ``custom_generate``, which keeps
the sampling settings of a checkpoint and the logits processors that follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessor
from transformers.cache_utils import DynamicLayer

CACHE_NAMES = ("cache", "past_key_values")  # the argument of transformers from 5.24 on, and before
MIN_SHARED_FRACTION = 0.25  # reading prefixes costs a second pass; it must save this fraction of all prompt tokens


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of a row, with the model's other inputs for them.

    The tensors of ``per_token`` are (..., T) and include ``position_ids``. ``features`` are the tensors of the images
    that begin in this piece.
    """

    ids: list[int]
    per_token: dict[str, Tensor]
    features: dict[str, Tensor] = field(default_factory=dict)

    def cut(self, at: int) -> tuple[Piece, Piece]:
        """Split the piece: the first ``at`` tokens with all images, and the rest without images."""
        first = {name: tensor[..., :at] for name, tensor in self.per_token.items()}
        rest = {name: tensor[..., at:] for name, tensor in self.per_token.items()}
        return Piece(self.ids[:at], first, self.features), Piece(self.ids[at:], rest)


GoOn = Callable[[Tensor], Sequence[int] | None]  # see ``go_on`` in Backbone.complete
Pad = Callable[[Sequence[Piece]], dict[str, Tensor]]  # pieces -> a left-padded batch on the model's device


class RoomyLayer(DynamicLayer):
    """A layer of a KV cache with space for the next tokens: a step writes its token without copying the others."""

    ROOM = 64  # tokens
    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None  # (R, heads, tokens + space, D); ``keys`` and ``values`` are views of it

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        length = self.get_seq_length()
        if not length or key_states.shape[-2] > 1:  # a prompt or a part of it
            return super().update(key_states, value_states, *args, **kwargs)
        if self._room is None or length == self._room[0].shape[-2]:  # no space left
            keys, values = (F.pad(tensor, (0, 0, 0, self.ROOM)) for tensor in (self.keys, self.values))
            self._room = keys, values
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[..., length : length + 1, :] = new
        self.keys, self.values = (room[..., : length + 1, :] for room in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._room = None  # the selected keys and values are copies


class ReadRows:
    """R rows that a model has read, with their keys and values in a common cache; a mask hides its padding."""

    def __init__(self, model: Any, cache: dict[str, Any], pad: Pad) -> None:
        self.model, self.cache, self.pad = model, cache, pad
        for past in cache.values():
            past.layers[:] = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in past.layers]
        self.mask: Tensor | None = None  # (R, tokens in the cache), 0 on padding
        self.padded = False  # a batch without padding is passed without a mask, which makes attention faster
        self.position: Tensor  # (..., R): position of each row's last token

    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """Read another piece of each row. Returns the logits (R, vocabulary) after its last token."""
        batch = self.pad(pieces)
        mask = batch.pop("attention_mask")
        self.padded = self.padded or not bool(mask.all())
        self.position = batch["position_ids"][..., -1]
        return self._forward(mask, batch)

    def read_token(self, tokens: Tensor) -> Tensor:
        """Read another text token (R,) of each row. Returns the logits (R, vocabulary) after it."""
        self.position = self.position + 1
        batch = {"input_ids": tokens[:, None], "position_ids": self.position[..., None]}
        return self._forward(torch.ones_like(tokens)[:, None], batch)

    def _forward(self, mask: Tensor, batch: dict[str, Tensor]) -> Tensor:
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], 1)
        seen = self.mask if self.padded else None
        out = self.model(**batch, attention_mask=seen, use_cache=True, logits_to_keep=1, return_dict=True, **self.cache)
        return out.logits[:, -1].float()

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row that occurs several times is copied."""
        assert self.mask is not None
        for cache in self.cache.values():
            cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[..., rows]


def read_prompts(rows: ReadRows, prompts: Sequence[Piece], images: Sequence[Any], marks: Sequence[int]) -> Tensor:
    """Read the prompts; a prefix that several prompts share is read once.

    Args:
        images: identifies the images of each prompt; prompts with different images share nothing.
        marks: token ids of images; a prefix does not end inside an image.

    Returns:
        Logits (R, vocabulary) after each prompt.
    """
    # Sorted by images and ids, neighbours form a group if they share at least half of the shorter prompt.
    order = sorted(range(len(prompts)), key=lambda k: (str(images[k]), prompts[k].ids))
    groups: list[list[int]] = []
    shared: list[int] = []  # for each group: the number of tokens at the beginning of all its prompts
    for k in order:
        ids = prompts[k].ids
        if groups and images[groups[-1][0]] == images[k]:
            first = prompts[groups[-1][0]].ids
            # The last token of a prompt is not part of the prefix: its logits belong to this row.
            common = min(_count_common_prefix(first, ids), len(first) - 1, len(ids) - 1, shared[-1])
            if 2 * common >= min(len(first), len(ids)) and not set(marks).intersection(first[common:]):
                groups[-1].append(k)
                shared[-1] = common
                continue
        groups.append([k])
        shared.append(len(ids) - 1)
    saved = sum((len(group) - 1) * length for group, length in zip(groups, shared, strict=True))
    if saved < MIN_SHARED_FRACTION * sum(len(prompt.ids) for prompt in prompts):
        return rows.read(prompts)

    # First pass: the prefix of each group. A prompt without a group is cut at the same length, so that neither pass
    # pads the other rows to its length.
    longest = max(length for group, length in zip(groups, shared, strict=True) if len(group) > 1)
    cuts = []
    for group, length in zip(groups, shared, strict=True):
        image_end = max((k + 1 for k, i in enumerate(prompts[group[0]].ids) if i in marks), default=1)
        cuts.append(length if len(group) > 1 else min(length, max(longest, image_end)))
    rows.read([prompts[group[0]].cut(at)[0] for group, at in zip(groups, cuts, strict=True)])
    # Second pass: each prompt gets a copy of its group's cache and reads its own rest.
    group_of: dict[int, int] = {}
    for number, group in enumerate(groups):
        group_of |= dict.fromkeys(group, number)
    assert rows.mask is not None
    rows.select(torch.tensor([group_of[k] for k in range(len(prompts))], device=rows.mask.device))
    return rows.read([prompt.cut(cuts[group_of[k]])[1] for k, prompt in enumerate(prompts)])


def _count_common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of equal tokens at the beginning of two prompts."""
    shorter = min(len(first), len(second))
    return next((k for k in range(shorter) if first[k] != second[k]), shorter)


class TokenWatch(LogitsProcessor):
    """Records the log-probabilities of a few tokens at each step and leaves the scores unchanged."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.seen: Tensor | None = None  # (R, tokens) of the last step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        exact = scores.float()  # (R, vocabulary), before temperature and truncation
        self.seen = exact[:, self.tokens] - exact.logsumexp(-1, keepdim=True)
        return scores


@dataclass(frozen=True)
class Draws:
    """The random numbers for the ``sequences`` of a batch, from the seed of ``generator``.

    Each step draws for the whole batch, also if only some of its sequences need a number. A batch that is sampled in
    parts, because it does not fit the memory, therefore gets the same draws. They are those of ``torch.multinomial``
    (the smallest of exponential waiting times), so the tokens equal those of ``generate`` with this seed.
    """

    sequences: int
    generator: torch.Generator

    def draw(self, scores: Tensor, sequences: Tensor) -> Tensor:
        """Draw a token (R,) from scores (R, vocabulary) for these sequences (R,) of the batch."""
        shape = (self.sequences, scores.shape[-1])
        waiting = torch.empty(shape, device=scores.device).exponential_(1, generator=self.generator)
        if len(sequences) != len(waiting):
            waiting = waiting[sequences]
        return (torch.softmax(scores, -1) / waiting).argmax(-1)


@dataclass(frozen=True)
class Written:
    """A response: token ids with the end token, and the log-probabilities (steps, watched tokens).

    The first ``given`` ids were read and not sampled. ``log_probs``: of each id, under the distribution
    that it was sampled from.
    """

    ids: list[int]
    watched: Tensor | None
    given: int = 0
    log_probs: list[float] | None = None


def write(
    rows: ReadRows,
    logits: Tensor,
    ids: Tensor,
    sequences: Tensor,
    process: Callable[[Tensor, Tensor], Tensor],
    *,
    watch: TokenWatch | None,
    draws: Draws | None,
    end_ids: Tensor,
    max_new_tokens: int,
    with_log_probs: bool = False,
) -> list[Written]:
    """Sample R sequences from the rows that were read, until each has ended.

    Args:
        logits: (R, vocabulary) after the last token that was read.
        ids: (R, T) the tokens that were read, left-padded; an argument of ``process``.
        sequences: (R,) their numbers in the batch, see ``Draws``.
        process: the logits processors of ``generate``.
        draws: random numbers; None: greedy decoding.
        with_log_probs: return the log-probability of each token too, after all logits processors (temperature,
            suppressed ids, truncation), in float32.
    """
    width = len(sequences)
    written = ids.new_zeros(width, max_new_tokens)  # 0 behind a sequence's end
    log_probs = torch.zeros(width, max_new_tokens if with_log_probs else 0, device=ids.device)
    watched: list[Tensor] = []  # a step: (R, watched tokens)
    lengths = torch.full((width,), max_new_tokens, device=ids.device)
    # The cache has fewer rows as sequences end. ``held`` (rows,): the number of each row's sequence among the R.
    # ``going`` (rows,): whether it has not ended yet.
    held = torch.arange(width, device=ids.device)
    going = torch.ones_like(held, dtype=torch.bool)
    for step in range(max_new_tokens):
        scores = process(ids, logits)
        tokens = scores.argmax(-1) if draws is None else draws.draw(scores, sequences[held])
        written[held, step] = tokens
        if with_log_probs:
            log_probs[held, step] = scores.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        if watch is not None and watch.seen is not None:
            watched.append(watch.seen.new_zeros(width, len(watch.tokens)).index_copy(0, held, watch.seen))
        ends = going & torch.isin(tokens, end_ids)
        lengths[held[ends]] = step + 1
        going = going & ~ends
        count = int(going.sum())
        if not count or step == max_new_tokens - 1:
            break
        if 2 * count <= len(held):  # selecting rows copies the cache, so it waits until half of them have ended
            unfinished = going.nonzero()[:, 0]
            rows.select(unfinished)
            held, going, ids, tokens = (each[unfinished] for each in (held, going, ids, tokens))
        ids = torch.cat([ids, tokens[:, None]], 1)
        logits = rows.read_token(tokens)
    steps = torch.stack(watched, 1).cpu() if watched else None  # (R, steps, watched tokens)
    by_token = log_probs.tolist()
    return [
        Written(
            row[:length],
            None if steps is None else steps[k, :length],
            log_probs=by_token[k][:length] if with_log_probs else None,
        )
        for k, (row, length) in enumerate(zip(written.tolist(), lengths.tolist(), strict=True))
    ]


def write_where(
    go_on: GoOn,
    rows: ReadRows,
    prompts: Sequence[Piece],
    likeliest: Tensor,
    watch: TokenWatch,
    ids: Tensor,
    write_on: Callable[..., list[Written]],
) -> list[Written]:
    """Write a response of one token for each row, and a longer response for the rows that ``go_on`` chooses.

    Args:
        prompts: the prompt that each of the R rows has read; ``ids`` (R, T) is the same, padded.
        likeliest: (R,) the next token of each row; ``watch`` was called with the same logits.
        write_on: ``write`` with rows, processors and limits already bound.
    """
    assert watch.seen is not None
    odds = watch.seen.cpu()  # (R, watched tokens)
    responses = [Written([token], odds[k : k + 1]) for k, token in enumerate(likeliest.tolist())]
    # For each chosen row: the ids that are read before sampling continues.
    begun_of: dict[int, list[int]] = {}
    for k, row_odds in enumerate(odds):
        if (begun := go_on(row_odds)) is not None:
            begun_of[k] = list(begun)
    if not begun_of:
        return responses
    chosen = torch.tensor(list(begun_of), device=ids.device)
    rows.select(chosen)
    pieces = []
    for k, begun in begun_of.items():
        tensors = prompts[k].per_token
        # Text: token types are 0, and positions count up on every axis.
        per_token = {name: tensor.new_zeros(*tensor.shape[:-1], len(begun)) for name, tensor in tensors.items()}
        per_token["position_ids"] = tensors["position_ids"][..., -1:] + 1 + torch.arange(len(begun))
        pieces.append(Piece(begun, per_token))
    logits = rows.read(pieces)
    ids = torch.cat([ids[chosen], rows.pad(pieces)["input_ids"]], 1)
    for (k, begun), response in zip(begun_of.items(), write_on(logits, ids, chosen, watch=None), strict=True):
        responses[k] = Written([*begun, *response.ids], odds[k : k + 1], given=len(begun))
    return responses
