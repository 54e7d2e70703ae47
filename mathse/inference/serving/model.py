"""One served model: requests go out as one stream, each answer is stored before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mathse.errors import TeacherError
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.client import ChatClient
from mathse.inference.llm.online import More
from mathse.inference.serving.dialect import ServedDialect, Statuses
from mathse.inference.serving.engines import Engine
from mathse.inference.serving.messages import messages
from mathse.inference.serving.probe import Probe
from mathse.models.base import Backbone
from mathse.models.row import Row

PROBES = 2  # rows a checkpoint that go first, to compare the server's and our count of prompt tokens

Asked = tuple[Row, ChatRequest]


@dataclass(frozen=True)
class ServedCheckpoint:
    """A checkpoint of this machine that an engine answers with.

    ``reader`` encodes its prompts (models/prompt_reader.py), ``whole`` opens it with its weights.
    """

    path: Path
    reader: Backbone
    whole: Callable[[], Backbone]


@dataclass
class ServedModel:
    """``served`` None: a server's own model, of which only the name is known. ``statuses``: of an ORM."""

    client: ChatClient
    engine: Engine
    served: ServedCheckpoint | None = None
    statuses: Statuses | None = None
    _compared: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        plain = self.client.dialect
        self.dialect = self.client.dialect = ServedDialect(
            plain.structured,
            plain.max_tokens,
            banned=tuple(getattr(self.served.reader, "never_sampled", ())) if self.served else (),
            url=partial(self.engine.pictures.url, local=self.engine.reads_files),
            statuses=self.statuses,
            by_id=self.engine.takes_token_ids,
        )

    def request(self, row: Row, **options: Any) -> ChatRequest:
        defuse: Callable[[str], str] = str
        if self.served is not None:
            row, defuse = self.served.reader.as_read(row), self.served.reader.defuse
        return ChatRequest(messages(row, self.engine.pictures.address, defuse), **options)

    def stream(self, requests: Iterable[Asked], more: More | None = None) -> Iterator[list[ChatReply]]:
        """The replies to each request, in their order: one, and those to what ``more`` asks for behind it. The row of a
        request is what it is made from.

        Raises TeacherError where the server cannot be used, or encodes prompts differently from the local processor.
        """
        requests = iter(requests)
        if self.served is not None:
            # What lies on the disk needs no engine.
            for row, request in requests:
                key = request.key(self.client.model)
                reply = self.client.known(key, request)
                if reply is None or (more is not None and more(request, reply)):
                    requests = chain([(row, request)], requests)
                    break
                yield [reply]
            else:
                return
            probes = list(islice(requests, PROBES))
            rows = [row for row, _ in probes]
            self.engine.admit(self.client, partial(self._serve, self.served, rows))
            if not self._compared:
                self._compare(self.served, rows, self.client.complete([request for _, request in probes]))
            requests = chain(probes, requests)  # they are answered from the disk
        yield from self.client.stream((request for _, request in requests), more)

    def _serve(self, served: ServedCheckpoint, rows: Sequence[Row]) -> None:
        """Have the engine answer with this checkpoint; ``rows``: the first prompts."""
        probe = Probe(rows, served.whole, self._greedy)
        self.dialect.served_as = self.engine.serve(served.path, self.client.model, probe)
        remedy = self.engine.remedy(self.client.section)
        self.client.unknown_model = f"it has no model {self.dialect.served_as!r}; {remedy}"

    def _greedy(self, row: Row) -> dict[str, Any]:
        return self.dialect.body(self.request(row), self.client.model)

    def _compare(self, served: ServedCheckpoint, rows: Sequence[Row], replies: Sequence[ChatReply]) -> None:
        """Raises TeacherError where the counts of prompt tokens differ. A server that reports none passes."""
        for row, reply in zip(rows, replies, strict=True):
            by_server = reply.usage.prompt_tokens
            by_reader = len(served.reader.encode([row])[0].prompt) if by_server else 0
            if by_reader != by_server:
                for wrong in replies:  # they answer another prompt
                    self.client.cache.file(wrong.key).unlink(missing_ok=True)
                local = "generator=hf" if self.client.section == "generator" else "judge.server=null"
                raise TeacherError(
                    f"{self.client.section}: {self.client.base_url}, asked for {self.dialect.served_as}, reads a "
                    f"prompt as {by_server} tokens, and the processor of {served.path} reads it as "
                    f"{by_reader}; the server has another chat template or other picture sizes (min_pixels, "
                    f"max_pixels): let it serve that folder with the folder's own, or pass {local}"
                )
        self._compared = True
