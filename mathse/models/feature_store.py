"""A folder of tensors that take long to compute, with a limit of its size, shared by processes and runs.

A file is written under another name and renamed, so it is either complete or absent. Two processes that make the same
file write the same bytes. A file has its name and a checksum inside, so a damaged file, or a file under a wrong name,
is treated as missing. The least recently used files are removed first.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mathse.errors import DataError
from mathse.models.user_cache import user_cache

GIB = 2**30
IN_USE = "in_use.lock"  # shared lock: processes that rely on files; exclusive lock: a process that removes files
UNFINISHED = ".partial"
MAX_UNFINISHED_SECONDS = 24 * 3600  # an unfinished file of this age was left by a killed process


@dataclass(frozen=True)
class FeatureStore:
    """At most ``max_bytes`` of files below ``folder``. The default folder is for all runs of a user."""

    folder: Path
    max_bytes: int

    @classmethod
    def of(cls, folder: str | None, gb: float) -> FeatureStore:
        """Return the store of the settings ``trainer.tower_features_folder`` and ``trainer.tower_features_gb``."""
        return cls(Path(folder).expanduser() if folder else user_cache("tower_features"), int(gb * GIB))

    def read(self, file: Path) -> dict[str, Tensor] | None:
        """Return the tensors of a file; None if it is missing, damaged or has another file's name inside."""
        try:
            with safe_open(file, framework="pt") as stored:
                metadata = stored.metadata() or {}
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            return None
        return tensors if metadata == {"name": file.stem, "crc32": _crc32(tensors)} else None

    def has(self, file: Path) -> bool:
        """Return whether a file exists and its header is complete. This counts as a use of the file."""
        try:
            with safe_open(file, framework="pt") as stored:
                named = (stored.metadata() or {}).get("name") == file.stem
            os.utime(file)
        except (SafetensorError, OSError):
            return False
        return named

    def write(self, file: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write the tensors to ``file``. Raises DataError if the disk refuses them."""
        unfinished = file.with_name(f"{file.stem}.{os.getpid()}.{threading.get_ident()}{UNFINISHED}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(dict(tensors), unfinished, {"name": file.stem, "crc32": _crc32(tensors)})
            os.replace(unfinished, file)
        except (SafetensorError, OSError) as e:
            unfinished.unlink(missing_ok=True)
            raise DataError(
                f"{file}: cannot be written ({e}); lower trainer.tower_features_gb, name another "
                "trainer.tower_features_folder, or pass sft.tower_features=false"
            ) from e

    def free(self) -> int:
        """Return the number of bytes that may still be written."""
        return self.max_bytes - sum(size for _, _, size in self._files())

    def make_room(self, needed: int, keep: Set[Path]) -> int:
        """Remove the least recently used files, except ``keep``, until ``needed`` bytes are free.

        Nothing is removed if that would not be enough, or while another process relies on the store's files.

        Returns:
            The number of free bytes afterwards.
        """
        files = sorted(self._files())
        free = self.max_bytes - sum(size for _, _, size in files)
        removable = [(file, size) for _, file, size in files if file not in keep]
        if free >= needed or free + sum(size for _, size in removable) < needed:
            return free
        with (self.folder / IN_USE).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return free
            for file, size in removable:
                if free >= needed:
                    break
                file.unlink(missing_ok=True)
                free += size
        return free

    @contextmanager
    def protect_files(self) -> Iterator[None]:
        """Within the context, no process removes a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / IN_USE).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _files(self) -> list[tuple[float, Path, int]]:
        """Return (time of last use, file, bytes) of all complete files, and remove files that killed processes left."""
        files = []
        for file in self.folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another process may have removed it
                stat = file.stat()
                if file.suffix == UNFINISHED:
                    if time.time() - stat.st_mtime > MAX_UNFINISHED_SECONDS:
                        file.unlink()
                else:
                    files.append((stat.st_mtime, file, stat.st_size))
        return files


def _crc32(tensors: Mapping[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].contiguous().view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"
