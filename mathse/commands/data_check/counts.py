"""Counts over the rows that can be used: by source, language, form of answer, pictures, lengths and sizes."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mathse.data.answer_form import answer_form
from mathse.data.decontamination.index import ComparedRow
from mathse.data.language import language
from mathse.seeds import derive
from mathse.types import Problem

SAMPLES = 24  # rows shown
LENGTHS = (50, 100, 200, 400, 800, 1600)  # characters of a question, the upper ends of what is counted together
SIDES = (64, 128, 256, 512, 1024, 2048, 4096)  # pixels of a picture's long side


class DataCounts:
    """Adds up row by row; of 500,000 rows it keeps a few numbers each."""

    def __init__(self) -> None:
        self.rows = 0
        self.samples: list[Problem] = []
        self._by: dict[str, Counter[str]] = {name: Counter() for name in ("source", "language", "answer", "pictures")}
        self._lengths, self._sides = array("L"), array("L")
        self._keys: list[int] = []
        self._pictures: Counter[str] = Counter()

    def add(self, problem: Problem, row: ComparedRow) -> None:
        self.rows += 1
        values = {
            "source": problem.source or "-",
            "language": str(problem.metadata.get("language") or language(problem.question, problem.choices)),
            "answer": answer_form(problem.answer, problem.choices).kind,
            "pictures": str(len(problem.images)),
        }
        for name, value in values.items():
            self._by[name][value] += 1
        self._lengths.append(len(problem.question))
        for image in row.images:
            self._sides.append(max(image.grey.shape))
            self._pictures[image.pixels] += 1

        # Samples are those whose ids hash lowest: the same ones each time, spread over the whole set.
        key = derive(0, "sample", problem.id)
        if len(self._keys) < SAMPLES or key < self._keys[-1]:
            index = sum(known < key for known in self._keys)
            self._keys.insert(index, key)
            self.samples.insert(index, problem)
            del self._keys[SAMPLES:], self.samples[SAMPLES:]

    def to_json(self) -> dict[str, Any]:
        shared = sum(count - 1 for count in self._pictures.values())
        return {
            **{f"by_{name}": dict(counter.most_common()) for name, counter in self._by.items()},
            "question_length": _spread(self._lengths, LENGTHS),
            "picture_side": _spread(self._sides, SIDES),
            "pictures_shown_again": shared,
        }


def _spread(values: Sequence[int], ends: Sequence[int]) -> dict[str, Any]:
    """Least, middle and greatest value, and how many there are up to each end."""
    if not values:
        return {"least": None, "median": None, "greatest": None, "up_to": {}}
    ordered = sorted(values)
    counts = [sum(low < value <= high for value in ordered) for low, high in zip((0, *ends), ends, strict=False)]
    up_to = {f"{end:,}": count for end, count in zip(ends, counts, strict=True)}
    beyond = {f"more than {ends[-1]:,}": sum(value > ends[-1] for value in ordered)}
    return {
        "least": ordered[0],
        "median": ordered[len(ordered) // 2],
        "greatest": ordered[-1],
        "up_to": {name: count for name, count in (up_to | beyond).items() if count},
    }
