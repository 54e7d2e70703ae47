"""Durable files: they are written completely or not at all, and appended in whole batches.

A file is written under another name, flushed to the disk and renamed. So a reader, a kill or a power cut finds the old
file or the new file, never a part. ``OSError`` (a full disk, a read-only folder) is not caught.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from mathse.errors import DataError
from mathse.runs import meter
from mathse.types import Record

_logger = logging.getLogger(__name__)

# --- JSON -----------------------------------------------------------------------------------------------------------


def to_json(value: Any, indent: int | None = None) -> str:
    """Return the JSON text of ``value``; equal values have equal texts. Records inside become objects.

    Raises DataError for NaN and infinity, which are not JSON.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=_record_to_json)
    except ValueError as e:
        raise DataError(f"cannot be stored as JSON ({e}): {value!r:.200}; numbers must be finite") from None


def _record_to_json(value: object) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    raise TypeError(f"a {type(value).__name__} has no JSON form: {value!r:.200}")


def _json_line(value: Any, indent: int | None = None) -> bytes:
    # An unpaired surrogate has no UTF-8 form. Its backslash form is the JSON escape of the same character.
    return (to_json(value, indent) + "\n").encode("utf-8", "backslashreplace")


def _parse(line: bytes) -> Any:
    """Return the value of a line. Raises ValueError (JSON and UTF-8 errors are its subclasses)."""
    return json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; numbers must be finite")


def read_jsonl(path: Path, kind: type[Record] | None = None) -> Iterator[Any]:
    """Yield the rows of ``path`` as ``kind`` or as plain JSON values, without blank lines.

    Raises DataError with file and line number at a line that is not JSON or not a ``kind``, such as a last line that a
    kill has torn.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield parse_row(line, path, number, kind)


def parse_row(line: bytes, path: Path, number: int, kind: type[Record] | None = None) -> Any:
    """Return the value of line ``number`` of ``path``. Raises DataError, which names both, if it is invalid."""
    try:
        return kind.from_json(_parse(line)) if kind else _parse(line)
    except ValueError as e:
        raise DataError(f"{path}:{number}: {e}; fix or remove this line") from None


def read_json(path: Path) -> Any:
    """Return the value in ``path``. Raises DataError if it is not JSON."""
    try:
        return _parse(path.read_bytes())
    except ValueError as e:
        raise DataError(f"{path}: {e}; fix or remove this file") from None


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write all ``rows`` atomically and return their number."""
    count = 0
    with _replace_file(path) as file:
        for row in rows:
            file.write(_json_line(row))
            count += 1
    return count


def write_json(path: Path, value: Any, private: bool = False) -> None:
    """Write a value, indented.

    Args:
        private: whether only the file's owner may read it, regardless of the umask.
    """
    data = _json_line(value, indent=2)  # first, because it raises for a value without a JSON form
    with _replace_file(path) as file:
        if private:
            os.fchmod(file.fileno(), 0o600)
        file.write(data)


# --- files and folders ----------------------------------------------------------------------------------------------


def _get_partial_name(path: Path) -> Path:
    """Return the name of ``path`` until it is complete: a fixed name, so the next writer replaces a killed writer's."""
    return path.with_name(f".{path.name}.partial")


def find_leftovers(folder: Path) -> list[Path]:
    """Return the incomplete files and folders of killed writers below ``folder``."""
    return sorted(folder.rglob(".*.partial"))


@contextmanager
def _replace_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces ``path`` after the block. After an error it is removed."""
    make_folder(path.parent)
    aside = _get_partial_name(path)
    # Contents first, then the name, then the folder's list of names. Any other order may lose the file in a power cut.
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file's contents, or a folder's list of names, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(fd)


def sync_below(folder: Path, files: Iterable[Path]) -> None:
    """Flush ``files`` below ``folder`` and all folders between, without the targets of links."""
    paths = {folder}
    for file in files:
        if not file.is_symlink():
            paths.update(path for path in (file, *file.parents) if path.is_relative_to(folder))
    for path in paths:
        sync(path)


def make_folder(path: Path) -> None:
    """Create ``path`` and its missing parents durably: their names survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def publish_folder(tmp: Path, final: Path) -> None:
    """Rename the finished folder ``tmp`` to ``final`` on the same file system, and remove an older ``final``.

    ``final`` is complete whenever it exists. A kill during the replacement may leave neither folder, so the caller
    makes ``final`` again if it is missing. Everybody who may read the folder may read its files.
    """
    # Targets of links belong to others. safetensors gives only the owner the right to read, regardless of the umask.
    files = [path for path in tmp.rglob("*") if path.is_file() and not path.is_symlink()]
    for file in files:
        file.chmod(file.stat().st_mode | tmp.stat().st_mode & 0o444)
    sync_below(tmp, files)
    # A rename cannot replace a folder with contents, so the older folder is renamed first.
    old = _get_partial_name(final)
    if old.exists():
        shutil.rmtree(old)
    if final.exists():
        os.rename(final, old)
    os.rename(tmp, final)
    sync(final.parent)
    if old.exists():
        shutil.rmtree(old)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's contents, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- batches --------------------------------------------------------------------------------------------------------


class BatchLog:
    """A JSONL file that grows by whole batches. A kill loses at most the last batch.

    Opening the file keeps the longest prefix of whole batches and removes the rest: a torn line, a partial batch. In a
    stage the costs of each batch are written too (``mathse.runs.meter``).

    Args:
        sizes: rows of each batch. They must be the same each time the file is opened, because only they give the ends
            of batches. So they depend only on settings in the stage's identity.
        belongs: whether a row may be the k-th row of the file. A batch with another row is removed, and all later
            batches with it.
    """

    def __init__(
        self, path: Path, sizes: Sequence[int], belongs: Callable[[int, Any], bool] = lambda k, row: True
    ) -> None:
        if any(size < 1 for size in sizes):
            raise ValueError(f"a batch has at least one row, got sizes {list(sizes)}")
        self.path = path
        self.sizes = tuple(sizes)
        make_folder(path.parent)
        with open(path, "ab", buffering=0):
            pass
        sync(path.parent)
        # Keep the longest prefix of whole batches. Lines are parsed, because a power cut can leave a file of the full
        # length with blocks of zero bytes.
        self.done = self._end = 0  # batches and bytes on the disk
        rows_kept = 0
        with open(path, "rb") as file:
            for size in self.sizes:
                lines = list(islice(file, size))
                if len(lines) < size or not all(map(_is_row, lines)):
                    break
                if not all(belongs(k, _parse(line)) for k, line in enumerate(lines, rows_kept)):
                    _logger.warning(
                        "%s: the rows from row %d on are of an earlier version, which had another order of rows; they "
                        "are made again",
                        path,
                        rows_kept + 1,
                    )
                    break
                rows_kept += size
                self.done, self._end = self.done + 1, self._end + sum(map(len, lines))
        # The file will grow, or has a torn end. A file that is shared with the run of a branch is copied first.
        if self.done < len(self.sizes) or self._end < path.stat().st_size:
            if path.stat().st_nlink > 1:
                shutil.copyfile(path, _get_partial_name(path))
                os.replace(_get_partial_name(path), path)
            os.truncate(path, self._end)
            sync(path)
        stage = meter.current()
        self._debits = stage.open_batches(path, rows_kept) if stage is not None else None

    def append(self, rows: Sequence[Any]) -> None:
        """Append the next batch and wait until it is on the disk."""
        if self.done == len(self.sizes):
            raise ValueError(f"{self.path} has all its {self.done} batches")
        if len(rows) != self.sizes[self.done]:
            raise ValueError(f"batch {self.done} of {self.path} has {self.sizes[self.done]} rows, got {len(rows)}")
        data = b"".join(map(_json_line, rows))
        if self._debits is not None:
            self._debits.append(len(rows))
        with open(self.path, "ab", buffering=0) as file:
            try:
                unwritten = memoryview(data)
                while unwritten:  # usually a single write; near a full disk or above 2 GiB the kernel writes less
                    unwritten = unwritten[os.write(file.fileno(), unwritten) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self._end)  # the disk is full; a torn batch is removed
                raise
        self.done += 1
        self._end += len(data)

    def rows(self, kind: type[Record] | None = None) -> Iterator[Any]:
        """Yield all rows on the disk, in order."""
        return read_jsonl(self.path, kind)


def _is_row(line: bytes) -> bool:
    try:
        _parse(line)
    except ValueError:
        return False
    return line.endswith(b"\n")
