"""The tokens that a verdict begins with when its JSON begins with the status.

An ORM with such a JSON gives P(correct) from one forward pass over its prompt and this prefix. The prefix consists of
the token ids that the two training targets, CORRECT and WRONG, share. No part of a target is encoded by itself, since a
tokenizer may merge the characters at the cut differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from mathse.inference.prompts import STATUS_WORDS, binary_json, feedback_json
from mathse.models.base import Backbone
from mathse.types import Verdict


@dataclass(frozen=True)
class VerdictPrefix:
    """Token ids at the beginning of a verdict."""

    before: list[int]  # up to the token at which CORRECT and WRONG differ
    statuses: tuple[int, int]  # the tokens at which they differ: of CORRECT, of WRONG
    wrong: list[int]  # up to the end of WRONG


def find_verdict_prefix(backbone: Backbone) -> VerdictPrefix:
    """Return the prefix of verdicts that begin with their status. Binary verdicts have the same prefix."""
    targets = [binary_json(Verdict("", status)) for status in STATUS_WORDS]
    targets.append(feedback_json(Verdict("", "wrong", "Step 1", "words"), "verdict_first"))
    right, wrong, explained = (backbone.tokenizer(text, add_special_tokens=False)["input_ids"] for text in targets)
    before = _common_prefix(right, wrong)
    statuses = (right[len(before)], wrong[len(before)])
    return VerdictPrefix(before, statuses, _common_prefix(wrong, explained))


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))]
