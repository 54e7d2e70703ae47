"""Rows of training data that are there twice: the same question about pictures that look the same."""

from __future__ import annotations

import hashlib

from mathse.data.decontamination.index import Seen
from mathse.types import Problem


class Duplicates:
    """Remembers eight bytes a row."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def first(self, problem: Problem, seen: Seen) -> str | None:
        """The id of an earlier row that asks the same about the same pictures, or None.

        Pictures are compared by their whole look, bit by bit: copies in another format, mostly, and never by chance.
        """
        if len(seen.shown) < seen.named or not (seen.question.text or seen.shown):
            return None  # a picture that cannot be opened may be any picture
        pictures = [one.looks[0].bits.tobytes() if one.looks else one.picture.tobytes() for one in seen.shown]
        text = [seen.question.text.encode("utf-8", "surrogatepass"), *pictures]
        digest = hashlib.blake2b(b"\x00".join(text), digest_size=8).digest()
        first = self._first.setdefault(digest, problem.id)
        return None if first == problem.id else first
