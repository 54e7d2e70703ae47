"""A problem at its source: what the run recorded of it, and what stands there now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.commands.lineage.lines import rows_of
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
    """``sha256``: as the run recorded it; ``now``: of what is there today, None where it cannot be read."""

    image: str
    sha256: str | None
    now: str | None
    size: tuple[int, int] | None  # width and height in pixels

    @property
    def state(self) -> str:
        if self.now is None:
            return "not found"
        if self.sha256 is None:
            return "not recorded"
        return "unchanged" if self.now == self.sha256 else "changed"


@dataclass(frozen=True)
class TracedProblem:
    """Where a problem came from. ``recorded``: by the run itself, in base/sources.jsonl; else looked up today."""

    problem_id: str
    recorded: bool
    file: str
    line: int | None
    split: str | None
    source: str
    licence: str
    images: tuple[ImageState, ...]
    problem: Problem | None  # as it stands in the source now
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
    """A problem of the run; the notes name what cannot be known any more."""
    recorded = recorded_row(run, problem_id)
    notes = list(_changes(run))
    problem: Problem | None = None
    current: dict[str, Any] = {}
    try:
        problem, current = _today(run, problem_id, only_labelled=recorded is None)
    except (ConfigError, DataError, OSError) as error:
        notes.append(f"the problem cannot be read now: {error}")
    row: Mapping[str, Any] = recorded or {}
    if recorded is None and problem is not None:
        notes.append("the run did not record this problem, so file, line and images are those of today")
        row = {**current, "image_sha256": [None] * len(problem.images)}

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


def recorded_row(run: Run, problem_id: str) -> Mapping[str, Any] | None:
    """The problem's row of base/sources.jsonl; None where the run has none."""
    base = run.stage("base")
    rows = rows_of(base, SOURCES, problem_id) if base else iter(())
    return next((line.row for line in rows if line.row["problem_id"] == problem_id), None)


def _today(run: Run, problem_id: str, only_labelled: bool) -> tuple[Problem, dict[str, Any]]:
    """The problem as it stands in its source, and where.

    ``only_labelled``: it may be one that only the user's own labelled paths bring, for the ORM (``orm.train``,
    ``orm.held``).
    """
    source = recorded_source(run.config)
    files = [file for key in ("train", "held") if (file := run.config["orm"].get(key)) is not None]
    for file in files if only_labelled else ():
        for row in read_labelled(Path(file), source.get, recorded_domain(run.config)):
            if row.problem.id == problem_id:
                return row.problem, describe_origin(row.problem, file, row.line)
    problem: Problem = source.get(problem_id)
    return problem, describe_origin(problem, *location(source, problem))


def _changes(run: Run) -> Iterator[str]:
    """What the data's files hold now against what the run's stages depend on."""
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


def image_hashes(problem: Problem) -> list[str] | None:
    """The hashes of a problem's images as they are now; None where one cannot be read."""
    try:
        return [stored_sha256(ref) for ref in problem.images]
    except (ConfigError, DataError, OSError):
        return None
