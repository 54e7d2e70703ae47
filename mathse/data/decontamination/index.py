"""An index of benchmark problems, for the search of training rows.

    index = Index()
    for problem in benchmark: index.add("mathvision/test.jsonl", problem)
    for pair in index.pairs(ComparedRow.of(row)): ...

A row and a problem make a pair if their questions are equal or nearly equal, or if they share an image, exactly or
visually. Drawings of the same template with other labels are no copies, and a similar image does not count if both
questions have the same words and other numbers: another problem of that template. A question that is not distinctive
("What is the perimeter of the shape?") makes a pair that counts only in three cases: neither side has an image; an
image is shared; or the problem's image is missing, and question, answer and the image's published size are equal.
Other pairs are listed as weak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mathse.data.decontamination import perceptual_hash
from mathse.data.decontamination.hash_lists import digest
from mathse.data.decontamination.local_difference import DIFFERENCE, local_difference
from mathse.data.decontamination.minhash import Buckets, RarestGrams
from mathse.data.decontamination.perceptual_hash import BITS, Grey, PerceptualHash
from mathse.data.decontamination.question_text import (
    NormalisedQuestion,
    differ_in_numbers_only,
    is_subsequence,
    jaccard,
    normalised,
    share_inside,
)
from mathse.data.image_decoding import pixels_sha256
from mathse.data.images import load_image
from mathse.errors import DataError
from mathse.scoring.answers import choice_index, same_answer
from mathse.types import Problem

TEXT_SIMILARITY = 0.8  # share of 4-grams that two questions have in common, at least
SHARE_INSIDE = 0.9  # share of a distinctive question's 4-grams inside a longer question, at least
PICTURE_DISTANCE = 48  # different bits, out of 255, of two perceptual hashes, at most
CORRELATION = 0.75  # correlation of the image parts of two such hashes, at least
# Hashes within PICTURE_DISTANCE almost never differ in more of their first 64 bits than this: a cheap first test.
FIRST_DISTANCE = 24

EXACT_TEXT, NEAR_TEXT, EXACT_PICTURE, NEAR_PICTURE = "question", "near_question", "image", "near_image"
ANSWER_AND_SIZE = "answer_and_image_size"
IMAGE_SIZE = "image_size"  # in a problem's metadata: [width, height] in pixels, as the benchmark publishes it
Opener = Callable[[str], Image.Image]


@dataclass(frozen=True)
class BenchmarkPair:
    """A training row and a benchmark problem.

    ``by``: the criteria that hold, out of question, near_question, answer_and_image_size, image, near_image.
    ``similarity``: in [0, 1], of the closest criterion. ``counts``: False for a weak pair, which is listed and not
    dropped.
    """

    against: str  # the benchmark's file
    against_id: str
    by: tuple[str, ...]
    similarity: float
    counts: bool = True

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "by": list(self.by)}


@dataclass(frozen=True, eq=False)
class ComparedImage:
    """An image of a row in the forms for the comparison."""

    image: Image.Image
    grey: Grey
    hashes: Sequence[PerceptualHash]

    @classmethod
    def of(cls, image: Image.Image, cut: bool = False) -> ComparedImage:
        """Prepare an image; ``cut`` adds hashes of the image without its edges."""
        grey = perceptual_hash.grey(image)
        return cls(image, grey, perceptual_hash.perceptual_hashes(grey, cut))

    @cached_property
    def pixels(self) -> str:
        """Hash of the pixels: equal for two files that show the same image, pixel by pixel."""
        return pixels_sha256(self.image)


@dataclass(frozen=True, eq=False)
class ComparedRow:
    """A row in the form for the comparison: its question, its answer as text, and the images that could be opened.

    ``named``: number of images that the row names.
    """

    question: NormalisedQuestion
    images: Sequence[ComparedImage]
    named: int
    answer: str = ""

    @classmethod
    def of(cls, problem: Problem, opener: Opener = load_image) -> ComparedRow:
        """Prepare a row, without images that cannot be opened."""
        images = []
        for ref in problem.images:
            try:
                images.append(ComparedImage.of(opener(ref)))
            except DataError:
                continue
        return cls.of_images(problem, images)

    @classmethod
    def of_images(cls, problem: Problem, images: Sequence[ComparedImage]) -> ComparedRow:
        return cls(normalised(problem.question), images, len(problem.images), answer_text(problem))


def answer_text(problem: Problem) -> str:
    """Give the answer, or the text of the right choice: copies of a problem may have its letter or its text."""
    index = choice_index(problem.answer, problem.choices) if problem.choices else None
    return problem.answer if index is None else problem.choices[index]


class Index:
    """An index of a few thousand problems, at about 10 KB each. Images of candidates are opened again.

    Args:
        text_similarity: share of common 4-grams from which two questions are nearly equal.
        picture_distance: number of bits in which the hashes of two similar images may differ.
        opener: loads the image of a reference.

    Inside the index a problem has a number, in the order of adding.
    """

    def __init__(
        self,
        text_similarity: float = TEXT_SIMILARITY,
        picture_distance: int = PICTURE_DISTANCE,
        opener: Opener = load_image,
    ) -> None:
        self.text_similarity, self.picture_distance = text_similarity, picture_distance
        self.unopened = 0  # images of the problems that cannot be opened
        self._names: list[tuple[str, str]] = []  # (benchmark's file, problem id)
        self._questions: list[NormalisedQuestion] = []
        self._pictured: list[bool] = []  # whether the problem has images
        # Answer and published image size in pixels of problems with a missing image.
        self._known_by: dict[int, tuple[str, tuple[int, int]]] = {}
        self._by_text: dict[str, list[int]] = {}
        self._by_digest: dict[str, list[tuple[str, str]]] = {}  # names of problems from hash lists
        self._near = Buckets()
        self._inside = RarestGrams()
        self._by_image: dict[str, list[int]] = {}  # by reference: the problems that show it
        self._hashes: list[tuple[str, PerceptualHash]] = []  # (image reference, hash)
        self._bits: NDArray[np.uint64] | None = None  # (4, hashes); None: to be made anew
        self._opener = opener
        # Candidates are opened again rather than held: most images of a benchmark never are one.
        self._overlay = lru_cache(maxsize=256)(
            lambda ref, box: perceptual_hash.overlay(perceptual_hash.grey(opener(ref)), box)
        )
        self._grey = lru_cache(maxsize=64)(lambda ref: perceptual_hash.grey(opener(ref)))
        self._pixels = lru_cache(maxsize=256)(lambda ref: pixels_sha256(opener(ref)))

    def __len__(self) -> int:
        return len(self._names) + sum(map(len, self._by_digest.values()))

    def add(self, against: str, problem: Problem) -> None:
        """Add a problem of the benchmark's file ``against``."""
        number, question = len(self._names), normalised(problem.question)
        self._names.append((against, problem.id))
        self._questions.append(question)
        self._pictured.append(bool(problem.images))
        if question.text:
            self._by_text.setdefault(question.text, []).append(number)
            self._near.add(number, question.grams)
            if question.is_distinctive:
                self._inside.add(number, question.grams)
        for ref in problem.images:
            if ref in self._by_image:
                self._by_image[ref].append(number)
                continue
            try:
                image = ComparedImage.of(self._opener(ref), cut=True)
            except DataError:
                self.unopened += 1
                if problem.answer and len(problem.images) == 1 and (size := problem.metadata.get(IMAGE_SIZE)):
                    self._known_by[number] = answer_text(problem), (size[0], size[1])
                continue
            self._by_image[ref] = [number]
            self._hashes += [(ref, one) for one in image.hashes]
            self._bits = None

    def add_digest(self, against: str, problem_id: str, digest: str) -> None:
        """Add a problem of a hash list (mathse.data.decontamination.hash_lists)."""
        self._by_digest.setdefault(digest, []).append((against, problem_id))

    def pairs(self, row: ComparedRow) -> list[BenchmarkPair]:
        """List the pairs of a row, in the order in which the problems were added."""
        by_text, by_image = self._similar_questions(row.question), self._shared_images(row.images)
        pairs = []
        for number in sorted(by_text.keys() | by_image.keys()):
            text, image = by_text.get(number), by_image.get(number)
            by = []
            same_size = False
            if text is not None:
                by.append(EXACT_TEXT if self._questions[number].text == row.question.text else NEAR_TEXT)
                same_size = text == 1 and self._same_answer_and_size(number, row)
            if same_size:
                by.append(ANSWER_AND_SIZE)
            if image is not None:
                by.append(EXACT_PICTURE if image == 1 else NEAR_PICTURE)
            # A question that is not distinctive counts only if neither side has anything else.
            no_images = not row.named and not self._pictured[number]
            shared = image == 1 or (
                image is not None and not differ_in_numbers_only(self._questions[number], row.question)
            )
            counts = shared or same_size or no_images or (text is not None and row.question.is_distinctive)
            similarity = round(max(text or 0, image or 0), 3)
            pairs.append(BenchmarkPair(*self._names[number], tuple(by), similarity, counts))
        # A hash list finds only equal questions.
        names = self._by_digest.get(digest(row.question), ()) if self._by_digest else ()
        return pairs + [BenchmarkPair(*name, (EXACT_TEXT,), 1.0, row.question.is_distinctive) for name in names]

    def _same_answer_and_size(self, number: int, row: ComparedRow) -> bool:
        if number not in self._known_by or len(row.images) != 1:
            return False
        answer, size = self._known_by[number]
        return row.images[0].image.size == size and same_answer(row.answer, answer)

    def _similar_questions(self, question: NormalisedQuestion) -> dict[int, float]:
        """Compute the similarity, by problem, of similar questions: equal, with the same numbers and nearly the same
        words, or contained in this question."""
        if not question.text:
            return {}
        similar = dict.fromkeys(self._by_text.get(question.text, ()), 1.0)
        # Nearly equal: the numbers must agree, because they distinguish problems of the same template.
        for number in self._near.near(question.grams) - similar.keys():
            other = self._questions[number]
            similarity = jaccard(other.grams, question.grams) if other.numbers == question.numbers else 0.0
            if similarity >= self.text_similarity:
                similar[number] = similarity
        # A benchmark's question with other sentences around it.
        for number in self._inside.within(question.grams):
            other = self._questions[number]
            if number in similar or not is_subsequence(other.numbers, question.numbers):
                continue
            if (share := share_inside(other.grams, question.grams)) >= max(SHARE_INSIDE, self.text_similarity):
                similar[number] = share
        return similar

    def _shared_images(self, images: Sequence[ComparedImage]) -> dict[int, float]:
        """Compute the similarity, by problem, of problems with one of the images; 1: equal pixels."""
        shared: dict[int, float] = {}
        for image in images:
            for ref, similarity in self._similar_images(image).items():
                for number in self._by_image[ref]:
                    shared[number] = max(similarity, shared.get(number, 0.0))
        return shared

    def _similar_images(self, image: ComparedImage) -> dict[str, float]:
        """Compute the similarity, by reference, of the benchmarks' images that look like this image."""
        if self._bits is None:
            bits = np.array([one.bits for _, one in self._hashes], dtype=np.uint64).reshape(-1, 4)
            self._bits = np.ascontiguousarray(bits.T)

        # The closest two hashes of each candidate: (distance, hash of this image, hash of the candidate).
        nearest: dict[str, tuple[int, PerceptualHash, PerceptualHash]] = {}
        for one in image.hashes:
            # Bits of the first 64 decide which hashes are compared in full.
            near = np.flatnonzero(np.bitwise_count(self._bits[0] ^ one.bits[0]) <= FIRST_DISTANCE)
            differ = np.bitwise_count(self._bits[:, near] ^ one.bits[:, None]).sum(axis=0, dtype=np.int64)
            close = differ <= self.picture_distance
            for position, distance in zip(near[close], differ[close], strict=True):
                ref, other = self._hashes[position]
                if ref not in nearest or distance < nearest[ref][0]:
                    nearest[ref] = (int(distance), one, other)

        # A candidate is a copy if its pixels are the same, or if the hashed parts agree when laid over each other, as
        # a whole and then, since a label is a small part of a drawing, in every small region.
        similar = {}
        for ref, (distance, one, other) in nearest.items():
            if distance == 0 and self._pixels(ref) == image.pixels:
                similar[ref] = 1.0
                continue
            parts = perceptual_hash.overlay(image.grey, one.box), self._overlay(ref, other.box)
            if perceptual_hash.correlation(*parts) < CORRELATION:
                continue
            if local_difference(image.grey, one.box, self._grey(ref), other.box) < DIFFERENCE:
                similar[ref] = min(0.999, 1 - distance / BITS)
        return similar
