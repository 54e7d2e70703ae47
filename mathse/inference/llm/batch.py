"""The Batch API: all requests in files, answered within a day, at half the price.

Each batch has a record on the disk (see records.py), which is written before the batch is sent, and the record's name
in its metadata. So a kill at any point loses no batch: the next start finds the record, or finds the batch at the
server by its name, and waits for it. One run at a time reads the records and sends batches; any run may wait and
collect.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

from mathse.errors import TeacherError
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.connection import Connection
from mathse.inference.llm.faults import BrokenReply, Fault, read_fault, read_fault_body, without_key
from mathse.inference.llm.pricing import BATCH_DISCOUNT, bound_cost
from mathse.inference.llm.records import FOLDER, BatchRecord, Records, line_of
from mathse.inference.llm.serialization import Dialect, reply_from
from mathse.runs.store import make_folder

if TYPE_CHECKING:
    from openai.types import Batch

T = TypeVar("T")

# Bounds of a batch; the API's are 50,000 requests and 200 MB.
MAX_BATCH_REQUESTS, MAX_BATCH_BYTES = 50_000, 190 * 2**20
SENDING = "batches"  # the claim of the one run that sends


class BatchServer:
    """Requests to the Batch API itself, each repeated until it succeeds or has failed too often; for a ``with``.

    Every method raises TeacherError after its last try, or at once if another try would not help.
    """

    def __init__(self, client: Connection) -> None:
        self.client, self.api = client, client.open_sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.api.close()

    def upload(self, lines: IO[bytes]) -> str:
        """Upload a file of requests and return its id."""

        def upload() -> str:
            lines.seek(0)
            return self.api.files.create(file=("requests.jsonl", lines, "application/jsonl"), purpose="batch").id

        return self._retry(upload)

    def create(self, file_id: str, name: str) -> str:
        """Create a batch with ``name`` in its metadata, and return its id. A try that failed may have created it."""
        tries = count(1)

        def create() -> str:
            if next(tries) > 1 and (existing := self.find(name)) is not None:
                return existing
            return self.api.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"mathse": name},
            ).id

        return self._retry(create)

    def find(self, name: str) -> str | None:
        """Return the id of the batch of that name among the newest 1,000 batches of the account, or None."""
        batches = self._retry(lambda: list(islice(self.api.batches.list(limit=100), 1000)))
        return next((b.id for b in batches if (b.metadata or {}).get("mathse") == name), None)

    def status(self, batch_id: str) -> Batch:
        return self._retry(lambda: self.api.batches.retrieve(batch_id))

    def content(self, file_id: str) -> bytes:
        return self._retry(lambda: self.api.files.content(file_id)).content

    def _retry(self, call: Callable[[], T]) -> T:
        import openai

        retries = 0
        while True:
            try:
                return call()
            except (openai.OpenAIError, BrokenReply) as e:
                fault = read_fault(e, self.client.secret)
                if fault.scope != "transient" or retries == self.client.max_retries:
                    raise self.client.fault_error(fault) from None
                time.sleep(fault.pause(retries))
                retries += 1


@dataclass
class PendingRequest:
    """A request without an answer yet, and the position of its messages in the spool file."""

    request: ChatRequest  # without its messages
    start: int  # in the spool, bytes
    length: int
    most_usd: float
    fault: Fault | None = None  # of its last try


class Batches:
    """The requests of one ``complete`` call."""

    def __init__(self, client: Connection) -> None:
        self.client, self.account, self.claims = client, client.account, client.cache.claims
        self.records = Records(client.cache.folder)
        self.pending: dict[str, PendingRequest] = {}  # by key
        self.given_up: dict[str, ChatReply] = {}  # by key
        self.max_requests = MAX_BATCH_REQUESTS
        self.error: TeacherError | None = None  # raised once the batch that caused it has been stored
        self.advance: Callable[[int], None] = lambda rows: None

    def run(self, requests: Iterable[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        make_folder(self.client.cache.folder / FOLDER)
        self.advance = advance
        with BatchServer(self.client) as self.server, tempfile.TemporaryFile(dir=self.records.folder) as spool:
            keyed = list(self._write_spool(requests, spool))
            # Batches of an earlier process of this run may still cost something.
            self.account.reserved += sum(r.most_usd for r in self.records.all() if r.run == self.account.run)
            tries = max_tries = self.client.max_retries + 1
            # Each turn sends the requests without an answer, waits for all batches and collects them. Rows may come
            # back without an answer; tries count the turns in which no row at all was answered.
            while n_before := len(self.pending):
                with self._claim_sending():
                    self._find_lost()
                    self._send(spool)
                self._collect_all()
                tries = max_tries if len(self.pending) < n_before else tries - 1
                if not tries:
                    self._give_up()
        replies = []
        for key, request in keyed:
            reply = self.given_up.get(key) or self.client.read_stored(key, request)
            if reply is None:
                raise TeacherError(
                    f"{self.client.cache.file(key)} is gone; do not remove answers while a run uses them"
                )
            replies.append(reply)
        return replies

    def _write_spool(self, requests: Iterable[ChatRequest], spool: IO[bytes]) -> Iterator[tuple[str, ChatRequest]]:
        """Yield (key, request without messages), and write the messages of requests without an answer to the spool."""
        price, model = self.client.price, self.client.model
        for request in requests:
            key, short = request.key(model), replace(request, messages=[])
            if key in self.pending or self.client.read_stored(key, request) is not None:
                self.advance(1)
            else:
                line = json.dumps(request.messages).encode()
                most_usd = bound_cost(request, model, price) * BATCH_DISCOUNT if price else 0.0
                self.pending[key] = PendingRequest(short, spool.tell(), len(line), most_usd)
                spool.write(line)
            yield key, short

    # --- sending ---

    @contextmanager
    def _claim_sending(self) -> Iterator[None]:
        while not self.claims.take(SENDING):
            time.sleep(min(1.0, self.client.poll_seconds))
        try:
            yield
        finally:
            self.claims.give_back(SENDING)

    def _find_lost(self) -> None:
        """Find the batches of senders that died: records without a batch id. The batch is at the server under its name,
        or was never created."""
        for record in self.records.all():
            if record.batch_id is None:
                record.batch_id = self.server.find(record.name)
                if record.batch_id is None:
                    self.records.remove(record)
                else:
                    self.records.save(record)

    def _send(self, spool: IO[bytes]) -> None:
        """Send the requests that have no answer, are in no batch and are within the budget."""
        in_batches: set[str] = set()
        for record in self.records.all():
            in_batches.update(record.requests)
        todo = [key for key in self.pending if key not in in_batches and not self._take_stored(key)]
        has_sent = False
        while todo:
            record = BatchRecord.new(self.account.run, asdict(self.client.dialect))
            with tempfile.TemporaryFile(dir=self.records.folder) as lines:
                todo = self._fill(record, lines, todo, spool)
                if not record.requests:
                    break
                file_id = self.server.upload(lines)
                self.records.save(record)  # from here on the batch may exist
                record.batch_id = self.server.create(file_id, record.name)
                self.records.save(record)
                has_sent = True
        if not has_sent and todo and not any(set(r.requests) & self.pending.keys() for r in self.records.all()):
            raise self.client.budget_error(self.pending[todo[0]].most_usd)

    def _take_stored(self, key: str) -> bool:
        """Whether the answer is stored by now, since another run may have sent the same request."""
        if self.client.cache.get(key) is None:
            return False
        self._finish(key)
        return True

    def _fill(self, record: BatchRecord, lines: IO[bytes], todo: list[str], spool: IO[bytes]) -> list[str]:
        """Write the lines of one batch, and return the keys that remain for the next. The API's bounds or the budget
        end a batch."""
        for position, key in enumerate(todo):
            pending = self.pending[key]
            is_full = len(record.requests) >= min(self.max_requests, MAX_BATCH_REQUESTS)
            is_full = is_full or lines.tell() + pending.length > MAX_BATCH_BYTES
            if is_full or not self.account.reserve(pending.most_usd):
                return todo[position:]
            spool.seek(pending.start)
            request = replace(pending.request, messages=json.loads(spool.read(pending.length)))
            lines.write(line_of(key, self.client.dialect.body(request, self.client.model)))
            record.add(key, request, pending.most_usd)
        return []

    # --- waiting and collecting ---

    def _collect_all(self) -> None:
        """Wait until no batch has a request of this call, and store the answers."""
        while records := [r for r in self.records.all() if not self.pending.keys().isdisjoint(r.requests)]:
            if any(record.batch_id is None for record in records) and self.claims.take(SENDING):
                try:
                    self._find_lost()
                finally:
                    self.claims.give_back(SENDING)
            elif not sum(map(self._collect, records)):
                time.sleep(self.client.poll_seconds)
        for key in list(self.pending):
            self._take_stored(key)

    def _collect(self, record: BatchRecord) -> bool:
        """Store the answers of a batch. Returns False if it is not over, or if another run collects it."""
        if record.batch_id is None:  # another run sends it, or it is lost
            return False
        batch = self.server.status(record.batch_id)
        if batch.status not in ("completed", "failed", "expired", "cancelled") or not self.claims.take(record.name):
            return False
        try:
            for file in (batch.output_file_id, batch.error_file_id):
                if file:
                    self._read(record, self.server.content(file))
            if batch.status == "failed":
                self._handle_refused_batch(record, batch.errors.data or [] if batch.errors else [])
            self.records.remove(record)
            if record.run == self.account.run:
                self.account.release(record.most_usd)
        finally:
            self.claims.give_back(record.name)
        if self.error is not None:
            raise self.error
        return True

    def _read(self, record: BatchRecord, content: bytes) -> None:
        """Store the answers of a file, whose lines each answer a request."""
        replies = []
        for line in content.splitlines():
            try:
                answer = json.loads(without_key(line.decode("utf-8", "replace"), self.client.secret))
                key = answer["custom_id"]
            except (ValueError, TypeError, KeyError):
                continue  # the line's request has no answer then, and is sent again
            if key not in record.requests:
                continue
            response = answer.get("response") or {}
            status, body = response.get("status_code", 0), response.get("body")
            try:
                if status != 200:
                    raise BrokenReply(str(answer.get("error") or "no answer"))
                replies.append(reply_from(body, record.request(key), key))
            except BrokenReply as e:
                if status >= 400 and body:
                    fault = read_fault_body(status, body, self.client.secret)
                else:
                    fault = read_fault(e, None)
                self._handle_fault(key, fault, record)

        # The run that sent the batch pays, whichever run collects it. Each answer waits for the disk, so 16 are written
        # at a time: one after another, 100,000 answers would take most of an hour.
        store = partial(self.client.store, batch=True, run=record.run)
        requests = [record.request(reply.key) for reply in replies]
        with ThreadPoolExecutor(16, "answers") as pool:
            for reply, request, _ in zip(replies, requests, pool.map(store, replies, requests), strict=True):
                if record.run == self.account.run:
                    self.client.read_stored(reply.key, request)  # counts it
                self._finish(reply.key)

    def _finish(self, key: str) -> None:
        if self.pending.pop(key, None) is not None:
            self.advance(1)

    def _handle_fault(self, key: str, fault: Fault, record: BatchRecord) -> None:
        """Have a request without an answer sent with the next batch, give it up, or end the run."""
        pending = self.pending.get(key)
        if pending is None:
            return
        sent = Dialect(**record.dialect).body(pending.request, self.client.model)
        if fault.scope == "transient" or self.client.dialect.gives_way(fault, pending.request, sent):
            pending.fault = fault
        elif fault.scope == "row":
            self._give_up_row(key, ChatReply(outcome="rejected", error=fault.message, key=key))
        else:
            self.error = self.client.fault_error(fault)

    def _give_up_row(self, key: str, reply: ChatReply) -> None:
        self.client.count(reply, self.pending[key].request)
        self.given_up[key] = reply
        self._finish(key)

    def _handle_refused_batch(self, record: BatchRecord, errors: list[Any]) -> None:
        """Have a batch with too many tokens sent again in halves; any other refusal of a whole batch ends the run."""
        if any(error.code == "token_limit_exceeded" for error in errors) and len(record.requests) > 1:
            self.max_requests = (len(record.requests) + 1) // 2
            return
        reasons = "; ".join(str(error.message) for error in errors[:3]) or "no reason given"
        fault = Fault("run", f"batch {record.batch_id} failed: {without_key(reasons, self.client.secret)}")
        self.error = self.client.fault_error(fault)

    def _give_up(self) -> None:
        """After all tries, give rows up if other rows were answered; otherwise end the run."""
        for key, pending in list(self.pending.items()):
            fault = pending.fault or Fault("transient", "the batch came back without this row")
            if not self.account.answered:
                raise self.client.fault_error(fault)
            self._give_up_row(key, ChatReply(outcome="failed", error=fault.message, key=key))
