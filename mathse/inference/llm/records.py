"""Records of batches at the Batch API: a small file per batch, in the cache's folder, from before its upload until its
answers are stored. Every run that shares the folder can wait for a batch and collect it, also after its sender died."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from mathse.inference.llm.chat import ChatRequest
from mathse.runs.store import read_json, write_json

FOLDER = "batches"


@dataclass
class BatchRecord:
    """The record of a batch.

    Args:
        name: in the batch's metadata at the server.
        run: the run that pays it (see ``Account``).
        dialect: the form of its lines.
        most_usd: its highest cost.
        batch_id: the server's; None: it was being sent.
        sent: seconds since 1970.
        requests: by key, the fields of each request that are needed to read its answer.
    """

    name: str
    run: str
    dialect: dict[str, Any]
    most_usd: float = 0.0
    batch_id: str | None = None
    sent: float = field(default_factory=time.time)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, key: str, request: ChatRequest, usd: float) -> None:
        self.requests[key] = {"n": request.n, "logprobs": request.logprobs, "prompt_version": request.prompt_version}
        self.most_usd += usd

    def request(self, key: str) -> ChatRequest:
        """Return a request without its messages."""
        return ChatRequest([], **self.requests[key])

    @classmethod
    def new(cls, run: str, dialect: dict[str, Any]) -> Self:
        return cls(f"mathse-{secrets.token_hex(8)}", run, dialect)


class Records:
    """The files in ``<cache>/batches``."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / FOLDER

    def all(self) -> Iterator[BatchRecord]:
        for file in sorted(self.folder.glob("mathse-*.json")):
            try:
                yield BatchRecord(**read_json(file))
            except FileNotFoundError:  # another run has collected it meanwhile
                continue

    def files(self) -> dict[str, Path]:
        """Return the file of its batch for the key of each request in a batch."""
        files = {}
        for record in self.all():
            for key in record.requests:
                files[key] = self._file(record)
        return files

    def save(self, record: BatchRecord) -> None:
        write_json(self._file(record), asdict(record))

    def remove(self, record: BatchRecord) -> None:
        self._file(record).unlink(missing_ok=True)

    def _file(self, record: BatchRecord) -> Path:
        return self.folder / f"{record.name}.json"


def line_of(key: str, body: Mapping[str, Any]) -> bytes:
    """Return a request's line in a batch's input file."""
    line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return (json.dumps(line) + "\n").encode()
