"""An ORM whose JSON begins with its status: P(correct) from one forward pass over prompt and beginning.

The beginning has the very tokens that an ORM was trained to write: the ids that the two targets, one of each status,
have in common. No part of a target is encoded by itself, since a tokenizer might merge the characters at the cut in
another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from mathse.inference.prompts import STATUS, binary_json, feedback_json
from mathse.models.base import Backbone
from mathse.types import Verdict


@dataclass(frozen=True)
class Beginning:
    """Ids of a verdict's beginning. ``statuses``: the tokens with which CORRECT and WRONG part."""

    before: list[int]  # up to where they part
    statuses: tuple[int, int]
    wrong: list[int]  # up to the end of WRONG


def beginning_of(backbone: Backbone) -> Beginning:
    """How verdicts that begin with their status begin, in this backbone's tokens; binary ones begin alike."""
    targets = (
        *(binary_json(Verdict("", status)) for status in STATUS),
        feedback_json(Verdict("", "wrong", "Step 1", "words"), "verdict_first"),
    )
    right, wrong, explained = (backbone.tokenizer(text, add_special_tokens=False)["input_ids"] for text in targets)
    before = _common_prefix(right, wrong)
    statuses = (right[len(before)], wrong[len(before)])
    return Beginning(before, statuses, _common_prefix(wrong, explained))


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]
