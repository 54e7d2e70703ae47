"""Benchmark files as they are published -> rows, each with the place it came from.

Read are a JSON list, a JSON object of id -> row, and JSON lines; ``.gz`` too. Rows in our own format (id, question,
images, answer, choices) are read as the benchmark's own. Every mistake is one DataError with file, line and remedy.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mathse.errors import DataError
from mathse.types import mended

MAX_FILE = 2 << 30  # bytes, unpacked
# A key that only one benchmark's rows have: for the error about another benchmark's file.
_TELLTALE = {"mathvista": "pid", "mathverse": "sample_index", "mathvision": "level"}


class Place(NamedTuple):
    """A row and where it stands: "test.jsonl:12", or "testmini.json, row 12"."""

    where: str
    row: dict[str, Any]


def read(path: Path, key: str) -> Iterator[Place]:
    """The rows of a file; ``key`` is the row's id in the benchmark, filled in from an object's keys."""
    text = _text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; give the benchmark's problems")
    whole = _whole(path, text)
    if whole is None:
        yield from _lines(path, text)
        return
    named = whole.items() if isinstance(whole, dict) else ((None, row) for row in whole)
    for number, (name, row) in enumerate(named, start=1):
        where = f"{path}, row {number}"
        row = _object(row, where)
        yield Place(where, row if name is None or key in row else {key: name, **row})


def _text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file (looked for {path.absolute()}); give the benchmark's JSON or JSONL file")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise DataError(f"{path}: more than {MAX_FILE:,} bytes; that is no file of problems")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 (byte {error.start + 1} of the file); save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); fetch it again, or drop the ending .gz") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its mode and its disk") from None


def _whole(path: Path, text: str) -> dict[str, Any] | list[Any] | None:
    """A .json file's list or object of rows; None for JSON lines, whatever the file is called."""
    if not path.name.removesuffix(".gz").endswith(".json"):
        return None
    try:
        whole = mended(json.loads(text))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None  # one object a line after all
        raise DataError(f"{path}:{error.lineno}: broken JSON ({error.msg}); fetch the file again") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested beyond all bounds; fetch the file again") from None
    single_row = isinstance(whole, dict) and not all(isinstance(row, dict) for row in whole.values())
    return None if single_row else whole


def _lines(path: Path, text: str) -> Iterator[Place]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                row = mended(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{where}: broken JSON ({error.msg} at column {error.colno}); write one JSON object a line"
                ) from None
            except (ValueError, RecursionError):
                raise DataError(f"{where}: JSON beyond all bounds; write one flat JSON object a line") from None
            yield Place(where, _object(row, where))


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is a JSON object, got {type(row).__name__}; give the benchmark's problems")
    return row


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
