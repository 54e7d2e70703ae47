"""JSON records of a file, one at a time: JSON lines, a JSON list, an object of id -> record, one object; ``.gz`` too.

A record that is no JSON object comes with the reason why not. A file that cannot be read at all is a DataError.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from mathse.errors import DataError

MAX_LINE = 10_000_000  # bytes of a record; a longer one is no record of text
MAX_WHOLE = 256_000_000  # bytes of a file that is one JSON object
CHUNK = 1 << 20  # characters
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
    """Why a row cannot be used (file and line are the caller's to add)."""


class Record(NamedTuple):
    """A record that begins in ``line`` (from 1): its object, or none and a reason."""

    line: int
    values: dict[str, Any] | None
    reason: str = ""


def read_records(path: Path, key: str = "id") -> Iterator[Record]:
    """The records of a file in its order. In an object of id -> record the id is filled in as ``key``.

    Raises DataError if the file cannot be read, or where a list breaks off: what follows cannot be told apart.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix
    first = _first_character(path)
    if first == b"[" and ending != ".jsonl":
        yield from _elements(path)
    elif first == b"{" and ending == ".json" and (whole := _whole(path)) is not None:
        named = whole if whole and all(isinstance(value, dict) for value in whole.values()) else None
        if named is None:
            yield Record(1, whole)
        else:
            yield from (Record(n, {key: name, **row}) for n, (name, row) in enumerate(named.items(), start=1))
    else:
        yield from read_lines(path)


def read_lines(path: Path) -> Iterator[Record]:
    """The records of a file with one JSON object a line."""
    for number, line in lines(path):
        try:
            yield Record(number, parse_object(line))
        except BadRow as error:
            yield Record(number, None, str(error))


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of each line that is not blank, without a byte order mark."""
    with _opened(path) as file:
        number = 0
        while line := _readable(path, lambda: file.readline(MAX_LINE + 1)):
            number += 1
            if len(line) > MAX_LINE:
                raise DataError(f"{path}:{number}: a line of more than {MAX_LINE:,} bytes; write one row a line")
            line = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if line:
                yield number, line


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; BadRow for anything else."""
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadRow(f"broken JSON: {error.msg} at column {error.colno}; write one JSON object a line") from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, nesting of thousands of levels
        raise BadRow("JSON beyond all bounds; write one flat JSON object a line") from None
    return as_object(values)


def as_object(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise BadRow(f"a row is a JSON object, got {kind(values)}; write one object a row")
    return values


def kind(value: object) -> str:
    """What a value is, for a sentence: "a list", "a number 7"."""
    shown = f" {value!r:.40}" if isinstance(value, (int, float)) else ""
    return _KINDS.get(type(value), f"a {type(value).__name__}") + shown


def is_file(path: Path) -> None:
    """Raises DataError where there is none."""
    if not path.exists():
        raise DataError(f"{path}: no such file (looked for {path.absolute()}); correct the path")
    if not path.is_file():
        raise DataError(f"{path}: a folder, not a file; name the JSON or JSONL file in it")


def _elements(path: Path) -> Iterator[Record]:
    """The elements of a JSON list, of which no more than a chunk is in memory."""
    decoder = json.JSONDecoder()
    text = _Text(path)
    text.skip("[")
    while not text.at("]"):
        line = text.line
        try:
            value = text.decode(decoder)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{text.line}: broken JSON in a list ({error.msg}); fetch the file again, or write JSON lines"
            ) from None
        except (ValueError, RecursionError):
            raise DataError(f"{path}:{line}: JSON beyond all bounds; fetch the file again") from None
        yield Record(line, value) if isinstance(value, dict) else Record(line, None, _no_object(value))
        if not text.at("]"):
            text.skip(",")


def _no_object(value: Any) -> str:
    try:
        as_object(value)
    except BadRow as error:
        return str(error)
    return ""


class _Text:
    """A file's text behind a moving position."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 1
        self._chunks = self._read()
        self._held, self._place, self._more = "", 0, True

    def at(self, character: str) -> bool:
        """Whether the next character that is no blank is this one. Raises DataError at the end of the file."""
        while True:
            while self._place < len(self._held) and self._held[self._place] in " \t\r\n":
                self.line += self._held[self._place] == "\n"
                self._place += 1
            if self._place < len(self._held):
                return self._held[self._place] == character
            if not self._grow():
                raise DataError(f"{self.path}:{self.line}: a JSON list that does not end; fetch the file again")

    def skip(self, character: str) -> None:
        if not self.at(character):
            found = self._held[self._place]
            raise DataError(f"{self.path}:{self.line}: {found!r} where {character!r} must be; fetch the file again")
        self._place += 1

    def decode(self, decoder: json.JSONDecoder) -> Any:
        """The value at this position, which is moved behind it."""
        while True:
            try:
                value, end = decoder.raw_decode(self._held, self._place)
            except json.JSONDecodeError:
                if len(self._held) - self._place > MAX_LINE or not self._grow():
                    raise
                continue
            if end == len(self._held) and not isinstance(value, (dict, list)) and self._grow():
                continue  # a number may go on
            self.line += self._held.count("\n", self._place, end)
            self._place = end
            return value

    def _grow(self) -> bool:
        chunk = next(self._chunks, None)
        self._held, self._place = self._held[self._place :] + (chunk or ""), 0
        return chunk is not None

    def _read(self) -> Iterator[str]:
        with _opened(self.path) as file:
            rest, first = b"", True
            while chunk := _readable(self.path, lambda: file.read(CHUNK)):
                data = rest + chunk
                cut = _whole_characters(data)
                try:
                    text = data[:cut].decode("utf-8")
                except UnicodeDecodeError:
                    raise DataError(f"{self.path}: not UTF-8; save the file as UTF-8") from None
                rest = data[cut:]
                if text:  # a chunk may be less than a character
                    yield text.removeprefix("\ufeff") if first else text
                    first = False


def _whole_characters(data: bytes) -> int:
    """How many bytes of ``data`` are whole UTF-8 characters, if only its last one is cut."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # begins a character of two or more bytes
            needs = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return len(data) if back >= needs else len(data) - back
        if byte < 0x80:
            break
    return len(data)


def _whole(path: Path) -> dict[str, Any] | None:
    """The one object of a .json file; None for JSON lines, whatever the file is called."""
    with _opened(path) as file:
        data = _readable(path, lambda: file.read(MAX_WHOLE + 1))
    if len(data) > MAX_WHOLE:
        return None
    try:
        whole = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None  # one object a line after all
        raise DataError(f"{path}:{error.lineno}: broken JSON ({error.msg}); fetch the file again") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: JSON beyond all bounds; fetch the file again") from None
    return cast("dict[str, Any]", whole)


def _first_character(path: Path) -> bytes:
    with _opened(path) as file:
        while chunk := _readable(path, lambda: file.read(4096)):
            if start := chunk.removeprefix(b"\xef\xbb\xbf").lstrip():
                return start[:1]
    return b""


def _opened(path: Path) -> BinaryIO:
    is_file(path)
    try:
        return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its mode and its disk") from None


def _readable(path: Path, read: Any) -> bytes:
    try:
        return cast(bytes, read())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); compress it again, or drop the ending .gz") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its mode and its disk") from None
