"""One served model: asked in waves, each answer on the disk before anything counts on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mathse.backbones.base import Backbone, Row
from mathse.errors import TeacherError
from mathse.llm.chat import ChatReply, ChatRequest
from mathse.llm.client import ChatClient
from mathse.llm.wire import Dialect
from mathse.serving.engines import Engine
from mathse.serving.prompts import messages

PROBES = 2  # rows a checkpoint, whose prompts are counted here and there before any other is asked
WAVES = 4  # requests at a time, times max_concurrency: long enough that the last ones matter little
Batch = TypeVar("Batch")


@dataclass
class ServedDialect(Dialect):
    """The request names the model as the server knows it; answers are kept under the client's name for it."""

    called: str = ""

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        return super().body(request, self.called or model)


@dataclass(frozen=True)
class Place:
    """Where a checkpoint of this machine is served; ``reader`` encodes its prompts (see backbones.prompt_reader)."""

    engine: Engine
    checkpoint: Path
    reader: Backbone


@dataclass
class ServedModel:
    """``place`` None: a server's own model, which nothing here knows more of than its name."""

    client: ChatClient
    image_side: int
    place: Place | None = None
    _compared: bool = field(default=False, init=False)

    def request(self, row: Row, **how: Any) -> ChatRequest:
        defuse = getattr(self.place.reader, "defuse", str) if self.place else str
        return ChatRequest(messages(row, self.image_side, defuse), **how)

    def waves(self, batches: Sequence[Batch] | Iterator[Batch], size: Any) -> Iterator[list[Batch]]:
        """Batches, as many as keep the server busy at a time; ``size(batch)`` counts its requests."""
        wave: list[Batch] = []
        for batch in batches:
            wave.append(batch)
            if sum(map(size, wave)) >= WAVES * self.client.max_concurrency:
                yield wave
                wave = []
        if wave:
            yield wave

    def complete(self, rows: Sequence[Row], requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """A reply to each request; ``rows`` are what they ask, for comparison.

        Raises TeacherError where the server cannot be used, or reads a prompt otherwise than the local processor.
        """
        if self.place is None:
            return self.client.complete(requests)
        called = self.place.engine.serve(self.place.checkpoint, self.client.model)
        self.client.dialect = ServedDialect(**{**asdict(self.client.dialect), "called": called})
        if not self._compared:
            self._compare(rows[:PROBES], self.client.complete(requests[:PROBES]))
        return self.client.complete(requests)  # the probes are answered from the disk

    def _compare(self, rows: Sequence[Row], replies: Sequence[ChatReply]) -> None:
        """A server that reports no count, as some do, is believed."""
        assert self.place is not None
        for row, reply in zip(rows, replies, strict=True):
            there = reply.usage.prompt_tokens
            here = len(self.place.reader.encode([row])[0].prompt) if there else 0
            if here != there:
                for wrong in replies:  # they answer another prompt
                    self.client.cache.file(wrong.key).unlink(missing_ok=True)
                raise TeacherError(
                    f"{self.client.section}: {self.client.base_url} reads the first prompt as {there} tokens, and the "
                    f"processor of {self.place.checkpoint} as {here}; serve that folder with its own chat template and "
                    f"picture sizes, or pass {self._local()}"
                )
        self._compared = True

    def _local(self) -> str:
        return "generator=hf" if self.client.section == "generator" else "judge.server=null"
