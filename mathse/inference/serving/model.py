"""One served model: requests go out as one stream, each answer is stored before it is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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
from mathse.inference.work import Payment, Work
from mathse.models.base import Backbone
from mathse.models.flops import picture_work
from mathse.models.marks import defuse_usual
from mathse.models.operations import Amounts, Operations
from mathse.models.row import Row
from mathse.runs.meter import UNKNOWN, Spent

COMPARED = 2  # rows of a checkpoint that go first, to compare the server's and our count of prompt tokens

Asked = tuple[Row, ChatRequest]


@dataclass(frozen=True)
class ServedCheckpoint:
    """A checkpoint of this machine that an engine answers with.

    ``reader`` encodes its prompts (models/prompt_reader.py), ``whole`` opens it with its weights. ``operations``: those
    of a forward pass; None: not known.
    """

    path: Path
    reader: Backbone
    whole: Callable[[], Backbone]
    operations: Callable[[], Operations] | None = None


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
        request is what it is made from. The stage that is being made is debited.

        Raises TeacherError as ``stream_at``.
        """
        for replies, payment in self.stream_at(requests, more):
            payment.pay()
            yield replies

    def stream_at(
        self, requests: Iterable[Asked], more: More | None = None
    ) -> Iterator[tuple[list[ChatReply], Payment]]:
        """The same, undebited: with each row's replies what they cost, for whoever has to pay it later.

        Raises TeacherError where the server cannot be used, or encodes prompts differently from the local processor.
        """
        rows = deque[Row]()

        def drawn() -> Iterator[Asked]:
            for row, request in requests:
                rows.append(row)
                yield row, request

        for replies in self._replies(drawn(), more):
            yield replies, self._payment(rows.popleft(), replies)

    def _replies(self, requests: Iterator[Asked], more: More | None) -> Iterator[list[ChatReply]]:
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

    @cached_property
    def _work(self) -> Work:
        operations = self.served.operations if self.served is not None else None
        return Work(None if operations is None else operations())

    def _payment(self, row: Row, replies: Sequence[ChatReply]) -> Payment:
        """By the server's usage; where it gives none, by our tokenizer."""
        answered = [reply for reply in replies if reply.outcome not in ("failed", "rejected", "refused")]
        if not answered:
            return Payment(Spent(), "server")
        texts = [text for reply in answered for text in reply.texts]
        read, written = answered[0].usage.prompt_tokens, sum(reply.usage.completion_tokens for reply in answered)
        if self.served is None:
            return Payment(Spent(read, written, flops=None) if read and written else UNKNOWN, "server")
        reader = self.served.reader
        if by_server := bool(read and written):
            share, rest = divmod(written, max(1, len(texts)))
            sampled = [share + (k < rest) for k in range(max(1, len(texts)))]
        else:
            (read,) = reader.prompt_lengths([row])
            sampled = [len(ids) + 1 for ids in reader.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        prompt = Amounts(tokens=read, squares=read**2)
        for image in row["images"]:
            prompt += picture_work(reader, image)[1]
        return self._work.served(prompt, sampled, "server" if by_server else "tokenizer")

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
