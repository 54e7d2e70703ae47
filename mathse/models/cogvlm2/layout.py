"""The tokens of a row: their positions and their experts. An image's begin and end token count as image tokens.

Layout of a row: [BOS] boi patch ... patch eoi text ...; ``token_type_ids`` is 1 from boi to eoi and 0 elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mathse.errors import DataError

IMAGE = 1  # in token_type_ids


class Routing(NamedTuple):
    """The indices of the B * T tokens for the visual expert and for the language expert, and their inverse."""

    vision: Tensor  # (V,) flat indices
    language: Tensor  # (L,) flat indices
    back: Tensor  # (V + L,): position of each token in cat(vision, language)


def find_expert_mask(token_type_ids: Tensor) -> Tensor:
    """Return (B, T) booleans: True for the tokens of the visual expert, which precede another image token.

    These are boi and the patches, but not eoi.
    """
    image = token_type_ids == IMAGE
    mask = torch.zeros_like(image)
    mask[:, :-1] = image[:, :-1] & image[:, 1:]
    return mask


def route(mask: Tensor) -> Routing:
    """Convert (B, T) booleans to a routing, once in a forward pass: each conversion synchronises with the GPU."""
    flat = mask.flatten()
    vision, language = flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]
    # ``order[k]`` is the token at position k of cat(vision, language); ``back`` is its inverse.
    order = torch.cat([vision, language])
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return Routing(vision, language, back)


def compute_positions(token_type_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Return (B, T) rotary positions. All patches of an image have the same position, so an image takes three.

    BOS 0, boi 1, patches 2, eoi 3, text 4, 5, ... Padding at the front counts as a single token, as in the published
    code; rotation is relative, so this changes nothing.
    """
    # The difference of each token's position to the token before: 1, but 0 between two patches and 0 on padding.
    visual = find_expert_mask(token_type_ids)
    patch = torch.zeros_like(visual)
    patch[:, 1:] = visual[:, 1:] & visual[:, :-1]  # image tokens between boi and eoi
    step = torch.ones_like(token_type_ids, dtype=torch.long)
    step[:, 1:] -= (patch[:, 1:] & patch[:, :-1]).long()
    if attention_mask is not None:
        step = step * (attention_mask != 0)
    step[:, 0] = 0  # the first token has position 0
    return step.cumsum(1)


def check_images(token_type_ids: Tensor, features: Tensor | None) -> None:
    """Raise DataError unless there is an image for each row with image tokens, with equally many tokens."""
    counts = [n for n in (token_type_ids == IMAGE).sum(1).tolist() if n]
    if features is None:
        if counts:
            raise DataError(f"token_type_ids mark image tokens in {len(counts)} rows, but there are no pixel_values")
        return
    images, size = features.shape[:2]
    if counts != [size] * images:
        raise DataError(
            f"{images} images of {size} tokens each, but the rows' image tokens are {counts or 'none'}: CogVLM2 takes "
            "one image in a row, with token_type_ids 1 on its tokens, begin and end included"
        )
