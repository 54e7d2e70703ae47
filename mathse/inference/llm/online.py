"""One HTTP request a chat request, many at a time, repeated with growing pauses where the server cannot answer now.

The way of a request: answered from the cache, if its answer is there. Else its key is claimed, so that no other run
sends it too; its cost is reserved in the budget; it is sent; its answer is flushed to the disk, counted and returned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import openai

from mathse.errors import TeacherError
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.connection import Connection
from mathse.inference.llm.faults import Broken, Fault, fault_of, without_key
from mathse.inference.llm.pricing import most_it_can_cost, prompt_tokens
from mathse.inference.llm.records import Records
from mathse.inference.llm.serialization import read_reply

POLL = (0.05, 1.0)  # seconds between looks for an answer that another run has requested: first, longest
AHEAD = 4  # requests read ahead, times max_concurrency
HOPELESS = 10  # rows rejected before any was answered: a setting is wrong


class Stopped(Exception):
    """The run ends: nothing more is sent."""


class Online:
    """The requests of one ``complete`` call, inside one event loop."""

    def __init__(self, client: Connection) -> None:
        self.client, self.account, self.claims = client, client.account, client.cache.claims
        self.slots = asyncio.Semaphore(client.max_concurrency)
        self.ahead = asyncio.Semaphore(AHEAD * client.max_concurrency)
        self.settled = asyncio.Condition()  # a request under way has ended
        self.stopping = asyncio.Event()
        self.error: TeacherError | None = None
        self.in_batches = Records(client.cache.folder).files()
        self.rejected = 0
        self.last_answer = 0.0  # time.monotonic() of it

    async def run(self, requests: Iterable[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """Requests under way are waited for and stored also after an error or Ctrl-C: they will be billed."""
        tasks: list[asyncio.Task[ChatReply]] = []
        async with self.client.connected() as self.api:
            try:
                # Requests are read as earlier ones end: a request with pictures is a megabyte.
                for request in requests:
                    await self.ahead.acquire()
                    if self.stopping.is_set():
                        break
                    tasks.append(asyncio.create_task(self._row(request, advance)))
                await _ended(tasks)
            finally:
                self.stopping.set()
                await _ended(tasks)
        errors = [e for task in tasks if (e := task.exception()) is not None and not isinstance(e, Stopped)]
        for error in (self.error, *errors):
            if error is not None:
                raise error
        return [task.result() for task in tasks]

    async def _row(self, request: ChatRequest, advance: Callable[[int], None]) -> ChatReply:
        done = False
        try:
            reply = await self._reply(request)
            advance(1)
            done = True
            return reply
        finally:
            self.ahead.release()
            if not done:  # a full disk, a damaged answer: nothing more is sent
                self.stopping.set()
                async with self.settled:
                    self.settled.notify_all()

    async def _reply(self, request: ChatRequest) -> ChatReply:
        key = request.key(self.client.model)
        pause = POLL[0]
        while True:
            if (known := self.client.known(key, request)) is not None:
                return known
            if key in self.in_batches:
                self._end(self.client.in_batch_error(self.in_batches[key]))
                raise Stopped
            if self.claims.take(key):
                try:
                    # Another run may have stored it between the look and the claim.
                    return self.client.known(key, request) or await self._requested(request, key)
                finally:
                    self.claims.give_back(key)
            await self._sleep(pause)
            pause = min(2 * pause, POLL[1])

    async def _requested(self, request: ChatRequest, key: str) -> ChatReply:
        async with self.slots:
            reserved = await self._reserve(request)
            try:
                reply = await self._tried(request, key)
                await asyncio.to_thread(self.client.keep, reply, request)
                self.client.count(reply, request)
                return reply
            finally:
                self.account.release(reserved)
                async with self.settled:
                    self.settled.notify_all()

    async def _reserve(self, request: ChatRequest) -> float:
        """Reserve what the request can cost; where it would fit but for requests under way, wait for their ends."""
        price = self.client.price
        if price is None or self.account.budget_usd is None:
            return 0.0
        most = most_it_can_cost(request, self.client.model, price)
        async with self.settled:
            while not self.stopping.is_set():
                if self.account.reserve(most):
                    return most
                if self.account.reserved <= 0:
                    self._end(self.client.budget_error(most))
                else:
                    await self.settled.wait()
        raise Stopped

    async def _tried(self, request: ChatRequest, key: str) -> ChatReply:
        """The reply, after up to ``max_retries`` more tries."""
        started, tries_left = time.monotonic(), self.client.max_retries + 1
        while True:
            if self.stopping.is_set():
                raise Stopped
            body = self.client.dialect.body(request, self.client.model)
            reply = await self._send(request, body, key)
            if isinstance(reply, ChatReply):
                self.last_answer = time.monotonic()
                return reply
            # a parameter that the server does not know costs no try
            if self.client.dialect.gives_way(reply, request, body):
                continue
            tries_left -= reply.whose == "moment"
            if reply.whose != "moment" or not tries_left:
                return self._given_up(reply, request, key, started)
            if reply.wait is not None:
                self.client.limits.pause(reply.wait)  # of all requests: the server asks for it
            await self._sleep(reply.pause(self.client.max_retries - tries_left))

    async def _send(self, request: ChatRequest, body: dict[str, Any], key: str) -> ChatReply | Fault:
        limits, estimate = self.client.limits, request.max_tokens * request.n  # tokens
        if limits.tokens.limited:
            estimate += prompt_tokens(request, self.client.model)
        await self._sleep(limits.book(estimate))
        while limits.paused:
            await self._sleep(limits.paused)
        try:
            async with asyncio.timeout(self.client.timeout):  # the package's own limit is for each read of the socket
                raw = await self.api.chat.completions.with_raw_response.create(**body)
            reply = read_reply(without_key(raw.http_response.text, self.client.secret), request, key)
        except (openai.OpenAIError, TimeoutError, Broken) as e:
            return fault_of(e, self.client.secret)
        limits.tokens.correct(reply.usage.prompt_tokens + reply.usage.completion_tokens - estimate)
        return reply

    def _given_up(self, fault: Fault, request: ChatRequest, key: str, started: float) -> ChatReply:
        """The outcome of a row that gets no answer. Where that may not be the row's fault, the run ends and Stopped is
        raised. If the row fails through all tries of the next start too, though the server answers, it is given up."""
        # The row's fault, unless every row so far was rejected: then a setting is wrong.
        if fault.whose == "row":
            self.rejected += 1
            if self.account.answered or self.rejected < HOPELESS:
                return ChatReply(outcome="rejected", error=fault.message, key=key)
        # A fault of the moment that outlasts all tries: of this row, if others were answered meanwhile, or if it failed
        # in an earlier start too.
        failed = ChatReply(outcome="failed", error=fault.message, key=key)
        if fault.whose == "moment" and fault.reached:
            if self.last_answer > started or self.account.outcome(key) == "failed":
                return failed
            self.client.count(failed, request)
        self._end(self.client.fault_error(fault))
        raise Stopped

    # --- the end ---

    async def _sleep(self, seconds: float) -> None:
        """Raises Stopped where the run ends during the pause."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)
        if self.stopping.is_set():
            raise Stopped

    def _end(self, error: TeacherError) -> None:
        self.error = self.error or error
        self.stopping.set()


async def _ended(tasks: list[asyncio.Task[ChatReply]]) -> None:
    """Wait for all; unlike ``gather``, it cancels none of them when it is cancelled itself."""
    if tasks:
        await asyncio.wait(tasks)


def in_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run ``work`` to its end, also where this thread runs an event loop already (a notebook's)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        running = False
    else:
        running = True
    if not running:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
