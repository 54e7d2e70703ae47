"""One line of a JSONL file -> one Problem, or the reason why not (file and line are the caller's to add)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, cast

from mathse.answers import choice_index
from mathse.errors import DataError
from mathse.images import load_image
from mathse.types import Problem

REQUIRED = ("id", "question", "images", "answer")
FIELDS = (*REQUIRED, "choices", "solution")
MAX_LINE = 10_000_000  # bytes; a longer one is no row of text
_KINDS = {
    str: "text",
    list: "a list",
    dict: "an object",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


@dataclass(frozen=True)
class Row:
    """What became of a line (counted from 1): a problem, or an id (where one was readable) and a reason."""

    line: int
    id: str | None
    problem: Problem | None
    reason: str = ""


class BadRow(DataError):
    """Why a row cannot be used; caught by ``read_rows``."""


def read_rows(path: Path, seen: dict[str, str]) -> Iterator[Row]:
    """Every non-blank line of a JSONL or .jsonl.gz file.

    ``seen``: id -> "file:line" of the rows read so far, extended here; an id that is in it is a bad row. Every image is
    decoded once. Raises DataError if the file itself cannot be read.
    """
    decoded: set[str] = set()
    for number, line in _lines(path):
        where = f"{path.name}:{number}"
        values: dict[str, Any] = {}
        try:
            values = _object(line)
            problem = _problem(values, path, decoded)
            if problem.id in seen:
                raise BadRow(f'"id" {problem.id!r} stands already at {seen[problem.id]}; ids are unique, rename one')
        except BadRow as error:
            found = values.get("id")
            yield Row(number, found if isinstance(found, str) else None, None, str(error))
        else:
            seen[problem.id] = where
            yield Row(number, problem.id, problem)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of each line that is not blank, without a byte order mark."""
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file (looked for {path.absolute()}); set data.path to your JSONL file")
        if not path.is_file():
            raise DataError(f"{path}: a folder, not a file; set data.path to the JSONL file in it")
        with cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(f"{path}:{number}: a line of more than {MAX_LINE:,} bytes; write one row a line")
                line = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
                if line:
                    yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); compress it again, or drop the ending .gz") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its mode and its disk") from None


def _object(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadRow(f"broken JSON: {error.msg} at column {error.colno}; write one JSON object a line") from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, nesting of thousands of levels
        raise BadRow("JSON beyond all bounds; write one flat JSON object a line") from None
    if not isinstance(values, dict):
        raise BadRow(f"a row is a JSON object, got {_kind(values)}; write {{{', '.join(REQUIRED)}}}")
    return values


def _problem(values: Mapping[str, Any], path: Path, decoded: set[str]) -> Problem:
    _check_names(values)
    identity = _text(values, "id")
    if not identity.isprintable() or identity != identity.strip():
        raise BadRow(f'"id" {identity!r} has blanks around it or control characters; use plain printable text')
    question, answer = _text(values, "question"), _text(values, "answer")
    choices = _texts(values, "choices")
    if choices and choice_index(answer, choices) is None:
        last = chr(ord("A") + len(choices) - 1)
        raise BadRow(f'"answer" {answer!r} is neither a letter A-{last} nor one of "choices"; correct one of them')
    return Problem(
        id=identity,
        question=question,
        images=tuple(_image(ref, path.parent, decoded) for ref in _texts(values, "images")),
        answer=answer,
        choices=choices,
        solution=_text(values, "solution") if values.get("solution") else None,
        source=path.name,
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
    return _checked_text(values[name], f'"{name}"')


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = values.get(name)
    if value is None and name not in REQUIRED:
        return ()
    if not isinstance(value, list):
        raise BadRow(f'"{name}" is a list of texts, got {_kind(value)}; write ["...", ...]')
    return tuple(_checked_text(item, f'"{name}"[{position}]') for position, item in enumerate(value))


def _checked_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} is text, got {_kind(value)}; put it in quotes")
    if not value.strip():
        raise BadRow(f"{name} is empty; fill it in")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name} holds half of a surrogate pair; write the character itself") from None
    return value


def _kind(value: object) -> str:
    shown = f" {value!r:.40}" if isinstance(value, (int, float)) else ""
    return _KINDS[type(value)] + shown


def _image(ref: str, folder: Path, decoded: set[str]) -> str:
    """The absolute path of an image that lies inside ``folder`` and decodes."""
    outside = PurePosixPath(ref).is_absolute() or PureWindowsPath(ref).anchor or ".." in PurePosixPath(ref).parts
    if outside or "\\" in ref or "\x00" in ref:
        raise BadRow(f"image {ref!r}: only paths inside the file's folder are allowed, with / and no ..; copy it there")
    root = folder.resolve()
    try:
        target = (root / ref).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long
        raise BadRow(f"image {ref!r}: no usable path ({error}); rename it") from None
    if not target.is_relative_to(root):
        raise BadRow(f"image {ref!r}: a link that leads out of the file's folder; copy the image there")
    if str(target) not in decoded:
        try:
            load_image(str(target))
        except DataError as error:
            raise BadRow(str(error).replace(str(target), ref)) from None
        decoded.add(str(target))
    return str(target)
