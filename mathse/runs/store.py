"""Durable files: written whole or not at all, appended in whole batches.

A file is written beside its final name, flushed to the disk and renamed; so a reader, a kill or a power cut sees the
old file or the new one, never half of one. ``OSError`` (a full disk, a read-only folder) passes up unchanged.
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
    """The JSON text of ``value``, the same for equal values; a Record anywhere inside is written as its object.

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
    # A lone surrogate has no UTF-8 form; its backslash form is the JSON escape of the same character.
    return (to_json(value, indent) + "\n").encode("utf-8", "backslashreplace")


def _parse(line: bytes) -> Any:
    """The value of one line. Raises ValueError (JSON and UTF-8 errors are its subclasses)."""
    return json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; numbers must be finite")


def read_jsonl(path: Path, kind: type[Record] | None = None) -> Iterator[Any]:
    """The rows of ``path``, one at a time, as ``kind`` or as plain JSON values; blank lines are skipped.

    Raises DataError with file and line number at a line that is not JSON or not a ``kind``; a last line cut short by
    a kill is such a line too.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield parse_row(line, path, number, kind)


def parse_row(line: bytes, path: Path, number: int, kind: type[Record] | None = None) -> Any:
    """The value of line ``number`` of ``path``. Raises DataError, which names both, where it is no such value."""
    try:
        return kind.from_json(_parse(line)) if kind else _parse(line)
    except ValueError as e:
        raise DataError(f"{path}:{number}: {e}; fix or remove this line") from None


def read_json(path: Path) -> Any:
    """The value in ``path``. Raises DataError where it is not JSON."""
    try:
        return _parse(path.read_bytes())
    except ValueError as e:
        raise DataError(f"{path}: {e}; fix or remove this file") from None


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write all ``rows`` at once. Returns how many there were."""
    count = 0
    with _replacing(path) as file:
        for row in rows:
            file.write(_json_line(row))
            count += 1
    return count


def write_json(path: Path, value: Any, private: bool = False) -> None:
    """Write one value, indented. ``private``: only the file's owner may read it, whatever the umask."""
    data = _json_line(value, indent=2)  # before the file is touched: it may have no JSON form
    with _replacing(path) as file:
        if private:
            os.fchmod(file.fileno(), 0o600)
        file.write(data)


# --- files and folders ----------------------------------------------------------------------------------------------


def _aside(path: Path) -> Path:
    """Where ``path`` is written before it is renamed; a fixed name, so that what a kill leaves is overwritten."""
    return path.with_name(f".{path.name}.partial")


def leftovers(folder: Path) -> list[Path]:
    """Files and folders below ``folder`` that killed writers left behind."""
    return sorted(folder.rglob(".*.partial"))


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once the block has ended well, and otherwise leaves no trace."""
    make_folder(path.parent)
    aside = _aside(path)
    # Contents first, then the name, then the folder's list of names: in no other order does a power cut spare the file.
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
    """Flush ``files``, all somewhere below ``folder``, and the folders that lead to them; not what a link leads to."""
    files = [file for file in files if not file.is_symlink()]
    for path in {folder, *(p for file in files for p in (file, *file.parents) if p.is_relative_to(folder))}:
        sync(path)


def make_folder(path: Path) -> None:
    """Create ``path`` and its missing parents, so that their names outlast a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def publish_folder(tmp: Path, final: Path) -> None:
    """Give the finished folder ``tmp`` its ``final`` name, on the same file system; an older ``final`` goes.

    ``final`` is whole at any moment it exists. A kill while an older one is replaced may leave neither name, so the
    caller makes ``final`` again whenever it is missing. Who may read the folder may read its files.
    """
    # a link's file is somebody else's
    files = [path for path in tmp.rglob("*") if path.is_file() and not path.is_symlink()]
    for file in files:  # safetensors writes files that only their owner may read, whatever the umask
        file.chmod(file.stat().st_mode | tmp.stat().st_mode & 0o444)
    sync_below(tmp, files)
    # A folder with contents cannot be renamed over, so an older one is first renamed away.
    old = _aside(final)
    if old.exists():
        shutil.rmtree(old)
    if final.exists():
        os.rename(final, old)
    os.rename(tmp, final)
    sync(final.parent)
    if old.exists():
        shutil.rmtree(old)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's contents, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- batches --------------------------------------------------------------------------------------------------------


class BatchLog:
    """A JSONL file that grows by whole batches: after a kill, at most the batch in flight is lost.

    ``sizes`` are the rows of each batch to come. They must be the same each time the file is opened (derive them from
    what the stage's identity covers), because they alone say where a batch ends. Opening keeps the longest prefix of
    whole batches and cuts off the rest: a torn line, a partial batch.

    ``belongs(k, row)`` says whether a row may stand as the k-th; a batch with another row, and all behind it, go too.

    In a stage, what a batch's answers came to is laid down beside it (``mathse.runs.meter``).
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
        # Keep the longest prefix of whole batches. Lines are parsed because a power cut can leave a file of full length
        # with holes of zero bytes.
        self.done = self._end = 0  # batches and bytes on disk
        rows_kept = 0
        with open(path, "rb") as file:
            for size in self.sizes:
                lines = list(islice(file, size))
                if len(lines) < size or not all(map(_is_row, lines)):
                    break
                if not all(belongs(k, _parse(line)) for k, line in enumerate(lines, rows_kept)):
                    _logger.warning(
                        "%s: from row %d on it is of an earlier version, which took its rows in another order; these "
                        "rows are made again",
                        path,
                        rows_kept + 1,
                    )
                    break
                rows_kept += size
                self.done, self._end = self.done + 1, self._end + sum(map(len, lines))
        if self.done < len(self.sizes) or self._end < path.stat().st_size:  # it will grow, or has a torn end
            if path.stat().st_nlink > 1:  # shared with the run it was branched from, which must not change
                shutil.copyfile(path, _aside(path))
                os.replace(_aside(path), path)
            os.truncate(path, self._end)
            sync(path)
        stage = meter.current()
        self._debits = stage.beside(path, rows_kept) if stage is not None else None

    def append(self, rows: Sequence[Any]) -> None:
        """Add the next batch. Returns when it is on the disk."""
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
                while unwritten:  # one write as a rule; the kernel may take less near a full disk or above 2 GiB
                    unwritten = unwritten[os.write(file.fileno(), unwritten) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self._end)  # a full disk: leave no torn batch
                raise
        self.done += 1
        self._end += len(data)

    def rows(self, kind: type[Record] | None = None) -> Iterator[Any]:
        """All rows on disk, in order."""
        return read_jsonl(self.path, kind)


def _is_row(line: bytes) -> bool:
    try:
        _parse(line)
    except ValueError:
        return False
    return line.endswith(b"\n")
