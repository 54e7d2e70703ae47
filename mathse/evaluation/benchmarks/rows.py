"""Benchmark files as they are published -> rows, each with the place it came from.

Read are a JSON list, a JSON object of id -> row, and JSON lines; ``.gz`` too. Rows in our own format (id, question,
images, answer, choices) are read as the benchmark's own. Every mistake is one DataError with file, line and remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mathse.data.records import read_records
from mathse.errors import DataError
from mathse.types import mended

# A key that only one benchmark's rows have: for the error about another benchmark's file.
_TELLTALE = {"mathvista": "pid", "mathverse": "sample_index", "mathvision": "level"}


class Place(NamedTuple):
    """A row and where it stands: "test.jsonl:12"."""

    where: str
    row: dict[str, Any]


def read(path: Path, key: str) -> Iterator[Place]:
    """The rows of a file; ``key`` is the row's id in the benchmark, filled in from an object's keys."""
    empty = True
    for record in read_records(path, key):
        empty, where = False, f"{path}:{record.line}"
        if record.values is None:
            raise DataError(f"{where}: {record.reason}")
        yield Place(where, mended(record.values))
    if empty:
        raise DataError(f"{path}: the file is empty; give the benchmark's problems")


def checked(places: Iterable[Place], benchmark: str, key: str, required: Sequence[str]) -> Iterator[Place]:
    """Rows that have every required key and an id of their own; ids as text."""
    seen: dict[str, str] = {}
    for where, row in places:
        row = as_official(row, benchmark, key)
        missing = next((name for name in required if name not in row), None)
        if missing is not None:
            raise DataError(f'{where}: no row of {benchmark} (it has no "{missing}"); {_whose(row, benchmark)}')
        name = str(row[key])
        if name in seen:
            raise DataError(
                f'{where}: "{key}" {name!r:.80} stands already at {seen[name]}; ids are unique, drop one row'
            )
        seen[name] = where
        yield Place(where, {**row, key: name})


def as_official(row: dict[str, Any], benchmark: str, key: str) -> dict[str, Any]:
    """A row in our format under the benchmark's names; any other row as it is."""
    if "images" not in row or "id" not in row or not isinstance(row["images"], list):
        return row
    images, choices = row["images"], row.get("choices") or row.get("options") or []
    ours = {
        key: str(row["id"]).removeprefix(f"{benchmark}/"),
        "image": images[0] if images else "",
        "choices": choices or None,
        "options": choices,
    }
    return {**row.get("metadata", {}), **row, **ours}


def _whose(row: Mapping[str, Any], benchmark: str) -> str:
    for other, key in _TELLTALE.items():
        if other != benchmark and key in row:
            return f"this is a row of {other}: say benchmark={other}, or give {benchmark}'s own file"
    return f"give {benchmark}'s own problems file"


def image_path(where: str, ref: str, folder: Path, needed: bool) -> tuple[str, ...]:
    """The absolute path of a row's image below ``folder``, with or without the first folder of ``ref``.

    DataError if it is needed and not there; () if it is not needed.
    """
    parts = PurePosixPath(ref).parts
    if not ref and not needed:
        return ()
    if not ref or PurePosixPath(ref).is_absolute() or ".." in parts or "\\" in ref or "\x00" in ref:
        raise DataError(f"{where}: image {ref!r:.80} is no path below {folder}; give it relative to the images' folder")
    for tail in (parts, parts[1:]):
        if tail and _is_file(path := folder.joinpath(*tail)):
            return (str(path.resolve()),)
    if needed:
        raise DataError(f"{where}: no image {ref!r:.80} in {folder}; give the folder that holds the benchmark's images")
    return ()


def _is_file(path: Path) -> bool:
    """Whether there is such a file; not where the name is one that no file can have, such as a picture written out."""
    try:
        return path.is_file()
    except OSError:
        return False
