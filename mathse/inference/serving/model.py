"""One served model: asked in waves, each answer on the disk before anything counts on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mathse.errors import TeacherError
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.client import ChatClient
from mathse.inference.llm.faults import Fault
from mathse.inference.llm.wire import Dialect
from mathse.inference.serving.engines import Engine, FolderEngine
from mathse.inference.serving.prompts import messages
from mathse.models.base import Backbone
from mathse.models.row import Row

PROBES = 2  # rows a checkpoint, whose prompts are counted here and there before any other is asked
WAVES = 4  # requests at a time, times max_concurrency: long enough that the last ones matter little
NEVER = -100  # logit_bias: the token is not drawn
Batch = TypeVar("Batch")


@dataclass
class ServedDialect(Dialect):
    """The request names the model as the server knows it; answers are kept under the client's name for it.

    ``banned``: token ids that local sampling never draws (an image's marks), and the server is not to either. What else
    a request leaves out would come from the checkpoint's generation_config.json, so ``top_p`` is always said.
    """

    called: str = ""
    banned: tuple[int, ...] = ()

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        body = super().body(request, self.called or model) | {"top_p": request.top_p}
        return body | {"logit_bias": {str(token): NEVER for token in self.banned}} if self.banned else body

    def gives_way(self, fault: Fault, request: ChatRequest, sent: Mapping[str, Any]) -> bool:
        if fault.status in (400, 422) and "logit_bias" in sent and "logit_bias" in fault.said:
            self.banned = ()  # a model that has been trained draws none of them anyway
            return True
        return super().gives_way(fault, request, sent)


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

    def __post_init__(self) -> None:
        banned = tuple(getattr(self.place.reader, "never_sampled", ())) if self.place else ()
        said = self.client.dialect
        self.dialect = self.client.dialect = ServedDialect(said.structured, said.max_tokens, banned=banned)

    def request(self, row: Row, **how: Any) -> ChatRequest:
        defuse = getattr(self.place.reader, "defuse", str) if self.place else str
        return ChatRequest(messages(row, self.image_side, defuse), **how)

    def waves(self, batches: Iterable[Batch], size: Callable[[Batch], int]) -> Iterator[list[Batch]]:
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
        if self.place is None or all(map(self._answered, requests)):  # no engine is started for what lies on the disk
            return self.client.complete(requests)
        self.dialect.called = self.place.engine.serve(self.place.checkpoint, self.client.model)
        self.client.unknown_model = f"it has no model {self.dialect.called!r}; {self._remedy(self.place.engine)}"
        if not self._compared:
            self._compare(rows[:PROBES], self.client.complete(requests[:PROBES]))
        return self.client.complete(requests)  # the probes are answered from the disk

    def _answered(self, request: ChatRequest) -> bool:
        return self.client.cache.file(request.key(self.client.model)).exists()

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
                    f"{self.client.section}: {self.client.base_url}, asked for {self.dialect.called}, reads a prompt "
                    f"as {there} tokens, and the processor of {self.place.checkpoint} reads it as {here}; the server "
                    "has another chat template or other picture sizes (min_pixels, max_pixels): let it serve that "
                    f"folder with the folder's own, or pass {self._local()}"
                )
        self._compared = True

    def _remedy(self, engine: Engine) -> str:
        section = self.client.section
        if isinstance(engine, FolderEngine):
            return f"`transformers serve` loads the folder it is asked for; for other engines pass {section}.command"
        return f"check {section}.model and {section}.command"

    def _local(self) -> str:
        return "generator=hf" if self.client.section == "generator" else "judge.server=null"
