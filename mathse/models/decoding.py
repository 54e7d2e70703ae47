"""Decoding: prompts are read into a KV cache, sequences are written from it token by token.

transformers' ``generate`` reads a prompt n times for n samples, a picture and its question once for each path that is
judged, and goes on computing for sequences that have ended. Here what sequences have in common is read once and its
keys and values are copied, and ended sequences leave the batch. What a checkpoint says of its sampling, and the logits
processors that follow from it, stay ``generate``'s own: the loop runs inside it, as its ``custom_generate``.
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

CACHE_NAMES = ("cache", "past_key_values")  # of transformers from 5.24 on, and before
SHARED = 0.25  # share of a batch's prompt tokens that reading prefixes apart has to save: it costs a second pass


@dataclass(frozen=True)
class Piece:
    """A stretch of a row: its token ids, and what the model takes with them.

    The tensors of ``per_token`` are (..., T) and have ``position_ids`` among them; ``features`` are those of the images
    that begin in this stretch.
    """

    ids: list[int]
    per_token: dict[str, Tensor]
    features: dict[str, Tensor] = field(default_factory=dict)

    def cut(self, at: int) -> tuple[Piece, Piece]:
        """The first ``at`` tokens, with all images, and the rest."""
        first, rest = (
            {name: tensor[..., part] for name, tensor in self.per_token.items()}
            for part in (slice(at), slice(at, None))
        )
        return Piece(self.ids[:at], first, self.features), Piece(self.ids[at:], rest)


GoOn = Callable[[Tensor], Sequence[int] | None]  # see Backbone.complete
Pad = Callable[[Sequence[Piece]], dict[str, Tensor]]  # pieces as a left-padded batch on the model's device


class RoomyLayer(DynamicLayer):
    """A layer of a cache with room for tokens to come: a step writes its own, and does not copy those before it."""

    ROOM = 64  # tokens
    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None  # (R, heads, tokens and room, D), which keys and values are views of

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        length = self.get_seq_length()
        if not length or key_states.shape[-2] > 1:  # a prompt, or a piece of it
            return super().update(key_states, value_states, *args, **kwargs)
        if self._room is None or length == self._room[0].shape[-2]:
            keys, values = (F.pad(tensor, (0, 0, 0, self.ROOM)) for tensor in (self.keys, self.values))
            self._room = keys, values
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[..., length : length + 1, :] = new
        self.keys, self.values = (room[..., : length + 1, :] for room in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._room = None  # keys and values are copies now


class ReadRows:
    """R rows that a model has read so far. Their keys and values lie in one cache, whose padding is masked."""

    def __init__(self, model: Any, cache: dict[str, Any], pad: Pad) -> None:
        self.model, self.cache, self.pad = model, cache, pad
        for past in cache.values():
            past.layers[:] = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in past.layers]
        self.mask: Tensor | None = None  # (R, tokens in the cache), 0 on padding
        self.padded = False  # without padding the model gets no mask: attention is faster then
        self.position: Tensor  # (..., R) of each row's last token

    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """Read a piece more of each row. Returns the logits (R, vocabulary) behind it."""
        batch = self.pad(pieces)
        mask = batch.pop("attention_mask")
        self.padded = self.padded or not bool(mask.all())
        self.position = batch["position_ids"][..., -1]
        return self._forward(mask, batch)

    def read_token(self, tokens: Tensor) -> Tensor:
        """Read a text token (R,) more of each row; the logits (R, vocabulary) behind it."""
        self.position = self.position + 1
        batch = {"input_ids": tokens[:, None], "position_ids": self.position[..., None]}
        return self._forward(torch.ones_like(tokens)[:, None], batch)

    def _forward(self, mask: Tensor, batch: dict[str, Tensor]) -> Tensor:
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], 1)
        seen = self.mask if self.padded else None
        out = self.model(**batch, attention_mask=seen, use_cache=True, logits_to_keep=1, return_dict=True, **self.cache)
        return out.logits[:, -1].float()

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; one may stand several times."""
        assert self.mask is not None
        for cache in self.cache.values():
            cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[..., rows]


def read_prompts(rows: ReadRows, prompts: Sequence[Piece], images: Sequence[Any], marks: Sequence[int]) -> Tensor:
    """Read the prompts, what several have in common once. Returns the logits (R, vocabulary) behind each.

    Args:
        images: what tells the images of each prompt from others; prompts with other images have nothing in common.
        marks: ids of images' tokens. No image is cut in two.
    """
    # Neighbours in the order of their ids form a group where they share at least half of the shorter one.
    order = sorted(range(len(prompts)), key=lambda k: (str(images[k]), prompts[k].ids))
    groups: list[list[int]] = []
    shared: list[int] = []  # by group: the number of tokens that all its prompts begin with
    for k in order:
        ids = prompts[k].ids
        if groups and images[groups[-1][0]] == images[k]:
            first = prompts[groups[-1][0]].ids
            # a prompt's last token is read apart, so that each row has a token whose logits are its own
            common = min(_common(first, ids), len(first) - 1, len(ids) - 1, shared[-1])
            if 2 * common >= min(len(first), len(ids)) and not set(marks).intersection(first[common:]):
                groups[-1].append(k)
                shared[-1] = common
                continue
        groups.append([k])
        shared.append(len(ids) - 1)
    saved = sum((len(group) - 1) * length for group, length in zip(groups, shared, strict=True))
    if saved < SHARED * sum(len(prompt.ids) for prompt in prompts):
        return rows.read(prompts)

    # A prompt without a partner is cut where the others are, so that neither pass is padded to its length.
    longest = max(length for group, length in zip(groups, shared, strict=True) if len(group) > 1)
    cuts = []
    for group, length in zip(groups, shared, strict=True):
        image_end = max((k + 1 for k, i in enumerate(prompts[group[0]].ids) if i in marks), default=1)
        cuts.append(length if len(group) > 1 else min(length, max(longest, image_end)))
    rows.read([prompts[group[0]].cut(at)[0] for group, at in zip(groups, cuts, strict=True)])
    group_of = {k: number for number, group in enumerate(groups) for k in group}
    assert rows.mask is not None
    rows.select(torch.tensor([group_of[k] for k in range(len(prompts))], device=rows.mask.device))
    return rows.read([prompt.cut(cuts[group_of[k]])[1] for k, prompt in enumerate(prompts)])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with in common."""
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class Watch(LogitsProcessor):
    """Takes the log-probabilities of a few tokens at each step, and changes nothing."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.seen: Tensor | None = None  # (R, tokens) of the last step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        exact = scores.float()  # (R, vocabulary), before temperature and truncation
        self.seen = exact[:, self.tokens] - exact.logsumexp(-1, keepdim=True)
        return scores


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of ``sequences``, from its seed alone.

    Those of a step are drawn for the whole batch, whichever of its sequences ask for theirs: so a batch that is written
    in parts, for want of memory, gets the same draws. They are those that ``torch.multinomial`` makes of one draw a row
    (the smallest of exponential waiting times), so the tokens are those of ``generate`` at this seed.
    """

    sequences: int
    generator: torch.Generator

    def draw(self, scores: Tensor, sequences: Tensor) -> Tensor:
        """A token (R,) by scores (R, vocabulary), for these sequences (R,) of the batch."""
        shape = (self.sequences, scores.shape[-1])
        waiting = torch.empty(shape, device=scores.device).exponential_(1, generator=self.generator)
        probabilities = torch.softmax(scores, -1)
        return (probabilities / (waiting if len(sequences) == len(waiting) else waiting[sequences])).argmax(-1)


@dataclass(frozen=True)
class Written:
    """What was written behind a prompt: token ids, the end token included, and each step's watched log-probabilities
    (steps, watched tokens). The first ``given`` ids were read and not sampled. ``log_probs``: of each id, under the
    distribution that it was sampled from."""

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
    watch: Watch | None,
    draws: Draws | None,
    end_ids: Tensor,
    max_new_tokens: int,
    with_log_probs: bool = False,
) -> list[Written]:
    """Write R sequences from the rows that were read until each has ended.

    Args:
        logits: (R, vocabulary) behind what was read.
        ids: (R, T) of it, left-padded, which ``process`` is given too.
        sequences: (R,) their numbers in the batch, see ``Draws``.
        process: generate's logits processors.
        draws: None: greedily.
        with_log_probs: return the log-probability of each token too, behind all logits processors (temperature,
            suppressed ids, truncation), in float32.
    """
    width = len(sequences)
    written = ids.new_zeros(width, max_new_tokens)  # 0 behind a sequence's end
    log_probs = torch.zeros(width, max_new_tokens if with_log_probs else 0, device=ids.device)
    watched: list[Tensor] = []  # a step: (R, watched tokens)
    lengths = torch.full((width,), max_new_tokens, device=ids.device)
    # ``held``: which of the R sequences the rows in the cache are; ``going``: which of those have not ended
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
        if 2 * count <= len(held):  # ended sequences leave; by halves, since the cache is copied for it
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
    watch: Watch,
    ids: Tensor,
    write_on: Callable[..., list[Written]],
) -> list[Written]:
    """Responses of one token, its log-probabilities watched; those that ``go_on`` has ids for are written behind these.

    Args:
        prompts: what each of the R rows has read, which is ``ids`` (R, T) padded.
        likeliest: (R,) the next token of each, over whose logits ``watch`` was called.
        write_on: ``write`` with the rows, the processors and the limits.
    """
    assert watch.seen is not None
    odds = watch.seen.cpu()  # (R, watched tokens)
    responses = [Written([token], odds[k : k + 1]) for k, token in enumerate(likeliest.tolist())]
    further = {k: list(begun) for k, of_row in enumerate(odds) if (begun := go_on(of_row)) is not None}
    if not further:
        return responses
    chosen = torch.tensor(list(further), device=ids.device)
    rows.select(chosen)
    pieces = []
    for k, begun in further.items():
        tensors = prompts[k].per_token
        # text: token types are 0, positions count up on every axis
        per_token = {name: tensor.new_zeros(*tensor.shape[:-1], len(begun)) for name, tensor in tensors.items()}
        per_token["position_ids"] = tensors["position_ids"][..., -1:] + 1 + torch.arange(len(begun))
        pieces.append(Piece(begun, per_token))
    logits = rows.read(pieces)
    ids = torch.cat([ids[chosen], rows.pad(pieces)["input_ids"]], 1)
    for (k, begun), response in zip(further.items(), write_on(logits, ids, chosen, watch=None), strict=True):
        responses[k] = Written([*begun, *response.ids], odds[k : k + 1], given=len(begun))
    return responses
