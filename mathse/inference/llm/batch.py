"""The Batch API: all requests in files, answered within a day, at half the price.

A batch is known by a record on the disk (see records.py) that is written before it is sent, and by its name in the
batch's metadata. So a kill at any point loses none: the next start finds the record, or finds the batch at the server
by its name, and waits for it. Only one run at a time looks at the records and sends batches; any may wait and collect.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from mathse.errors import TeacherError
from mathse.inference.llm.batch_server import BatchServer
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.connection import Connection
from mathse.inference.llm.faults import Broken, Fault, blot_out, fault_of, fault_of_body
from mathse.inference.llm.pricing import BATCH_DISCOUNT, most_it_can_cost
from mathse.inference.llm.records import FOLDER, BatchRecord, Records, line_of
from mathse.inference.llm.wire import Dialect, reply_from
from mathse.runs.store import make_folder

MOST_REQUESTS, MOST_BYTES = 50_000, 190 * 2**20  # a batch's; the API's bounds are 50,000 and 200 MB
SENDING = "batches"  # the claim of the one run that sends
OVER = ("completed", "failed", "expired", "cancelled")


@dataclass
class Waiting:
    """A request that has no answer yet, and where its full text stands in the spool."""

    request: ChatRequest  # without its messages
    start: int
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
        self.error: TeacherError | None = None  # raised once the batch that showed it is put away
        self.advance: Callable[[int], None] = lambda rows: None

    def run(self, requests: Iterable[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        make_folder(self.client.cache.folder / FOLDER)
        self.advance = advance
        with BatchServer(self.client) as self.server, tempfile.TemporaryFile(dir=self.records.folder) as spool:
            asked = list(self._spooled(requests, spool))
            self._reserve_what_lies_there()
            tries = most = self.client.max_retries + 1
            while before := len(self.waiting):
                with self._sending():
                    self._find_lost()
                    self._send(spool)
                self._collect_all()
                tries = most if len(self.waiting) < before else tries - 1
                if not tries:
                    self._give_up()
        return [self.given_up.get(key) or self._known(key, request) for key, request in asked]

    def _known(self, key: str, request: ChatRequest) -> ChatReply:
        reply = self.client.known(key, request)
        if reply is None:
            raise TeacherError(f"{self.client.cache.file(key)} is gone; do not remove answers while a run uses them")
        return reply

    # --- drawing ---

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
        """A record without a batch is of a sender that died: the batch is at the server under its name, or was never
        made."""
        for record in self.records.all():
            if record.batch_id is None:
                record.batch_id = self.server.find(record.name)
                if record.batch_id is None:
                    self.records.remove(record)
                else:
                    self.records.save(record)

    def _send(self, spool: IO[bytes]) -> None:
        """Send what has no answer, lies in no batch and is within the budget."""
        there = {key for record in self.records.all() for key in record.requests}
        todo = [key for key in self.waiting if key not in there and not self._answered(key)]
        sent = False
        while todo:
            record = BatchRecord.new(self.account.run, asdict(self.client.dialect))
            with tempfile.TemporaryFile(dir=self.records.folder) as lines:
                todo = self._fill(record, lines, todo, spool)
                if not record.requests:
                    break
                self._submit(record, lines)
                sent = True
        if not sent and todo and not any(set(r.requests) & self.waiting.keys() for r in self.records.all()):
            raise self.client.budget_error(self.waiting[todo[0]].most_usd)

    def _answered(self, key: str) -> bool:
        """Whether another run has had it answered meanwhile."""
        if self.client.cache.get(key) is None:
            return False
        self._done(key)
        return True

    def _fill(self, record: BatchRecord, lines: IO[bytes], todo: list[str], spool: IO[bytes]) -> list[str]:
        """Write the lines of one batch; what is left for the next one."""
        for position, key in enumerate(todo):
            waiting = self.waiting[key]
            full = len(record.requests) >= min(self.size, MOST_REQUESTS)
            if full or lines.tell() + waiting.length > MOST_BYTES or not self.account.reserve(waiting.most_usd):
                return todo[position:]
            spool.seek(waiting.start)
            request = replace(waiting.request, messages=json.loads(spool.read(waiting.length)))
            lines.write(line_of(key, self.client.dialect.body(request, self.client.model)))
            record.add(key, request, waiting.most_usd)
        return []

    def _submit(self, record: BatchRecord, lines: IO[bytes]) -> None:
        file_id = self.server.upload(lines)
        self.records.save(record)  # from here on the batch may exist
        record.batch_id = self.server.create(file_id, record.name)
        self.records.save(record)

    # --- waiting and collecting ---

    def _reserve_what_lies_there(self) -> None:
        for record in self.records.all():
            if record.run == self.account.run:
                self.account.reserved += record.most_usd

    def _collect_all(self) -> None:
        """Until no batch holds a request of ours: wait for their ends, and put their answers on the disk."""
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
        """Whether the batch is over, and its answers are kept."""
        if record.batch_id is None:  # being sent by another run, or lost
            return False
        batch = self.server.look(record.batch_id)
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
        for line in content.splitlines():
            try:
                answer = json.loads(blot_out(line.decode("utf-8", "replace"), self.client.secret))
                key = answer["custom_id"]
            except (ValueError, TypeError, KeyError):
                continue  # its request has no answer then, and is sent again
            if key in record.requests:
                self._take(record, key, answer)

    def _take(self, record: BatchRecord, key: str, answer: dict[str, Any]) -> None:
        response = answer.get("response") or {}
        status, body = response.get("status_code", 0), response.get("body")
        request = record.request(key)
        try:
            if status != 200:
                raise Broken(str(answer.get("error") or "no answer"))
            reply = reply_from(body, request, key)
        except Broken as e:
            fault = fault_of_body(status, body, self.client.secret) if status >= 400 and body else fault_of(e, None)
            self._refused(key, fault, record)
            return
        self.client.keep(reply, request, batch=True, run=record.run)
        if record.run == self.account.run:
            self.client.known(key, request)  # counts it
        self._done(key)

    def _done(self, key: str) -> None:
        if self.waiting.pop(key, None) is not None:
            self.advance(1)

    def _refused(self, key: str, fault: Fault, record: BatchRecord) -> None:
        """A line without an answer: sent again with the next batch, given up, or the end of the run."""
        waiting = self.waiting.get(key)
        if waiting is None:
            return
        sent = Dialect(**record.dialect).body(waiting.request, self.client.model)
        if fault.whose == "moment" or self.client.dialect.gives_way(fault, waiting.request, sent):
            waiting.fault = fault
        elif fault.whose == "row":
            self._outcome(key, ChatReply(outcome="rejected", error=fault.said, key=key))
        else:
            self.error = self.client.fault_error(fault)

    def _outcome(self, key: str, reply: ChatReply) -> None:
        self.client.count(reply, self.waiting[key].request)
        self.given_up[key] = reply
        self._done(key)

    def _failed(self, record: BatchRecord, errors: list[Any]) -> None:
        """The server took none of the batch; where it was too many tokens at a time, it is sent again in halves."""
        if any(error.code == "token_limit_exceeded" for error in errors) and len(record.requests) > 1:
            self.size = (len(record.requests) + 1) // 2
            return
        said = "; ".join(str(error.message) for error in errors[:3]) or "no reason given"
        fault = Fault("run", f"batch {record.batch_id} failed: {blot_out(said, self.client.secret)}")
        self.error = self.client.fault_error(fault)

    def _give_up(self) -> None:
        """After all tries: single rows are given up, where others were answered; else the run ends."""
        for key, waiting in list(self.waiting.items()):
            fault = waiting.fault or Fault("moment", "the batch came back without this row")
            if not self.account.answered:
                raise self.client.fault_error(fault)
            self._outcome(key, ChatReply(outcome="failed", error=fault.said, key=key))
