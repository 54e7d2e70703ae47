"""The Batch API: all requests in files, answered within a day, at half the price.

Each batch has a record on the disk (see records.py), written before it is sent, and the record's name in its metadata.
So a kill at any point loses none: the next start finds the record, or finds the batch at the server by its name, and
waits for it. One run at a time reads the records and sends batches; any run may wait and collect.
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
from typing import IO, Any

from mathse.errors import TeacherError
from mathse.inference.llm.batch_server import BatchServer
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.connection import Connection
from mathse.inference.llm.faults import Broken, Fault, fault_of, fault_of_body, without_key
from mathse.inference.llm.pricing import BATCH_DISCOUNT, most_it_can_cost
from mathse.inference.llm.records import FOLDER, BatchRecord, Records, line_of
from mathse.inference.llm.serialization import Dialect, reply_from
from mathse.runs.store import make_folder

MOST_REQUESTS, MOST_BYTES = 50_000, 190 * 2**20  # a batch's; the API's bounds are 50,000 and 200 MB
WRITERS = 16  # answers that are laid on the disk at a time
SENDING = "batches"  # the claim of the one run that sends
OVER = ("completed", "failed", "expired", "cancelled")


@dataclass
class Waiting:
    """A request without an answer yet, and the position of its full text in the spool."""

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
        self.waiting: dict[str, Waiting] = {}
        self.given_up: dict[str, ChatReply] = {}
        self.size = MOST_REQUESTS
        self.error: TeacherError | None = None  # raised after the batch that showed it has been stored
        self.advance: Callable[[int], None] = lambda rows: None

    def run(self, requests: Iterable[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        make_folder(self.client.cache.folder / FOLDER)
        self.advance = advance
        with BatchServer(self.client) as self.server, tempfile.TemporaryFile(dir=self.records.folder) as spool:
            keyed = list(self._spooled(requests, spool))
            # batches of an earlier process of this run may still cost something
            self.account.reserved += sum(r.most_usd for r in self.records.all() if r.run == self.account.run)
            tries = most = self.client.max_retries + 1
            # Each turn sends what has no answer, waits for all batches and collects them. Rows may come back without an
            # answer; tries count turns in which no row at all was answered.
            while before := len(self.waiting):
                with self._sending():
                    self._find_lost()
                    self._send(spool)
                self._collect_all()
                tries = most if len(self.waiting) < before else tries - 1
                if not tries:
                    self._give_up()
        replies = []
        for key, request in keyed:
            reply = self.given_up.get(key) or self.client.known(key, request)
            if reply is None:
                raise TeacherError(
                    f"{self.client.cache.file(key)} is gone; do not remove answers while a run uses them"
                )
            replies.append(reply)
        return replies

    # --- collecting requests ---

    def _spooled(self, requests: Iterable[ChatRequest], spool: IO[bytes]) -> Iterator[tuple[str, ChatRequest]]:
        """(key, request without messages) of each; those without an answer are written to the spool."""
        for request in requests:
            key, short = request.key(self.client.model), replace(request, messages=[])
            if key in self.waiting or self.client.known(key, request) is not None:
                self.advance(1)
            else:
                line = json.dumps(request.messages).encode()
                price, model = self.client.price, self.client.model
                most = most_it_can_cost(request, model, price) * BATCH_DISCOUNT if price else 0.0
                self.waiting[key] = Waiting(short, spool.tell(), len(line), most)
                spool.write(line)
            yield key, short

    # --- sending ---

    @contextmanager
    def _sending(self) -> Iterator[None]:
        while not self.claims.take(SENDING):
            time.sleep(min(1.0, self.client.poll_seconds))
        try:
            yield
        finally:
            self.claims.give_back(SENDING)

    def _find_lost(self) -> None:
        """A record without a batch id is of a sender that died: the batch is at the server under its name, or was
        never made."""
        for record in self.records.all():
            if record.batch_id is None:
                record.batch_id = self.server.find(record.name)
                if record.batch_id is None:
                    self.records.remove(record)
                else:
                    self.records.save(record)

    def _send(self, spool: IO[bytes]) -> None:
        """Send the requests that have no answer, are in no batch and are within the budget."""
        in_batches = {key for record in self.records.all() for key in record.requests}
        todo = [key for key in self.waiting if key not in in_batches and not self._answered(key)]
        sent = False
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
                sent = True
        if not sent and todo and not any(set(r.requests) & self.waiting.keys() for r in self.records.all()):
            raise self.client.budget_error(self.waiting[todo[0]].most_usd)

    def _answered(self, key: str) -> bool:
        """Whether the answer is stored by now: another run may have sent the same request."""
        if self.client.cache.get(key) is None:
            return False
        self._done(key)
        return True

    def _fill(self, record: BatchRecord, lines: IO[bytes], todo: list[str], spool: IO[bytes]) -> list[str]:
        """Write the lines of one batch; returns the keys that remain for the next one."""
        for position, key in enumerate(todo):
            # a batch ends where the API's bounds or the budget end it
            waiting = self.waiting[key]
            full = len(record.requests) >= min(self.size, MOST_REQUESTS)
            if full or lines.tell() + waiting.length > MOST_BYTES or not self.account.reserve(waiting.most_usd):
                return todo[position:]
            spool.seek(waiting.start)
            request = replace(waiting.request, messages=json.loads(spool.read(waiting.length)))
            lines.write(line_of(key, self.client.dialect.body(request, self.client.model)))
            record.add(key, request, waiting.most_usd)
        return []

    # --- waiting and collecting ---

    def _collect_all(self) -> None:
        """Wait until no batch has a request of ours, and store the answers."""
        while ours := [r for r in self.records.all() if not self.waiting.keys().isdisjoint(r.requests)]:
            if any(record.batch_id is None for record in ours) and self.claims.take(SENDING):
                try:
                    self._find_lost()
                finally:
                    self.claims.give_back(SENDING)
            elif not sum(map(self._collect, ours)):
                time.sleep(self.client.poll_seconds)
        for key in list(self.waiting):
            self._answered(key)

    def _collect(self, record: BatchRecord) -> bool:
        """Store the answers of a batch that is over; whether it was."""
        if record.batch_id is None:  # being sent by another run, or lost
            return False
        batch = self.server.status(record.batch_id)
        if batch.status not in OVER or not self.claims.take(record.name):
            return False
        try:
            for file in (batch.output_file_id, batch.error_file_id):
                if file:
                    self._read(record, self.server.content(file))
            if batch.status == "failed":
                self._failed(record, batch.errors.data or [] if batch.errors else [])
            self.records.remove(record)
            if record.run == self.account.run:
                self.account.release(record.most_usd)
        finally:
            self.claims.give_back(record.name)
        if self.error is not None:
            raise self.error
        return True

    def _read(self, record: BatchRecord, content: bytes) -> None:
        replies = []
        for line in content.splitlines():
            try:
                answer = json.loads(without_key(line.decode("utf-8", "replace"), self.client.secret))
                key = answer["custom_id"]
            except (ValueError, TypeError, KeyError):
                continue  # its request has no answer then, and is sent again
            if key in record.requests and (reply := self._reply(record, key, answer)) is not None:
                replies.append(reply)

        # Billed to the run that sent the batch, whoever collects it. Each answer waits for the disk, so many go at a
        # time: one by one, 100,000 of them would take the better part of an hour.
        keep = partial(self.client.keep, batch=True, run=record.run)
        requests = [record.request(reply.key) for reply in replies]
        with ThreadPoolExecutor(WRITERS, "answers") as pool:
            for reply, request, _ in zip(replies, requests, pool.map(keep, replies, requests), strict=True):
                if record.run == self.account.run:
                    self.client.known(reply.key, request)  # counts it
                self._done(reply.key)

    def _reply(self, record: BatchRecord, key: str, answer: dict[str, Any]) -> ChatReply | None:
        """The reply that a line holds; None where it holds none, which has its consequences here."""
        response = answer.get("response") or {}
        status, body = response.get("status_code", 0), response.get("body")
        try:
            if status != 200:
                raise Broken(str(answer.get("error") or "no answer"))
            return reply_from(body, record.request(key), key)
        except Broken as e:
            fault = fault_of_body(status, body, self.client.secret) if status >= 400 and body else fault_of(e, None)
            self._refused(key, fault, record)
            return None

    def _done(self, key: str) -> None:
        if self.waiting.pop(key, None) is not None:
            self.advance(1)

    def _refused(self, key: str, fault: Fault, record: BatchRecord) -> None:
        """A line without an answer: it is sent again with the next batch, given up, or ends the run."""
        waiting = self.waiting.get(key)
        if waiting is None:
            return
        sent = Dialect(**record.dialect).body(waiting.request, self.client.model)
        if fault.whose == "moment" or self.client.dialect.gives_way(fault, waiting.request, sent):
            waiting.fault = fault
        elif fault.whose == "row":
            self._outcome(key, ChatReply(outcome="rejected", error=fault.message, key=key))
        else:
            self.error = self.client.fault_error(fault)

    def _outcome(self, key: str, reply: ChatReply) -> None:
        self.client.count(reply, self.waiting[key].request)
        self.given_up[key] = reply
        self._done(key)

    def _failed(self, record: BatchRecord, errors: list[Any]) -> None:
        """The server refused the whole batch; where it had too many tokens, it is sent again in halves."""
        if any(error.code == "token_limit_exceeded" for error in errors) and len(record.requests) > 1:
            self.size = (len(record.requests) + 1) // 2
            return
        reasons = "; ".join(str(error.message) for error in errors[:3]) or "no reason given"
        fault = Fault("run", f"batch {record.batch_id} failed: {without_key(reasons, self.client.secret)}")
        self.error = self.client.fault_error(fault)

    def _give_up(self) -> None:
        """After all tries: rows are given up where others were answered; else the run ends."""
        for key, waiting in list(self.waiting.items()):
            fault = waiting.fault or Fault("moment", "the batch came back without this row")
            if not self.account.answered:
                raise self.client.fault_error(fault)
            self._outcome(key, ChatReply(outcome="failed", error=fault.message, key=key))
