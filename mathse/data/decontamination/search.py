"""Training rows compared with benchmarks' problems, one at a time: the rows of decontamination.jsonl, and their counts.

    {"id": "own/17", "file": "own.jsonl", "line": 18, "against": "test.jsonl", "against_id": "1220",
     "by": ["near_question"], "similarity": 0.93, "counts": true, "dropped": true}

``by`` names what holds: question, near_question, image, near_image; or duplicate, for a row that repeats an earlier one
of the training data (``against_id``), which is never dropped.
"""

from __future__ import annotations

from typing import Any

from mathse.data.decontamination.duplicates import Duplicates
from mathse.data.decontamination.index import Index, Seen
from mathse.data.problems import ProblemSource, where
from mathse.types import Problem


class Search:
    """``counts``: rows compared; ``matched`` ones, that are in a benchmark; ``weak`` ones, that share a question which
    does not tell which problem it is; ``dropped`` and ``duplicates`` ones; and ``pairs`` in all."""

    def __init__(self, index: Index, source: ProblemSource, drop: bool) -> None:
        self.index, self.source, self.drop = index, source, drop
        self.counts = dict.fromkeys(("rows", "pairs", "matched", "weak", "dropped", "duplicates"), 0)
        self._duplicates = Duplicates()

    def rows(self, problem: Problem, seen: Seen | None = None) -> list[dict[str, Any]]:
        """What there is to report of a training row; ``seen``: where its pictures are open already."""
        seen = seen or Seen.of(problem)
        file, line = where(self.source, problem)
        place = {"id": problem.id, "file": file, "line": line}
        pairs = self.index.pairs(seen)
        found = [{**place, **pair.to_json(), "dropped": self.drop and pair.counts} for pair in pairs]
        first = self._duplicates.first(problem, seen)
        self._count(found, first is not None)
        if first is not None:
            same = {"against": file, "against_id": first, "by": ["duplicate"], "similarity": 1.0, "counts": False}
            found.append({**place, **same, "dropped": False})
        return found

    def _count(self, pairs: list[dict[str, Any]], duplicate: bool) -> None:
        matched = any(pair["counts"] for pair in pairs)
        self.counts["rows"] += 1
        self.counts["pairs"] += len(pairs)
        self.counts["matched"] += matched
        self.counts["weak"] += bool(pairs) and not matched
        self.counts["dropped"] += any(pair["dropped"] for pair in pairs)
        self.counts["duplicates"] += duplicate
