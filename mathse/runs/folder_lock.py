"""The lock of a run folder, because two processes would write the same files."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import ClassVar

from mathse.errors import RunError


class FolderLock:
    """This process's claim on a run folder, until ``close()`` or the end of the process.

    The lock is a POSIX record lock (lockf). An flock belongs to the open file, which forked children share, so a loader
    worker that outlives its killed parent would keep the folder. A record lock belongs to the process. It is dropped as
    soon as the process closes *any* descriptor of the file, so nothing else may open ``.lock``. The kernel would grant
    a second claim to the same process, so ``_held`` refuses it.

    Raises RunError if this process or another has locked the folder.
    """

    # (process id, folder): a forked child inherits the set but not the lock.
    _held: ClassVar[set[tuple[int, Path]]] = set()

    def __init__(self, folder: Path) -> None:
        self._key = (os.getpid(), folder.resolve())
        if self._key in self._held:
            raise RunError(f"run folder {folder} is already open in this process; close it first")
        self._file = folder / ".lock"
        self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            owner = os.pread(self._fd, 200, 0).decode("utf-8", "replace").strip()
            os.close(self._fd)
            if e.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            remedy = "wait for it, stop it, or choose another hydra.run.dir"
            raise RunError(f"run folder {folder} is in use by {owner or 'another process'}; {remedy}") from None
        # The text names the owner in errors of other processes. The lock is the kernel's: a stale file locks nothing.
        self._held.add(self._key)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def remove(self) -> None:
        """Remove the file, before the folder is given up."""
        self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder. A second call does nothing."""
        if self._key in self._held:
            self._held.discard(self._key)
            os.close(self._fd)
