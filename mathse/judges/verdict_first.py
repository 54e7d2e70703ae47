"""An ORM whose JSON begins with its status: P(correct) from one forward pass over prompt and beginning.

The beginning is what an ORM was trained to write, in the very tokens it was trained on: the ids that the two targets,
one of each status, have in common. Nothing is encoded apart and put together, so no tokenizer can join what stands at
the seam in another way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from mathse.inference.prompts import STATUS, binary_json, feedback_json
from mathse.models.base import Backbone
from mathse.types import Status, Verdict


@dataclass(frozen=True)
class Beginning:
    """Ids of a verdict's beginning. ``statuses``: the tokens with which CORRECT and WRONG part."""

    before: list[int]  # up to where they part
    statuses: tuple[int, int]
    wrong: list[int]  # up to the end of WRONG


def beginning_of(backbone: Backbone) -> Beginning:
    """How verdicts that begin with their status begin, in this backbone's tokens; binary ones begin alike."""
    right, wrong = (_ids(backbone, binary_json(_said(status))) for status in STATUS)
    before = _common(right, wrong)
    statuses = (right[len(before)], wrong[len(before)])
    longer = _ids(backbone, feedback_json(_said("wrong"), "verdict_first"))
    return Beginning(before, statuses, _common(wrong, longer))


def _said(status: Status) -> Verdict:
    return Verdict("", status, "Step 1", "words")


def _ids(backbone: Backbone, text: str) -> list[int]:
    ids: list[int] = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _common(one: Iterable[int], other: Iterable[int]) -> list[int]:
    """What two lists have in common from their start on."""
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]
