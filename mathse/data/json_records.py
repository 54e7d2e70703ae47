"""Streams of JSON records: from JSON lines, a JSON list, an object of id -> record, or a single object; ``.gz`` too.

Data sets are published in all of these forms, and a file may be larger than memory, so lines and lists are streamed. A
record that is no JSON object comes with a reason, and the rest of the file is still read: the caller decides about bad
records. A file that cannot be read at all raises DataError.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from mathse.errors import DataError

MAX_LINE = 10_000_000  # bytes of a record; a longer record is no text
MAX_WHOLE = 256_000_000  # bytes of a file with a single JSON object
CHUNK = 1 << 20  # characters of a JSON list to read at once
_KINDS = {
    str: "text",
    list: "a list",
    dict: "an object",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


class BadRow(DataError):
    """A row that cannot be used, with the reason. The caller adds file and line."""


class Repeating(dict[str, Any]):
    """A JSON object with ``repeated`` keys. JSON keeps the last value of such a key, which may be the wrong value."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


class JsonRecord(NamedTuple):
    """A record that begins in ``line`` (from 1): its object, or None and a reason.

    ``number``: number of the record, from 1, in files with several records in a line; None in a file of JSON lines.
    """

    line: int
    values: dict[str, Any] | None
    reason: str = ""
    number: int | None = None


def read_records(path: Path, key: str = "id") -> Iterator[JsonRecord]:
    """Yield the records of a file in its order. In an object of id -> record the id is filled in as ``key``.

    Raises DataError if the file cannot be read, or if a list breaks off, because the limits of the records behind that
    point are unknown.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    # The contents decide before the suffix: a ".json" may hold JSON lines, and a list may have any size.
    first = _read_first_character(path)
    if first == b"[" and suffix != ".jsonl":
        yield from _read_list_elements(path)
    elif first == b"{" and suffix == ".json" and (whole := _read_whole_object(path)) is not None:
        if whole and all(isinstance(value, dict) for value in whole.values()):
            repeated = whole.repeated if isinstance(whole, Repeating) else ()
            for number, (name, values) in enumerate(whole.items(), start=1):
                if name in repeated:
                    reason = f"two records are called {name!r:.80}; ids are unique, rename one"
                    yield JsonRecord(number, None, reason, number)
                elif isinstance(values, Repeating):
                    yield _make_record(number, values)._replace(number=number)
                else:
                    yield JsonRecord(number, {key: name, **values}, number=number)
        else:
            yield _make_record(1, whole)
    else:
        yield from read_lines(path)


def read_lines(path: Path) -> Iterator[JsonRecord]:
    """Yield the records of a file with a JSON object per line. Blank lines and a byte order mark are skipped."""
    with _open(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise DataError(f"{path}:{number}: a line of more than {MAX_LINE:,} bytes; write one row a line")
            line = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if not line:
                continue
            try:
                yield _make_record(number, json.loads(line.decode("utf-8"), object_pairs_hook=_make_object))
            except UnicodeDecodeError as error:
                yield JsonRecord(number, None, f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8")
            except json.JSONDecodeError as error:
                reason = f"broken JSON: {error.msg} at column {error.colno}; write one JSON object a line"
                yield JsonRecord(number, None, reason)
            except (ValueError, RecursionError):
                # Numbers of thousands of digits, or nesting of thousands of levels.
                yield JsonRecord(number, None, "JSON beyond all bounds; write one flat JSON object a line")


def begins_as_table(path: Path) -> bool:
    """Whether the first line is the header of a CSV or TSV: words between commas, semicolons or tabs."""
    with _open(path) as file:
        line = file.readline(MAX_LINE).removeprefix(b"\xef\xbb\xbf").strip().decode("utf-8", "replace")
    names = re.split(r"[,;\t]", line)
    return len(names) > 1 and all(re.fullmatch(r'"?\w[\w .-]*"?', name) for name in names)


def kind(value: object) -> str:
    """Describe the type of a JSON value in an error: "a list", "a number 7"."""
    shown = f" {value!r:.40}" if isinstance(value, (int, float)) else ""
    return _KINDS.get(type(value), f"a {type(value).__name__}") + shown


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, as ``Repeating`` if it has repeated keys."""
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else Repeating(pairs)


def _make_record(line: int, value: Any) -> JsonRecord:
    """Make a record of a JSON value, with a reason unless it is an object without repeated keys."""
    if isinstance(value, Repeating):
        keys = ", ".join(f"{key!r:.80}" for key in value.repeated)
        return JsonRecord(line, None, f"keys that stand twice in the row: {keys}; keep one of each")
    if isinstance(value, dict):
        return JsonRecord(line, value)
    return JsonRecord(line, None, f"a row is a JSON object, got {kind(value)}; write one object a row")


def _read_whole_object(path: Path) -> dict[str, Any] | None:
    """Read the single object of a .json file. None if the file holds JSON lines, or is too large."""
    with _open(path) as file:
        data = file.read(MAX_WHOLE + 1)
        if len(data) > MAX_WHOLE:
            return None
        try:
            return cast("dict[str, Any]", json.loads(data.decode("utf-8-sig"), object_pairs_hook=_make_object))
        except json.JSONDecodeError as error:
            # A second object follows: JSON lines.
            if error.msg == "Extra data":
                return None
            raise DataError(f"{path}:{error.lineno}: broken JSON ({error.msg}); fetch the file again") from None


def _read_first_character(path: Path) -> bytes:
    """Read the first byte that is neither blank nor byte order mark; b"" for an empty file."""
    with _open(path) as file:
        while chunk := file.read(4096):
            if start := chunk.removeprefix(b"\xef\xbb\xbf").lstrip():
                return start[:1]
    return b""


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked. All errors while it is read become DataErrors."""
    if not path.exists():
        raise DataError(f"{path}: no such file (looked for {path.absolute()}); correct the path")
    if not path.is_file():
        raise DataError(f"{path}: a folder, not a file; name the JSON or JSONL file in it")
    try:
        with cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except DataError:  # a subclass of ValueError, which the last clause would catch
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); compress it again, or drop the ending .gz") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its mode and its disk") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError):  # from the JSON parser: see read_lines
        raise DataError(f"{path}: JSON beyond all bounds; fetch the file again") from None


# --- a JSON list, with no more than a chunk and an element in memory --------------------------------------------------


def _read_list_elements(path: Path) -> Iterator[JsonRecord]:
    decoder = json.JSONDecoder(object_pairs_hook=_make_object)
    text = _ListText(path)
    text.skip("[")
    number = 0
    while not text.next_is("]"):
        line, number = text.line, number + 1
        try:
            value = text.decode(decoder)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{text.line}: broken JSON in a list ({error.msg}); fetch the file again, or write JSON lines"
            ) from None
        except DataError:
            raise
        except (ValueError, RecursionError):
            raise DataError(f"{path}:{line}: JSON beyond all bounds; fetch the file again") from None
        yield _make_record(line, value)._replace(number=number)
        if not text.next_is("]"):
            text.skip(",")


class _ListText:
    """The text of a file from a position that only moves forward: ``_buffer`` from ``_position``, then more chunks."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 1
        self._chunks = self._read_chunks()
        self._buffer, self._position = "", 0

    def next_is(self, character: str) -> bool:
        """Skip blanks, and compare the next character. Raises DataError at the end of the file."""
        while True:
            while self._position < len(self._buffer) and self._buffer[self._position] in " \t\r\n":
                self.line += self._buffer[self._position] == "\n"
                self._position += 1
            if self._position < len(self._buffer):
                return self._buffer[self._position] == character
            if not self._read_on():
                raise DataError(f"{self.path}:{self.line}: a JSON list that does not end; fetch the file again")

    def skip(self, character: str) -> None:
        """Skip blanks and this character. Raises DataError for any other character."""
        if not self.next_is(character):
            other = self._buffer[self._position]
            raise DataError(f"{self.path}:{self.line}: {other!r} where {character!r} must be; fetch the file again")
        self._position += 1

    def decode(self, decoder: json.JSONDecoder) -> Any:
        """Decode the JSON value at the position, and move the position behind it."""
        while True:
            try:
                value, end = decoder.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError:  # broken, or cut by the chunk's end
                if len(self._buffer) - self._position > MAX_LINE or not self._read_on():
                    raise
                continue
            if end == len(self._buffer) and not isinstance(value, (dict, list)) and self._read_on():
                continue  # the next chunk may hold further digits of the number
            self.line += self._buffer.count("\n", self._position, end)
            self._position = end
            return value

    def _read_on(self) -> bool:
        """Append a chunk to the buffer and drop the text before the position; False at the end of the file."""
        chunk = next(self._chunks, None)
        self._buffer, self._position = self._buffer[self._position :] + (chunk or ""), 0
        return chunk is not None

    def _read_chunks(self) -> Iterator[str]:
        with _open(self.path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            while chunk := text.read(CHUNK):
                yield chunk
