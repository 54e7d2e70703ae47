"""An output that cannot end a run: hours of training are worth more than a line about them."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class SafeStream:
    """A text stream that survives a closed pipe, a full log disk and a narrow encoding."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: pythonw and some services have no stdout

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write ``text``. Characters that the encoding lacks become "?"."""
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
        stream, self._stream = self._stream, None
        # Python flushes the rest of the buffer at exit, which would fail again: the descriptor becomes /dev/null.
        if stream is sys.stdout:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            except (OSError, ValueError):
                return
