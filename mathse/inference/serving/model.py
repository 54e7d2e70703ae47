"""One served model: requests go out as one stream, each answer is stored before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from mathse.inference.serving.probe import Probe, compare_prompts
from mathse.models.base import Backbone
from mathse.models.marks import defuse_usual
from mathse.models.row import Row

COMPARED = 2  # rows of a checkpoint that go first, to compare the server's and our count of prompt tokens

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
        defuse: Callable[[str], str] = defuse_usual
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
            first = list(islice(requests, max(COMPARED, self.engine.probes)))
            requests = chain(first, requests)
            self.engine.admit(self.client, partial(self._serve, self.served, [row for row, _ in first]))
            if self.client.model not in self.engine.compared:
                self._compare(self.served, first[:COMPARED])
        yield from self.client.stream((request for _, request in requests), more)

    def _serve(self, served: ServedCheckpoint, rows: Sequence[Row]) -> None:
        """Have the engine answer with this checkpoint; ``rows``: the first prompts."""
        probe = Probe(rows, served.whole, lambda row: self.dialect.body(self.request(row), self.client.model))
        self.dialect.served_as = self.engine.serve(served.path, self.client.model, probe)
        remedy = self.engine.remedy(self.client.section)
        self.client.unknown_model = f"it has no model {self.dialect.served_as!r}; {remedy}"

    def _compare(self, served: ServedCheckpoint, first: Sequence[Asked]) -> None:
        """Raises TeacherError where the first prompts are read otherwise than by the local processor."""
        replies = self.client.complete([request for _, request in first])  # they are on the disk then
        address, instead = self.engine.addresses[0], "judge.server=null" if self.statuses else "generator=hf"
        try:
            for (row, _), reply in zip(first, replies, strict=True):
                by_server, by_reader = reply.usage.prompt_tokens, len(served.reader.encode([row])[0].prompt)
                compare_prompts(address, self.dialect.served_as, served.path, by_server, by_reader, instead)
        except TeacherError:
            for reply in replies:  # they answer another prompt
                self.client.cache.file(reply.key).unlink(missing_ok=True)
            raise
        self.engine.compared.add(self.client.model)
