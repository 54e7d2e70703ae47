"""One served model: requests go out in waves, each answer is stored before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mathse.errors import TeacherError
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.client import ChatClient
from mathse.inference.llm.faults import Fault
from mathse.inference.llm.serialization import Dialect
from mathse.inference.serving.engines import Engine, FolderEngine
from mathse.inference.serving.messages import messages
from mathse.models.base import Backbone
from mathse.models.row import Row

PROBES = 2  # rows a checkpoint that go first, to compare the server's and our count of prompt tokens
WAVES = 4  # requests at a time, times max_concurrency: so many that waiting for the last ones costs little
NEVER = -100  # logit_bias: the token is not drawn
Batch = TypeVar("Batch")


@dataclass
class ServedDialect(Dialect):
    """Requests have the server's name of the model; answers are stored under the client's name for it.

    ``banned``: token ids that local sampling never draws (an image's placeholders), so the server must not either. What
    a request leaves out would come from the checkpoint's generation_config.json, so ``top_p`` is always sent.
    """

    served_as: str = ""
    banned: tuple[int, ...] = ()

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        body = super().body(request, self.served_as or model) | {"top_p": request.top_p}
        return body | {"logit_bias": {str(token): NEVER for token in self.banned}} if self.banned else body

    def gives_way(self, fault: Fault, request: ChatRequest, sent: Mapping[str, Any]) -> bool:
        if fault.status in (400, 422) and "logit_bias" in sent and "logit_bias" in fault.message:
            self.banned = ()  # a trained model does not draw them anyway
            return True
        return super().gives_way(fault, request, sent)


@dataclass(frozen=True)
class ServedCheckpoint:
    """A checkpoint of this machine behind an engine; ``reader`` encodes its prompts (models/prompt_reader.py)."""

    engine: Engine
    checkpoint: Path
    reader: Backbone


@dataclass
class ServedModel:
    """``served`` None: a server's own model, of which only the name is known."""

    client: ChatClient
    image_side: int
    served: ServedCheckpoint | None = None
    _compared: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        banned = tuple(getattr(self.served.reader, "never_sampled", ())) if self.served else ()
        plain = self.client.dialect
        self.dialect = self.client.dialect = ServedDialect(plain.structured, plain.max_tokens, banned=banned)

    def request(self, row: Row, **options: Any) -> ChatRequest:
        defuse = getattr(self.served.reader, "defuse", str) if self.served else str
        return ChatRequest(messages(row, self.image_side, defuse), **options)

    def waves(self, batches: Iterable[Batch], size: Callable[[Batch], int]) -> Iterator[list[Batch]]:
        """Batches grouped so that each group keeps the server busy; ``size(batch)`` is its number of requests."""
        wave: list[Batch] = []
        for batch in batches:
            wave.append(batch)
            if sum(map(size, wave)) >= WAVES * self.client.max_concurrency:
                yield wave
                wave = []
        if wave:
            yield wave

    def complete(self, rows: Sequence[Row], requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """A reply to each request; ``rows``: what the requests are made from.

        Raises TeacherError where the server cannot be used, or encodes prompts differently from the local processor.
        """
        if self.served is None or all(map(self._answered, requests)):  # all are stored: no engine is started
            return self.client.complete(requests)
        self.dialect.served_as = self.served.engine.serve(self.served.checkpoint, self.client.model)
        section = self.client.section
        remedy = f"check {section}.model and {section}.command"
        if isinstance(self.served.engine, FolderEngine):
            remedy = f"`transformers serve` loads the folder it is asked for; for other engines pass {section}.command"
        self.client.unknown_model = f"it has no model {self.dialect.served_as!r}; {remedy}"
        if not self._compared:
            self._compare(rows[:PROBES], self.client.complete(requests[:PROBES]))
        return self.client.complete(requests)  # the probes are answered from the disk

    def _answered(self, request: ChatRequest) -> bool:
        return self.client.cache.file(request.key(self.client.model)).exists()

    def _compare(self, rows: Sequence[Row], replies: Sequence[ChatReply]) -> None:
        """Raises TeacherError where the counts of prompt tokens differ. A server that reports none passes."""
        assert self.served is not None
        for row, reply in zip(rows, replies, strict=True):
            by_server = reply.usage.prompt_tokens
            by_reader = len(self.served.reader.encode([row])[0].prompt) if by_server else 0
            if by_reader != by_server:
                for wrong in replies:  # they answer another prompt
                    self.client.cache.file(wrong.key).unlink(missing_ok=True)
                local = "generator=hf" if self.client.section == "generator" else "judge.server=null"
                raise TeacherError(
                    f"{self.client.section}: {self.client.base_url}, asked for {self.dialect.served_as}, reads a "
                    f"prompt as {by_server} tokens, and the processor of {self.served.checkpoint} reads it as "
                    f"{by_reader}; the server has another chat template or other picture sizes (min_pixels, "
                    f"max_pixels): let it serve that folder with the folder's own, or pass {local}"
                )
        self._compared = True
