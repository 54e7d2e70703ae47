"""What of a run W&B has on the disk: its transaction log, which is what a later ``wandb sync`` reads.

W&B passes a record on from process to process before it is written, and tells nobody when it is; so the file is asked.
LevelDB's log format after a header of seven bytes: blocks of 32 KiB, in which each piece of a record has a head of
seven bytes too: checksum, length, kind.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

HEADER = HEAD = 7  # bytes
BLOCK = 32768
WHOLE, FIRST, LAST = 1, 2, 4  # kinds of pieces; 3 stands between

PATIENCE = 20.0  # seconds to wait for W&B to write; it takes a tenth of one on an idle machine
POLL = 0.02

ENDED = "exit"


def row(step: int) -> str:
    """The mark of a history row."""
    return f"history {step}"


def artifact(name: str, alias: str) -> str:
    """The mark of an artifact that was logged."""
    return f"artifact {name}:{alias}"


class TransactionLog:
    """Reads a ``.wandb`` file as it grows. ``file``: None or missing where W&B writes none."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._at, self._begun = HEADER, b""
        self._marks: set[str] = set()

    def wait_for(self, marks: Set[str], patience: float = PATIENCE) -> bool:
        """Until all ``marks`` are on the disk. False after ``patience`` seconds, and from then on at once, as where
        there is no file: another version of W&B may write other ones."""
        until = time.monotonic() + patience
        while not self._read() >= marks:
            if self._file is None or time.monotonic() > until:
                self._file = None
                return False
            time.sleep(POLL)
        return True

    def _read(self) -> set[str]:
        from wandb.proto import wandb_internal_pb2

        for whole in self._records():
            self._marks |= set(_marks(wandb_internal_pb2.Record.FromString(whole)))
        return self._marks

    def _records(self) -> Iterator[bytes]:
        """The records that have become whole since the last call."""
        if self._file is None or not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._at)
            new, start = file.read(), self._at
        while self._at - start + HEAD <= len(new):
            left = BLOCK - self._at % BLOCK
            if left < HEAD:  # padding
                self._at += left
                continue
            here = self._at - start
            _, length, kind = struct.unpack("<IHB", new[here : here + HEAD])
            piece = new[here + HEAD : here + HEAD + length]
            if len(piece) < length:
                return
            self._begun = (b"" if kind in (WHOLE, FIRST) else self._begun) + piece
            self._at += HEAD + length
            if kind in (WHOLE, LAST):
                yield self._begun


def _marks(record: Any) -> Iterator[str]:
    kind = record.WhichOneof("record_type")
    if kind == "history":
        yield row(record.history.step.num)
    elif kind == "artifact":
        yield from (artifact(record.artifact.name, alias) for alias in record.artifact.aliases)
    elif kind == "exit":
        yield ENDED
