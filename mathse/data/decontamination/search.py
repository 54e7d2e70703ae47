"""Search of training rows in benchmarks: the rows of decontamination.jsonl, and their counts.

    {"id": "own/17", "file": "own.jsonl", "line": 18, "against": "test.jsonl", "against_id": "1220",
     "by": ["near_question"], "similarity": 0.93, "counts": true, "dropped": true}

``by``: the criteria that hold, out of question, near_question, image, near_image; or duplicate, for a row that repeats
an earlier row of the training data (``against_id``), which is never dropped.
"""

from __future__ import annotations

import hashlib
from typing import Any

from mathse.data.decontamination.index import ComparedRow, Index
from mathse.data.problems import ProblemSource, location
from mathse.types import Problem


class Search:
    """The search of a source's rows in an index.

    ``counts``: rows compared, matched rows (in a benchmark), weak rows (only a question that is not distinctive is
    shared), dropped rows, duplicates, and pairs in total.
    """

    def __init__(self, index: Index, source: ProblemSource, drop: bool) -> None:
        self.index, self.source, self.drop = index, source, drop
        self.counts = dict.fromkeys(("rows", "pairs", "matched", "weak", "dropped", "duplicates"), 0)
        self._duplicates = Duplicates()

    def rows(self, problem: Problem, row: ComparedRow | None = None) -> list[dict[str, Any]]:
        """Search a training row and list its report rows; ``row``: its prepared form, if it exists already."""
        row = row or ComparedRow.of(problem)
        file, line = location(self.source, problem)
        head = {"id": problem.id, "file": file, "line": line}
        pairs = self.index.pairs(row)
        reported = [{**head, **pair.to_json(), "dropped": self.drop and pair.counts} for pair in pairs]
        first = self._duplicates.first(problem, row)

        matched = any(pair.counts for pair in pairs)
        self.counts["rows"] += 1
        self.counts["pairs"] += len(pairs)
        self.counts["matched"] += matched
        self.counts["weak"] += bool(pairs) and not matched
        self.counts["dropped"] += self.drop and matched
        self.counts["duplicates"] += first is not None

        if first is not None:
            same = {"against": file, "against_id": first, "by": ["duplicate"], "similarity": 1.0, "counts": False}
            reported.append({**head, **same, "dropped": False})
        return reported


class Duplicates:
    """Rows of training data with an equal question about equal images. Needs eight bytes per row."""

    def __init__(self) -> None:
        self._first_ids: dict[bytes, str] = {}  # by digest

    def first(self, problem: Problem, row: ComparedRow) -> str | None:
        """Find the id of an earlier row with an equal question about equal images, or None.

        Images are compared pixel by pixel: drawings of one template with other labels may have one perceptual hash, and
        their answers differ rightly.
        """
        if len(row.images) < row.named or not (row.question.text or row.images):
            return None  # an image that cannot be opened may be any image
        images = [image.pixels.encode() for image in row.images]
        contents = [row.question.text.encode("utf-8", "surrogatepass"), *images]
        digest = hashlib.blake2b(b"\x00".join(contents), digest_size=8).digest()
        first = self._first_ids.setdefault(digest, problem.id)
        return None if first == problem.id else first
