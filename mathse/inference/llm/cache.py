"""Answers by key in a folder that any number of runs share, and locks on keys that are being requested.

    <folder>/ab/ab12...json    one answer, written whole and flushed before it is used; only its owner may read it
    <folder>/.claims           empty; one byte of it is locked for each key that is being requested
    <folder>/batches/          requests at the Batch API (see batch.py)

A claim is a POSIX record lock on one byte; its position is the key's hash. The kernel drops it when its process ends,
however it ends, so the keys of a killed process are free at once and need no cleanup. Two keys that share a byte only
wait for each other.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from pathlib import Path
from typing import Any, ClassVar, Self

from mathse.errors import RunError
from mathse.runs.store import make_folder, read_json, write_json


class Claims:
    """This process's claims in one folder.

    ``Claims.of(folder)`` is the same object for the same folder: a record lock is dropped when its process closes any
    descriptor of the file, so the file is opened once and never closed.
    """

    _by_folder: ClassVar[dict[tuple[int, Path], Claims]] = {}  # key has the process id: a fork inherits no lock
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._file = file
        self._held: set[int] = set()  # offsets

    @classmethod
    def of(cls, folder: Path) -> Self:
        name = (os.getpid(), folder.resolve())
        with cls._guard:
            if name not in cls._by_folder:
                cls._by_folder[name] = cls(folder / ".claims")
            return cls._by_folder[name]  # type: ignore[return-value]

    def take(self, name: str) -> bool:
        """Claim ``name``. Returns False if another process, or another caller in this process, holds it."""
        offset = _offset(name)
        with self._guard:
            if offset in self._held:
                return False
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            except OSError as e:
                if e.errno in (errno.EACCES, errno.EAGAIN):
                    return False
                raise RunError(
                    f"{self._file}: cannot be locked ({e.strerror}); choose a cache_dir on a local disk"
                ) from e
            self._held.add(offset)
            return True

    def give_back(self, name: str) -> None:
        offset = _offset(name)
        with self._guard:
            if offset in self._held:
                self._held.discard(offset)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, offset)


def _offset(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


class AnswerCache:
    """``get`` and ``put`` answers (plain JSON objects) by key; ``claims`` locks keys that are being requested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder)
        self.claims = Claims.of(folder)

    def file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer, or None. Raises DataError, naming the file, if it is damaged."""
        try:
            answer: dict[str, Any] = read_json(self.file(key))
        except FileNotFoundError:
            return None
        return answer

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Store an answer, and return when it is on the disk."""
        write_json(self.file(key), answer, private=True)
