"""A problem at its source: what the run recorded of it, and what stands there now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.commands.lineage.lines import rows_of
from mathse.config.bind import Notes, bind, prototype
from mathse.data.content_hashes import content_hashes
from mathse.data.images import image_size, stored_sha256
from mathse.data.labelled_paths import read_labelled
from mathse.data.source_terms import UNKNOWN, terms_of
from mathse.data.sources import recorded_source
from mathse.errors import ConfigError, DataError
from mathse.evolution.sources import image_at, origin, origin_at
from mathse.runs.layout import SOURCES
from mathse.runs.reader import Run
from mathse.types import Problem


@dataclass(frozen=True)
class ImageState:
    """``sha256``: as the run recorded it; ``now``: of what is there today, None where it cannot be read."""

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
class Found:
    """Where a problem came from. ``recorded``: said by the run itself, in base/sources.jsonl; else found today."""

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
        shown = self.problem
        return {
            "problem_id": self.problem_id,
            "recorded": self.recorded,
            **{key: getattr(self, key) for key in ("file", "line", "split", "source", "licence")},
            "question": shown.question if shown else None,
            "answer": shown.answer if shown else None,
            "images": [{"image": i.image, "sha256": i.sha256, "now": i.now, "state": i.state} for i in self.images],
            "notes": list(self.notes),
        }


def find_problem(run: Run, problem_id: str) -> Found:
    """A problem of the run; what cannot be told any more is said in the notes."""
    recorded = recorded_row(run, problem_id)
    notes: list[str] = list(_changes(run))
    problem, place = _today(run, problem_id, notes)
    if recorded is None and problem is not None:
        notes.append("the run did not record this problem, so file, line and images are those of today")
        recorded = {**place, "image_sha256": [None] * len(problem.images)}
    row: Mapping[str, Any] = recorded or {}
    file = str(row.get("file", ""))
    digests = row.get("image_sha256", [])
    named = str(row.get("source", ""))
    return Found(
        problem_id,
        bool(row.get("problem_id")),
        file,
        row.get("line"),
        row.get("split"),
        named,
        terms_of(run.config["data"]).get(named, UNKNOWN).licence,
        tuple(_image(file, image, digest) for image, digest in zip(row.get("images", []), digests, strict=True)),
        problem,
        tuple(notes),
    )


def recorded_row(run: Run, problem_id: str) -> Mapping[str, Any] | None:
    """The problem's row of base/sources.jsonl; None where the run has none."""
    base = run.stage("base")
    rows = rows_of(base, SOURCES, problem_id) if base else iter(())
    return next((line.row for line in rows if line.row["problem_id"] == problem_id), None)


def _today(run: Run, problem_id: str, notes: list[str]) -> tuple[Problem | None, dict[str, Any]]:
    """The problem as it stands in its source, and where."""
    try:
        source = recorded_source(run.config)
        if (found := _labelled(run, source, problem_id)) is not None:
            return found
        problem: Problem = source.get(problem_id)
    except (ConfigError, DataError, OSError) as error:
        notes.append(f"the problem cannot be read now: {error}")
        return None, {}
    return problem, origin(source, problem)


def _labelled(run: Run, source: Any, problem_id: str) -> tuple[Problem, dict[str, Any]] | None:
    """A problem that only the user's own labelled paths bring, for the ORM (``orm.train``, ``orm.held``)."""
    files = [file for key in ("train", "held") if (file := run.config["orm"].get(key)) is not None]
    if not files or recorded_row(run, problem_id) is not None:
        return None
    rows = ((file, row) for file in files for row in read_labelled(Path(file), source.get))
    found = (
        (row.problem, origin_at(row.problem, file, row.line)) for file, row in rows if row.problem.id == problem_id
    )
    return next(found, None)


def _changes(run: Run) -> Iterator[str]:
    """What the data's files hold now against what the run's stages depend on."""
    base = run.stage("base")
    then: Mapping[str, Any] = base.settings if base else {}
    values = run.config["data"]
    section = prototype("data", None, values)
    try:
        now = content_hashes(bind(section, values, "data.", Notes())) if section is not None else {}
    except (DataError, OSError) as error:
        yield f"the source is gone, or has moved: {error}"
        return
    for key, digest in now.items():
        if then.get(key, digest) != digest:
            yield f"the source has changed since the run: {key} was {then[key]}, and is {digest} now"


def _image(file: str, image: str, digest: str | None) -> ImageState:
    ref = image_at(file, image)
    try:
        return ImageState(image, digest, stored_sha256(ref), image_size(ref))
    except (ConfigError, DataError, OSError):
        return ImageState(image, digest, None, None)


def image_hashes(problem: Problem | None) -> list[str] | None:
    """The hashes of a problem's images as they are now; None where one cannot be read."""
    if problem is None:
        return None
    try:
        return [stored_sha256(ref) for ref in problem.images]
    except (ConfigError, DataError, OSError):
        return None
