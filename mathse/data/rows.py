"""One row of a file -> one Problem, or the reason why not.

A row is {"id", "question", "images", "answer", "choices"?, "solution"?}; other keys go to ``Problem.metadata``. Readers
of published sets bring their records into this form first, so all of them are checked alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mathse.data.hub_table import Reference
from mathse.data.images import check_header, load_image
from mathse.data.records import BadRow, Record, kind, read_lines
from mathse.errors import DataError
from mathse.scoring.answers import choice_index
from mathse.types import Problem

REQUIRED = ("id", "question", "images", "answer")
FIELDS = (*REQUIRED, "choices", "solution")
EAGER = 5_000  # images that are decoded when a source is opened; of the others the headers are read then


@dataclass(frozen=True)
class Row:
    """What became of a record (which begins in ``line``, from 1): a problem, or an id (where one was readable) and a
    reason."""

    file: str
    line: int
    id: str | None
    problem: Problem | None
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """A line of bad_rows.jsonl."""
        return {"file": self.file, "line": self.line, "id": self.id, "reason": self.reason}


@dataclass
class Images:
    """Which images were looked at, and how closely: the first ``eager`` of them are decoded, so that a small set is
    known to be whole when it is opened; of the others only the header is read, and a run decodes them in its first
    stage."""

    eager: int = EAGER
    decoded: set[str] = field(default_factory=set)
    headed: set[str] = field(default_factory=set)

    def check(self, path: str) -> None:
        """Raises DataError, naming ``path``, for an image that cannot be used."""
        if path in self.decoded or path in self.headed:
            return
        if len(self.decoded) < self.eager:
            load_image(path)
            self.decoded.add(path)
        else:
            check_header(path)
            self.headed.add(path)


def read_rows(path: Path, images: Images) -> Iterator[Row]:
    """Every non-blank line of a JSONL or .jsonl.gz file. Raises DataError if the file itself cannot be read."""
    for record in read_lines(path):
        yield checked(record, str(path), path.parent, images, path.name)


def checked(record: Record, file: str, root: Path, images: Images, source: str) -> Row:
    """``record`` in the form of a row -> its problem, whose images lie below ``root``."""
    values = record.values or {}
    try:
        if record.values is None:
            raise BadRow(record.reason)
        problem = problem_of(values, root, images, source)
    except BadRow as error:
        found = values.get("id")
        return Row(file, record.line, found if isinstance(found, str) else None, None, str(error))
    return Row(file, record.line, problem.id, problem)


def problem_of(values: Mapping[str, Any], root: Path, images: Images, source: str) -> Problem:
    """Raises BadRow for values that make no problem."""
    _check_names(values)
    identity = _text(values, "id")
    if not identity.isprintable() or identity != identity.strip():
        raise BadRow(f'"id" {identity!r:.80} has blanks around it or control characters; use plain printable text')
    question, answer = _text(values, "question"), _text(values, "answer")
    choices = _texts(values, "choices")
    if choices and choice_index(answer, choices) is None:
        last = chr(ord("A") + len(choices) - 1)
        raise BadRow(f'"answer" {answer!r:.80} is neither a letter A-{last} nor one of "choices"; correct one of them')
    return Problem(
        id=identity,
        question=question,
        images=tuple(_image(ref, root, images) for ref in _texts(values, "images")),
        answer=answer,
        choices=choices,
        solution=_text(values, "solution") if values.get("solution") else None,
        source=source,
        metadata={key: value for key, value in values.items() if key not in FIELDS},
    )


def _check_names(values: Mapping[str, Any]) -> None:
    """All required keys, and none that looks like a misspelt one; other keys are free."""
    for name in values:
        near = None if name in FIELDS else _nearest_field(name)
        if near and near not in values:
            raise BadRow(f'unknown key "{name}"; did you mean "{near}"?')
    if missing := [name for name in REQUIRED if name not in values]:
        raise BadRow(f'"{missing[0]}" is missing; a row has {", ".join(REQUIRED)}')


@lru_cache  # the same keys come with every row
def _nearest_field(name: str) -> str | None:
    return next(iter(get_close_matches(name, FIELDS, n=1, cutoff=0.8)), None)


def _text(values: Mapping[str, Any], name: str) -> str:
    return checked_text(values[name], f'"{name}"')


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = values.get(name)
    if value is None and name not in REQUIRED:
        return ()
    if not isinstance(value, list):
        raise BadRow(f'"{name}" is a list of texts, got {kind(value)}; write ["...", ...]')
    return tuple(checked_text(item, f'"{name}"[{position}]') for position, item in enumerate(value))


def checked_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} is text, got {kind(value)}; put it in quotes")
    if not value.strip():
        raise BadRow(f"{name} is empty; fill it in")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name} holds half of a surrogate pair; write the character itself") from None
    return value


def _image(ref: str, root: Path, images: Images) -> str:
    """The absolute path of an image that lies inside ``root`` and can be used."""
    target = ref if isinstance(ref, Reference) else inside(ref, root)
    try:
        images.check(target)
    except DataError as error:
        raise BadRow(str(error).replace(target, f"{ref:.80}")) from None
    return target


def inside(ref: str, root: Path) -> str:
    """The absolute path of ``ref`` below ``root``. Raises BadRow where it, or a link on the way, leads out, and for a
    name that no file can have."""
    outside = PurePosixPath(ref).is_absolute() or PureWindowsPath(ref).anchor or ".." in PurePosixPath(ref).parts
    if outside or "\\" in ref or "\x00" in ref:
        raise BadRow(
            f"image {ref!r:.80}: only paths inside the file's folder are allowed, with / and no ..; copy it there"
        )
    root = _resolved(root.absolute())
    try:
        target = (root / ref).resolve()
        target.is_file()  # which names too long refuse
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        said = error.strerror if isinstance(error, OSError) else "a loop of links"
        raise BadRow(f"image {ref!r:.80}: no usable path ({said}); rename it") from None
    if not target.is_relative_to(root):
        raise BadRow(f"image {ref!r:.80}: a link that leads out of the file's folder; copy the image there")
    return str(target)


@lru_cache(maxsize=64)
def _resolved(root: Path) -> Path:
    return root.resolve()
