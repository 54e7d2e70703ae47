"""A problem at its source: as the run recorded it, and as the source is now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.commands.lineage.lines import read_lines
from mathse.data.content_hashes import content_hashes
from mathse.data.domains import recorded_domain
from mathse.data.images import image_size, stored_sha256
from mathse.data.labelled_paths import read_labelled
from mathse.data.problems import location
from mathse.data.source_terms import UNKNOWN, terms_of
from mathse.data.sources import recorded_data, recorded_source
from mathse.errors import ConfigError, DataError
from mathse.evolution.problems import describe_origin, resolve_image
from mathse.runs.layout import SOURCES
from mathse.runs.reader import Run
from mathse.types import Problem


@dataclass(frozen=True)
class ImageState:
    """An image then and now.

    Attributes:
        sha256: as the run recorded it; None if the run did not.
        now: SHA-256 of the current file; None if it cannot be read.
        size: width and height in pixels.
    """

    image: str
    sha256: str | None
    now: str | None
    size: tuple[int, int] | None

    @property
    def state(self) -> str:
        if self.now is None:
            return "not found"
        if self.sha256 is None:
            return "not recorded"
        return "unchanged" if self.now == self.sha256 else "changed"


@dataclass(frozen=True)
class TracedProblem:
    """The origin of a problem.

    Attributes:
        recorded: whether it is from the run's base/sources.jsonl; otherwise from the current source.
        problem: the problem as it is in the source now.
        notes: unknown or changed facts.
    """

    problem_id: str
    recorded: bool
    file: str
    line: int | None
    split: str | None
    source: str
    licence: str
    images: tuple[ImageState, ...]
    problem: Problem | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "problem_id": self.problem_id,
            "recorded": self.recorded,
            **{key: getattr(self, key) for key in ("file", "line", "split", "source", "licence")},
            "question": self.problem.question if self.problem else None,
            "answer": self.problem.answer if self.problem else None,
            "images": [{"image": i.image, "sha256": i.sha256, "now": i.now, "state": i.state} for i in self.images],
            "notes": list(self.notes),
        }


def trace_problem(run: Run, problem_id: str) -> TracedProblem:
    """Return the origin of a problem of the run."""
    recorded = read_recorded_row(run, problem_id)
    notes = list(_find_changes(run))
    # The source may have changed or moved since the run; then the recorded row remains.
    problem: Problem | None = None
    current: dict[str, Any] = {}
    try:
        problem, current = _read_now(run, problem_id, only_labelled=recorded is None)
    except (ConfigError, DataError, OSError) as error:
        notes.append(f"the problem cannot be read now: {error}")
    row: Mapping[str, Any] = recorded or {}
    if recorded is None and problem is not None:
        notes.append("the run did not record this problem, so file, line and images are the current ones")
        row = {**current, "image_sha256": [None] * len(problem.images)}

    # Compare each image with the recorded hash.
    file, source = str(row.get("file", "")), str(row.get("source", ""))
    images = []
    for image, digest in zip(row.get("images", []), row.get("image_sha256", []), strict=True):
        ref = resolve_image(file, image)
        try:
            images.append(ImageState(image, digest, stored_sha256(ref), image_size(ref)))
        except (ConfigError, DataError, OSError):
            images.append(ImageState(image, digest, None, None))
    return TracedProblem(
        problem_id,
        recorded is not None,
        file,
        row.get("line"),
        row.get("split"),
        source,
        terms_of(run.config["data"]).get(source, UNKNOWN).licence,
        tuple(images),
        problem,
        tuple(notes),
    )


def read_recorded_row(run: Run, problem_id: str) -> Mapping[str, Any] | None:
    """Return the problem's row of base/sources.jsonl, or None."""
    base = run.stage("base")
    rows = read_lines(base, SOURCES, problem_id) if base else iter(())
    return next((line.row for line in rows if line.row["problem_id"] == problem_id), None)


def _read_now(run: Run, problem_id: str, only_labelled: bool) -> tuple[Problem, dict[str, Any]]:
    """Return the problem as it is in its source now, and its row of sources.jsonl.

    Args:
        only_labelled: whether the problem may come from the user's labelled paths for the ORM (``orm.train``,
            ``orm.held``).
    """
    source = recorded_source(run.config)
    labelled_files = [run.config["orm"].get("train"), run.config["orm"].get("held")] if only_labelled else []
    for file in labelled_files:
        if file is None:
            continue
        for row in read_labelled(Path(file), source.get, recorded_domain(run.config)):
            if row.problem.id == problem_id:
                return row.problem, describe_origin(row.problem, file, row.line)
    problem: Problem = source.get(problem_id)
    return problem, describe_origin(problem, *location(source, problem))


def _find_changes(run: Run) -> Iterator[str]:
    """Yield the differences between the data's current files and the files that the run read."""
    base = run.stage("base")
    recorded: Mapping[str, Any] = base.settings if base else {}
    try:
        now = content_hashes(recorded_data(run.config))
    except (ConfigError, DataError, OSError) as error:
        yield f"the source is gone, or has moved: {error}"
        return
    for key, digest in now.items():
        if recorded.get(key, digest) != digest:
            yield f"the source has changed since the run: {key} was {recorded[key]}, and is {digest} now"


def hash_images(problem: Problem) -> list[str] | None:
    """Return the hashes of a problem's current images, or None if an image cannot be read."""
    try:
        return [stored_sha256(ref) for ref in problem.images]
    except (ConfigError, DataError, OSError):
        return None
