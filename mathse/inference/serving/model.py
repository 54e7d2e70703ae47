"""One served model: its requests are sent as one stream, and each answer is stored before it is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mathse.errors import TeacherError
from mathse.inference.generate import PromptBatch
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.client import ChatClient
from mathse.inference.llm.online import FollowUp
from mathse.inference.serving.dialect import ServedDialect, StatusTokens, make_messages
from mathse.inference.serving.engines import Engine
from mathse.inference.serving.probe import Probe, compare_prompts
from mathse.inference.work import AnswerCosts, Payment
from mathse.models.base import Backbone
from mathse.models.flops import count_picture_work
from mathse.models.marks import defuse_common
from mathse.models.operations import Amounts, Operations
from mathse.models.row import Row
from mathse.runs.meter import UNKNOWN, Spent

COMPARED_ROWS = 2  # sent first, to compare the server's and the local count of prompt tokens

RowRequest = tuple[Row, ChatRequest]  # a row and the request that is made from it


@dataclass(frozen=True)
class ServedCheckpoint:
    """A checkpoint of this machine that an engine answers with.

    Args:
        path: the folder.
        reader: encodes its prompts (models/prompt_reader.py).
        whole: opens it with its weights.
        operations: returns the operations of a forward pass; None: not known.
    """

    path: Path
    reader: Backbone
    whole: Callable[[], Backbone]
    operations: Callable[[], Operations] | None = None


@dataclass
class ServedModel:
    """A model behind an engine.

    Args:
        client: sends the requests.
        engine: answers them.
        served: the checkpoint; None: a server's own model, of which only the name is known.
        statuses: the status tokens of an ORM.
    """

    client: ChatClient
    engine: Engine
    served: ServedCheckpoint | None = None
    statuses: StatusTokens | None = None

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
        """Make the request of a row; ``options`` are fields of ``ChatRequest``."""
        defuse: Callable[[str], str] = defuse_common
        if self.served is not None:
            row, defuse = self.served.reader.as_read(row), self.served.reader.defuse
        return ChatRequest(make_messages(row, self.engine.pictures.address, defuse), **options)

    def stream_batches(
        self,
        batches: Iterable[PromptBatch],
        make_request: Callable[[Row, int, Mapping[str, Any]], ChatRequest],
        follow_up: FollowUp | None = None,
    ) -> Iterator[tuple[PromptBatch, list[list[ChatReply]]]]:
        """Return each batch with the replies to its rows, in order. All batches are one stream, so none waits for the
        end of another.

        Args:
            batches: drawn as slots become free.
            make_request: makes the request of a row from the row, its position in the batch and the batch's options.
            follow_up: as of ``stream``.
        """
        pending = deque[PromptBatch]()  # batches that are requested and not yet answered

        def make_requests() -> Iterator[RowRequest]:
            for batch in batches:
                pending.append(batch)
                for position, row in enumerate(batch.rows):
                    yield row, make_request(row, position, batch.options)

        # The first reply to a batch shows that its requests have been drawn, so that it is in ``pending``.
        replies = self.stream(make_requests(), follow_up)
        while (first := next(replies, None)) is not None:
            batch = pending.popleft()
            yield batch, [first, *islice(replies, len(batch.rows) - 1)]

    def stream(self, requests: Iterable[RowRequest], follow_up: FollowUp | None = None) -> Iterator[list[ChatReply]]:
        """Return the replies to each request, in order, and debit the stage that is being made.

        Args:
            requests: read as slots become free.
            follow_up: returns further requests for a reply; their replies follow it in its list.

        Raises:
            TeacherError: as ``stream_with_costs``.
        """
        for replies, payment in self.stream_with_costs(requests, follow_up):
            payment.pay()
            yield replies

    def stream_with_costs(
        self, requests: Iterable[RowRequest], follow_up: FollowUp | None = None
    ) -> Iterator[tuple[list[ChatReply], Payment]]:
        """Return the replies to each request, and their cost, which the caller has to pay.

        Raises:
            TeacherError: the server cannot be used, or encodes prompts differently from the local processor.
        """
        rows = deque[Row]()  # of the requests without a reply yet

        def keep_rows() -> Iterator[RowRequest]:
            for row, request in requests:
                rows.append(row)
                yield row, request

        for replies in self._stream(keep_rows(), follow_up):
            yield replies, self._count(rows.popleft(), replies)

    def _stream(self, requests: Iterator[RowRequest], follow_up: FollowUp | None) -> Iterator[list[ChatReply]]:
        if self.served is not None:
            # 1) Return the stored answers up to the first that is missing: they need no engine.
            missing = None
            for row, request in requests:
                reply = self.client.read_stored(request.key(self.client.model), request)
                if reply is None or (follow_up is not None and follow_up(request, reply)):
                    missing = (row, request)
                    break
                yield [reply]
            if missing is None:
                return

            # 2) Have the engine hold the model. The first rows are its probe.
            requests = chain([missing], requests)
            first = list(islice(requests, max(COMPARED_ROWS, self.engine.probes)))
            requests = chain(first, requests)
            self.engine.admit(self.client, partial(self._serve, self.served, [row for row, _ in first]))
            if self.client.model not in self.engine.compared:
                self._compare(self.served, first[:COMPARED_ROWS])

        # 3) Send the rest as one stream.
        yield from self.client.stream((request for _, request in requests), follow_up)

    @cached_property
    def _costs(self) -> AnswerCosts:
        operations = self.served.operations if self.served is not None else None
        return AnswerCosts(None if operations is None else operations())

    def _count(self, row: Row, replies: Sequence[ChatReply]) -> Payment:
        """Count the cost of a row by the server's usage, or by the local tokenizer if the server reports none."""
        answered = [reply for reply in replies if reply.outcome not in ("failed", "rejected", "refused")]
        if not answered:
            return Payment(Spent(), "server")
        n_prompt = answered[0].usage.prompt_tokens
        n_sampled = sum(reply.usage.completion_tokens for reply in answered)
        has_usage = bool(n_prompt and n_sampled)
        if self.served is None:
            return Payment(Spent(n_prompt, n_sampled, flops=None) if has_usage else UNKNOWN, "server")

        texts = []
        for reply in answered:
            texts += reply.texts
        reader = self.served.reader
        if has_usage:
            # The server reports a sum; spread it evenly over the answers.
            n_texts = max(1, len(texts))
            share, rest = divmod(n_sampled, n_texts)
            sampled = [share + (k < rest) for k in range(n_texts)]
        else:
            (n_prompt,) = reader.prompt_lengths([row])
            # Each answer has an end-of-sequence token.
            sampled = [len(ids) + 1 for ids in reader.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        prompt = Amounts(tokens=n_prompt, squares=n_prompt**2)
        for image in row["images"]:
            prompt += count_picture_work(reader, image)[1]
        return self._costs.count_served(prompt, sampled, "server" if has_usage else "tokenizer")

    def _serve(self, served: ServedCheckpoint, rows: Sequence[Row]) -> None:
        """Have the engine answer with this checkpoint; ``rows`` are the first prompts."""
        probe = Probe(rows, served.whole, lambda row: self.dialect.body(self.request(row), self.client.model))
        self.dialect.served_as = self.engine.serve(served.path, self.client.model, probe)
        remedy = self.engine.remedy(self.client.section)
        self.client.unknown_model = f"it has no model {self.dialect.served_as!r}; {remedy}"

    def _compare(self, served: ServedCheckpoint, first: Sequence[RowRequest]) -> None:
        """Raise TeacherError if the server reads the first prompts as other numbers of tokens than the local
        processor."""
        replies = self.client.complete([request for _, request in first])
        address, instead = self.engine.addresses[0], "judge.server=null" if self.statuses else "generator=hf"
        try:
            for (row, _), reply in zip(first, replies, strict=True):
                by_server, by_reader = reply.usage.prompt_tokens, len(served.reader.encode([row])[0].prompt)
                compare_prompts(address, self.dialect.served_as, served.path, by_server, by_reader, instead)
        except TeacherError:
            for reply in replies:  # remove the stored answers, since they answer another prompt
                self.client.cache.file(reply.key).unlink(missing_ok=True)
            raise
        self.engine.compared.add(self.client.model)
