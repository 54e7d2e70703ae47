"""An output that cannot end a run: hours of training are worth more than a line about them."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class SafeStream:
    """A text stream whose closing (a pipe to ``head``, a full log disk) or poor encoding never ends a run."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: pythonw and some services have no stdout

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
        except UnicodeEncodeError:
            return self.write(text.encode(self.encoding, "replace").decode(self.encoding))
        except (OSError, ValueError):  # broken pipe; "I/O operation on closed file"
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def _give_up(self) -> None:
        # What is still buffered would fail again when Python flushes at exit, so the descriptor goes to /dev/null.
        stream, self._stream = self._stream, None
        if stream is sys.stdout:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            except (OSError, ValueError):
                return
