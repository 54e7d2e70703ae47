"""Problems to be kept out of training, indexed; rows of training data are streamed past them.

    index = Index()
    for problem in benchmark: index.add("mathvision/test.jsonl", problem)
    for pair in index.pairs(Seen.of(row)): ...

A row and a problem make a pair if their questions are equal or nearly so, or if they have a picture in common, exactly
or to the eye. A question that does not tell which problem it is ("What is the perimeter of the shape?") makes a pair
that counts only where neither side has a picture, or a picture is shared; else the pair is listed as weak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mathse.data.decontamination import picture
from mathse.data.decontamination.minhash import Buckets, Sketches
from mathse.data.decontamination.picture import BITS, Box, Grey, Look
from mathse.data.decontamination.stored import digest
from mathse.data.decontamination.text import Question, follows, jaccard, normalised, share_inside
from mathse.data.images import load_image
from mathse.errors import DataError
from mathse.types import Problem

ALIKE = 0.8  # share of a question's 4-grams in common
INSIDE = 0.9  # share of a telling question's 4-grams that a longer one holds
DISTANCE = 48  # bits of 255 in which two looks may differ
CORRELATE = 0.75  # how much the parts behind two such looks must have in common
FIRST = 24  # bits of the first 64 in which looks that differ in DISTANCE may differ, all but never more

EXACT_TEXT, NEAR_TEXT, EXACT_PICTURE, NEAR_PICTURE = "question", "near_question", "image", "near_image"
Opener = Callable[[str], Image.Image]


@dataclass(frozen=True)
class Pair:
    """A training row and a benchmark's problem. ``by``: question, near_question, image, near_image, those that hold;
    ``similarity`` in [0, 1], of the closest. ``counts`` False: weak, and so listed but not dropped."""

    against: str  # the benchmark's file
    against_id: str
    by: tuple[str, ...]
    similarity: float
    counts: bool = True

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "by": list(self.by)}


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture of a row, opened."""

    image: Image.Image
    picture: Grey
    looks: Sequence[Look]

    @classmethod
    def of(cls, image: Image.Image, cut: bool = False) -> Shown:
        found = picture.grey(image)
        return cls(image, found, picture.looks(found, cut))


@dataclass(frozen=True, eq=False)
class Seen:
    """What is compared of a row. ``named``: how many pictures it names; those that could be opened are ``shown``."""

    question: Question
    shown: Sequence[Shown]
    named: int

    @classmethod
    def of(cls, problem: Problem, opener: Opener = load_image, cut: bool = False) -> Seen:
        """Pictures that cannot be opened are left out."""
        shown = []
        for ref in problem.images:
            try:
                shown.append(Shown.of(opener(ref), cut))
            except DataError:
                continue
        return cls.of_shown(problem, shown)

    @classmethod
    def of_shown(cls, problem: Problem, shown: Sequence[Shown]) -> Seen:
        return cls(normalised(problem.question), shown, len(problem.images))


class Index:
    """A few thousand problems, at about 10 KB each: pictures are read again where one may be a copy."""

    def __init__(self, alike: float = ALIKE, distance: int = DISTANCE, opener: Opener = load_image) -> None:
        self.alike, self.distance = alike, distance
        self.unopened = 0  # pictures that the problems name and that are not here
        self._names: list[tuple[str, str]] = []
        self._questions: list[Question] = []
        self._pictured: list[bool] = []
        self._exact: dict[str, list[int]] = {}
        self._stored: dict[str, list[tuple[str, str]]] = {}  # by digest: names of problems known by it alone
        self._near = Buckets()
        self._inside = Sketches()
        self._pictures: dict[str, list[int]] = {}  # by reference: the problems that show it
        self._looks: list[tuple[str, Look]] = []
        self._bits: NDArray[np.uint64] | None = None  # (4, looks)
        self._opener = opener
        self._part = lru_cache(maxsize=256)(self._overlay)
        self._pixels = lru_cache(maxsize=256)(self._hash)

    def __len__(self) -> int:
        return len(self._names) + sum(map(len, self._stored.values()))

    def add(self, against: str, problem: Problem) -> None:
        number, question = len(self._names), normalised(problem.question)
        self._names.append((against, problem.id))
        self._questions.append(question)
        self._pictured.append(bool(problem.images))
        if question.text:
            self._exact.setdefault(question.text, []).append(number)
            self._near.add(number, question.grams)
            if question.tells:
                self._inside.add(number, question.grams)
        for ref in problem.images:
            self._add_picture(ref, number)

    def add_digest(self, against: str, problem_id: str, digest: str) -> None:
        """Add a problem of which only the hash of its question is here (mathse.data.decontamination.stored)."""
        self._stored.setdefault(digest, []).append((against, problem_id))

    def pairs(self, row: Seen) -> list[Pair]:
        """The problems that ``row`` makes a pair with, in the order in which they were added."""
        texts, pictures = self._texts(row.question), self._shared(row.shown)
        found = [
            self._pair(number, row, texts.get(number), pictures.get(number))
            for number in sorted(texts.keys() | pictures.keys())
        ]
        known = self._stored.get(digest(row.question), ()) if self._stored else ()
        return found + [Pair(*name, (EXACT_TEXT,), 1.0, row.question.tells) for name in known]

    def _pair(self, number: int, row: Seen, text: float | None, shared: float | None) -> Pair:
        by = []
        if text is not None:
            by.append(EXACT_TEXT if self._questions[number].text == row.question.text else NEAR_TEXT)
        if shared is not None:
            by.append(EXACT_PICTURE if shared == 1 else NEAR_PICTURE)
        bare = not row.named and not self._pictured[number]
        counts = shared is not None or bare or row.question.tells
        return Pair(*self._names[number], tuple(by), round(max(text or 0, shared or 0), 3), counts)

    # --- questions ---

    def _texts(self, question: Question) -> dict[int, float]:
        """Similarity by problem of those whose question is equal, or has the same numbers and nearly the same words, or
        lies inside this one."""
        if not question.text:
            return {}
        found = dict.fromkeys(self._exact.get(question.text, ()), 1.0)
        for number in self._near.near(question.grams) - found.keys():
            other = self._questions[number]
            similarity = jaccard(other.grams, question.grams) if other.numbers == question.numbers else 0.0
            if similarity >= self.alike:
                found[number] = similarity
        for number in self._inside.within(question.grams):
            other = self._questions[number]
            if number in found or not follows(other.numbers, question.numbers):
                continue
            if (share := share_inside(other.grams, question.grams)) >= max(INSIDE, self.alike):
                found[number] = share
        return found

    # --- pictures ---

    def _add_picture(self, ref: str, number: int) -> None:
        if ref in self._pictures:
            self._pictures[ref].append(number)
            return
        try:
            shown = Shown.of(self._opener(ref), cut=True)
        except DataError:
            self.unopened += 1
            return
        self._pictures[ref] = [number]
        self._looks += [(ref, look) for look in shown.looks]
        self._bits = None

    def _shared(self, shown: Sequence[Shown]) -> dict[int, float]:
        """Similarity by problem of those that show one of the pictures; 1: the same pixels."""
        found: dict[int, float] = {}
        for one in shown:
            for ref, similarity in self._alike(one).items():
                for number in self._pictures[ref]:
                    found[number] = max(similarity, found.get(number, 0.0))
        return found

    def _alike(self, one: Shown) -> dict[str, float]:
        """Similarity by reference of the pictures that look like this one."""
        if self._bits is None:
            bits = np.array([look.bits for _, look in self._looks], dtype=np.uint64).reshape(-1, 4)
            self._bits = np.ascontiguousarray(bits.T)
        nearest: dict[str, tuple[int, Look, Look]] = {}  # distance, this look, that look
        for look in one.looks:
            near = np.flatnonzero(np.bitwise_count(self._bits[0] ^ look.bits[0]) <= FIRST)
            differ = np.bitwise_count(self._bits[:, near] ^ look.bits[:, None]).sum(axis=0, dtype=np.int64)
            for place, distance in zip(near[differ <= self.distance], differ[differ <= self.distance], strict=True):
                ref, other = self._looks[place]
                if ref not in nearest or distance < nearest[ref][0]:
                    nearest[ref] = (int(distance), look, other)
        alike = {ref: self._confirmed(one, ref, *found) for ref, found in nearest.items()}
        return {ref: similarity for ref, similarity in alike.items() if similarity is not None}

    def _confirmed(self, one: Shown, ref: str, distance: int, look: Look, other: Look) -> float | None:
        if distance == 0 and self._pixels(ref) == picture.exact(one.image):
            return 1.0
        parts = picture.overlay(one.picture, look.box), self._part(ref, other.box)
        return min(0.999, 1 - distance / BITS) if picture.correlation(*parts) >= CORRELATE else None

    def _overlay(self, ref: str, box: Box) -> NDArray[np.float32]:
        return picture.overlay(picture.grey(self._opener(ref)), box)

    def _hash(self, ref: str) -> str:
        return picture.exact(self._opener(ref))
