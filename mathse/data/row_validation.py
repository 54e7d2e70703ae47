"""Validation of a row: it becomes a Problem, or the reason why not.

A row is {"id", "question", "images", "answer", "choices"?, "solution"?}; other keys go to ``Problem.metadata``. Readers
of published sets bring their records into this form first, so that all rows are validated alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mathse.data.hub_table import ImageReference
from mathse.data.images import check_header, load_image
from mathse.data.json_records import BadRow, JsonRecord, kind
from mathse.data.picture_marks import count, marks_disagree, without_those_in_front
from mathse.errors import DataError
from mathse.scoring.answers import choice_index
from mathse.types import Problem

REQUIRED = ("id", "question", "images", "answer")
FIELDS = (*REQUIRED, "choices", "solution")
MAX_DECODED_AT_START = 5_000  # images; of further images only the header is read when a source is opened


@dataclass(frozen=True)
class ValidatedRow:
    """The outcome for a record that begins in ``line`` (from 1): a problem, or the reason why there is none.

    ``id``: id of the record if it was readable. ``record``: number of the record, for files with several in a line.
    """

    file: str
    line: int
    id: str | None
    problem: Problem | None
    reason: str = ""
    record: int | None = None

    def to_json(self) -> dict[str, object]:
        """Make a line of bad_rows.jsonl."""
        row = {"file": self.file, "line": self.line, "id": self.id, "reason": self.reason}
        return row if self.record is None else row | {"record": self.record}


@dataclass
class ImageChecks:
    """The images that were checked. The first ``eager`` images are decoded, which covers a small set completely. Of
    further images only the header is read, and a run decodes them in its first stage."""

    eager: int = MAX_DECODED_AT_START
    decoded: set[str] = field(default_factory=set)
    headed: set[str] = field(default_factory=set)  # images with a checked header

    def check(self, path: str) -> None:
        """Raise DataError, naming ``path``, for an image that cannot be used."""
        if path in self.decoded or path in self.headed:
            return
        if len(self.decoded) < self.eager:
            load_image(path)
            self.decoded.add(path)
        else:
            check_header(path)
            self.headed.add(path)


def validate(record: JsonRecord, file: str, root: Path, images: ImageChecks, source: str) -> ValidatedRow:
    """Validate a record in the form of a row; its images must lie below ``root``."""
    values = record.values or {}
    try:
        if record.values is None:
            raise BadRow(record.reason)
        problem = problem_from(values, root, images, source)
    except BadRow as error:
        row_id = values.get("id")
        known_id = row_id if isinstance(row_id, str) else None
        return ValidatedRow(file, record.line, known_id, None, str(error), record.number)
    return ValidatedRow(file, record.line, problem.id, problem, record=record.number)


def problem_from(values: Mapping[str, Any], root: Path, images: ImageChecks, source: str) -> Problem:
    """Make the problem of a row. Raises BadRow for values that make none."""
    check_names(values, FIELDS)
    if (missing := missing_keys(values)) is not None:
        raise BadRow(missing)

    # 1) Texts.
    problem_id = text_field(values, "id")
    if not problem_id.isprintable() or problem_id != problem_id.strip():
        raise BadRow(f'"id" {problem_id!r:.80} has blanks around it or control characters; use plain printable text')

    question, answer = text_field(values, "question"), text_field(values, "answer")
    choices = _texts_field(values, "choices")
    if choices and choice_index(answer, choices) is None:
        last = chr(ord("A") + len(choices) - 1)
        raise BadRow(f'"answer" {answer!r:.80} is neither a letter A-{last} nor one of "choices"; correct one of them')

    # 2) Images, and the marks of their places: no mark, or a mark for each image.
    refs = _texts_field(values, "images")
    if (marks := count(question, choices)) not in (0, len(refs)):
        raise BadRow(marks_disagree(marks, len(refs)))
    if not count("", choices):
        question = without_those_in_front(question)

    paths = []
    for ref in refs:
        path = ref if isinstance(ref, ImageReference) else path_inside(ref, root)
        try:
            images.check(path)
        except DataError as error:
            # Show the path as the row has it.
            raise BadRow(str(error).replace(path, f"{ref:.80}")) from None
        paths.append(path)

    return Problem(
        id=problem_id,
        question=question,
        images=tuple(paths),
        answer=answer,
        choices=choices,
        solution=text_field(values, "solution") if values.get("solution") else None,
        source=source,
        metadata={key: value for key, value in values.items() if key not in FIELDS},
    )


def missing_keys(values: Mapping[str, Any]) -> str | None:
    """Write a sentence about the required keys that a row lacks; None if it has all."""
    missing = [f'"{name}"' for name in REQUIRED if name not in values]
    verb = "is" if len(missing) == 1 else "are"
    return f"{', '.join(missing)} {verb} missing; a row has {', '.join(REQUIRED)}" if missing else None


def check_names(values: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Raise BadRow for a key that looks like a misspelt field; other keys are free."""
    for name in values:
        near = _nearest(name, tuple(fields))
        if near is not None and near not in values:
            raise BadRow(f'unknown key "{name}"; did you mean "{near}"?')


@lru_cache  # every row has the same keys
def _nearest(name: str, fields: tuple[str, ...]) -> str | None:
    return None if name in fields else next(iter(get_close_matches(name, fields, n=1, cutoff=0.8)), None)


def text_field(values: Mapping[str, Any], name: str) -> str:
    """Read a field with text. Raises BadRow for another value and for empty text."""
    return _text(values[name], f'"{name}"')


def _texts_field(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = values.get(name)
    if value is None and name not in REQUIRED:
        return ()
    if not isinstance(value, list):
        raise BadRow(f'"{name}" is a list of texts, got {kind(value)}; write ["...", ...]')
    return tuple(_text(item, f'"{name}"[{position}]') for position, item in enumerate(value))


def _text(value: object, name: str) -> str:
    """Return ``value`` if it is text, is not blank, and has a form in UTF-8. Raises BadRow otherwise."""
    if not isinstance(value, str):
        raise BadRow(f"{name} is text, got {kind(value)}; put it in quotes")
    if not value.strip():
        raise BadRow(f"{name} is empty; fill it in")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name} holds half of a surrogate pair; write the character itself") from None
    return value


def path_inside(ref: str, root: Path) -> str:
    """Resolve ``ref`` to an absolute path below ``root``.

    A data file may come from anybody and must not make us read other files. Raises BadRow if the path, or a link on the
    way, leads out of ``root``, and for an impossible file name.
    """
    outside = PurePosixPath(ref).is_absolute() or PureWindowsPath(ref).anchor or ".." in PurePosixPath(ref).parts
    if outside or "\\" in ref or "\x00" in ref:
        raise BadRow(
            f"image {ref!r:.80}: only paths inside the file's folder are allowed, with / and no ..; copy it there"
        )
    root = _resolve(root.absolute())
    try:
        target = (root / ref).resolve()
        target.is_file()  # raises OSError for a name that is too long
    except (OSError, RuntimeError, UnicodeEncodeError) as error:
        kinds = {UnicodeEncodeError: "half of a surrogate pair", RuntimeError: "a loop of links"}
        cause = kinds.get(type(error), getattr(error, "strerror", ""))
        raise BadRow(f"image {ref!r:.80}: no usable path ({cause}); rename it") from None
    if not target.is_relative_to(root):
        raise BadRow(f"image {ref!r:.80}: a link that leads out of the file's folder; copy the image there")
    return str(target)


@lru_cache(maxsize=64)
def _resolve(root: Path) -> Path:
    return root.resolve()
