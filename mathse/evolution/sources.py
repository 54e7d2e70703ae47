"""Where the problems of a run came from, as the run met them: ``base/sources.jsonl``, a row a problem, split by split.

    {"problem_id": "geo/12", "split": "pool", "file": "data/geo.jsonl", "line": 12, "source": "geo.jsonl",
     "images": ["images/12.png"], "image_sha256": ["5f0c..."]}

``images`` are paths from the file's folder, or references of pictures that are drawn or lie in a table. A hash is that
of the image's bytes as they are stored (what ``sha256sum`` prints), of a drawn picture that of its pixels. Files may
change after a run; this says what it was trained on. Written before the first fit and never again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.data.images import has_scheme, stored_sha256
from mathse.data.problems import ProblemSource, location
from mathse.runs.layout import SOURCES
from mathse.runs.store import write_jsonl
from mathse.types import Problem

if TYPE_CHECKING:
    from mathse.evolution.context import RunContext
    from mathse.evolution.problems import RunProblems
    from mathse.runs.stage_cache import Stage

RECENT = 4096  # images whose hash is kept: problems about the same picture mostly stand together


def record_sources(context: RunContext, problems: RunProblems, stage: Stage) -> None:
    """Write the file into the stage's folder, where it is not there yet."""
    file = stage.path / SOURCES
    if file.exists():
        return
    digest = lru_cache(RECENT)(stored_sha256)
    with context.track("image hashes", sum(map(len, problems.splits.values()))) as track:

        def rows() -> Iterator[dict[str, Any]]:
            for split, in_split in problems.splits.items():
                for problem in in_split:
                    hashes = [digest(ref) for ref in problem.images]
                    from_file = origin(problems.source, problem)
                    yield {"problem_id": problem.id, "split": split, **from_file, "image_sha256": hashes}
                    track.advance(1)

        write_jsonl(file, rows())


def origin(source: ProblemSource, problem: Problem) -> dict[str, Any]:
    """The file and line of a problem, and its images as seen from there."""
    return origin_at(problem, *location(source, problem))


def origin_at(problem: Problem, file: str, line: int | None) -> dict[str, Any]:
    """The same of a problem whose file and line are known."""
    images = [ref if has_scheme(ref) else os.path.relpath(ref, _folder(file)) for ref in problem.images]
    return {"file": file, "line": line, "source": problem.source, "images": images}


def image_at(file: str, image: str) -> str:
    """The reference of an image in a row of sources.jsonl, which ``images.load_image`` opens."""
    return image if has_scheme(image) else os.path.normpath(os.path.join(_folder(file), image))


@lru_cache(maxsize=64)
def _folder(file: str) -> str:
    return str(Path(file).parent.resolve())
