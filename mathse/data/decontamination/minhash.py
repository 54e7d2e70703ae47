"""MinHash (Broder 1997) and banding: candidates for nearly equal questions, without a comparison of all pairs.

A signature is the least of a set's hashes under each of 125 hash functions; two sets agree in one with a chance equal
to their Jaccard similarity. It is cut into 25 bands of 5: two questions of similarity s meet in one with a chance of
1 - (1 - s^5)^25: 0.99985 at 0.8, 0.988 at 0.7, 0.56 at 0.5. Those that meet are then compared exactly.

A question inside a longer text has a low similarity to the text and no band in common. Its 8 rarest grams find it: a
text with nine tenths of a question's grams holds most of these.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from mathse.data.decontamination.question_text import Grams, mixed

BANDS, ROWS = 25, 5
# Constants of the hash functions: fixed, so that signatures are the same on every machine.
_FACTORS = mixed(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64)) | np.uint64(1)  # (125,), odd
_SUMMANDS = mixed(np.arange(10**6, 10**6 + BANDS * ROWS, dtype=np.uint64))  # (125,)
_COLUMNS = mixed(np.arange(7, 7 + ROWS, dtype=np.uint64)) | np.uint64(1)  # (5,)
_BAND = mixed(np.arange(99, 99 + BANDS, dtype=np.uint64))  # (25,)


def signature(grams: Grams) -> NDArray[np.uint32]:
    """(125,): the least hash of the grams under each hash function (multiply-shift, Dietzfelbinger 1996)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        # (125, grams)
        hashed = (grams[None] * _FACTORS[:, None] + _SUMMANDS[:, None]) >> np.uint64(32)
    return hashed.min(axis=1).astype(np.uint32)


def bands(signed: NDArray[np.uint32]) -> list[int]:
    """A key a band; two signatures that agree in a whole band have its key in common."""
    rows = signed.reshape(BANDS, ROWS).astype(np.uint64)
    with np.errstate(over="ignore"):
        keys: list[int] = mixed((rows * _COLUMNS).sum(axis=1, dtype=np.uint64) + _BAND).tolist()
    return keys


class Buckets:
    """Numbered sets by the keys of their bands."""

    def __init__(self) -> None:
        self._numbers: dict[int, list[int]] = {}  # by band key

    def add(self, number: int, grams: Grams) -> None:
        for key in bands(signature(grams)):
            self._numbers.setdefault(key, []).append(number)

    def near(self, grams: Grams) -> set[int]:
        """Find the numbers of sets that may be similar."""
        if not self._numbers:
            return set()
        numbers: set[int] = set()
        for key in bands(signature(grams)):
            numbers.update(self._numbers.get(key, ()))
        return numbers


RAREST, NEEDED = 8, 5  # grams that stand for a question; how many of them a text that contains the question must hold


class RarestGrams:
    """Numbered sets by their rarest grams: which of them may lie inside another set."""

    def __init__(self) -> None:
        self._sets: list[tuple[int, Grams]] = []
        self._numbers: dict[int, list[int]] | None = None  # by gram; None: to be made, rarity depends on all sets

    def add(self, number: int, grams: Grams) -> None:
        self._sets.append((number, grams))
        self._numbers = None

    def within(self, grams: Grams) -> list[int]:
        """Find the numbers of sets that may lie inside this set."""
        if self._numbers is None:
            self._numbers = self._by_gram()
        hits: Counter[int] = Counter()  # rare grams of each set inside these grams
        for gram in grams.tolist():
            hits.update(self._numbers.get(gram, ()))
        return [number for number, count in hits.items() if count >= NEEDED]

    def _by_gram(self) -> dict[int, list[int]]:
        """The sets by each of their rarest grams; by a frequent gram, nearly all sets would be candidates."""
        numbers: dict[int, list[int]] = {}
        if self._sets:
            grams_of_all, frequency = np.unique(np.concatenate([grams for _, grams in self._sets]), return_counts=True)
            for number, grams in self._sets:
                rarest = np.argsort(frequency[np.searchsorted(grams_of_all, grams)], kind="stable")[:RAREST]
                for gram in grams[rarest].tolist():
                    numbers.setdefault(gram, []).append(number)
        return numbers
