"""One HTTP request a chat request, many at a time. What the server cannot answer now is asked again, later and later.

A request goes: from the cache, if its answer is there; else claimed, so that no other run asks for it too; set aside in
the budget; sent; its answer flushed to the disk; counted; given.
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
from mathse.inference.llm.faults import Broken, Fault, blot_out, fault_of
from mathse.inference.llm.pricing import most_it_can_cost, prompt_tokens
from mathse.inference.llm.records import Records
from mathse.inference.llm.wire import read_reply

GLANCE = (0.05, 1.0)  # seconds between looks at an answer that another run is waiting for
DRAWN = 4  # requests drawn ahead, times max_concurrency
HOPELESS = 10  # rows that the server takes none of, before it took one: a wrong setting


class Stopped(Exception):
    """The run ends: nothing more is sent."""


class Online:
    """The requests of one ``complete`` call, inside one event loop."""

    def __init__(self, client: Connection) -> None:
        self.client, self.account, self.claims = client, client.account, client.cache.claims
        self.slots = asyncio.Semaphore(client.max_concurrency)
        self.drawn = asyncio.Semaphore(DRAWN * client.max_concurrency)
        self.settled = asyncio.Condition()  # a request under way has come to its end
        self.stopping = asyncio.Event()
        self.error: TeacherError | None = None
        self.in_batches = Records(client.cache.folder).files()
        self.rejected = 0
        self.last_answer = 0.0  # when

    async def run(self, requests: Iterable[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """Whatever ends it (an error, Ctrl-C), what is under way is waited for and kept: it is paid."""
        tasks: list[asyncio.Task[ChatReply]] = []
        async with self.client.connected() as self.api:
            try:
                for request in requests:
                    await self.drawn.acquire()
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
        whole = False
        try:
            reply = await self._reply(request)
            advance(1)
            whole = True
            return reply
        finally:
            self.drawn.release()
            if not whole:  # a full disk, a damaged answer: nothing more is paid for
                await self._stop()

    async def _reply(self, request: ChatRequest) -> ChatReply:
        key = request.key(self.client.model)
        glance = GLANCE[0]
        while True:
            if (known := self.client.known(key, request)) is not None:
                return known
            if key in self.in_batches:
                self._end(self.client.in_batch_error(self.in_batches[key]))
                raise Stopped
            if self.claims.take(key):
                try:
                    # Another run may have put it there between the look and the claim.
                    return self.client.known(key, request) or await self._ask(request, key)
                finally:
                    self.claims.give_back(key)
            await self._sleep(glance)
            glance = min(2 * glance, GLANCE[1])

    async def _ask(self, request: ChatRequest, key: str) -> ChatReply:
        async with self.slots:
            aside = await self._set_aside(request)
            try:
                reply = await self._tried(request, key)
                await asyncio.to_thread(self.client.keep, reply, request)
                self.client.count(reply, request)
                return reply
            finally:
                self.account.release(aside)
                async with self.settled:
                    self.settled.notify_all()

    async def _set_aside(self, request: ChatRequest) -> float:
        """Reserve what the request can cost; where only requests under way stand in its way, wait for their ends."""
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
        """The reply after as many tries as it takes, or as there may be."""
        started, left = time.monotonic(), self.client.max_retries + 1
        while True:
            if self.stopping.is_set():
                raise Stopped
            body = self.client.dialect.body(request, self.client.model)
            reply = await self._send(request, body, key)
            if isinstance(reply, ChatReply):
                self.last_answer = time.monotonic()
                return reply
            if self.client.dialect.gives_way(reply, request, body):
                continue
            left -= reply.whose == "moment"
            if reply.whose != "moment" or not left:
                return self._given_up(reply, request, key, started)
            await self._wait(reply, self.client.max_retries - left)

    async def _send(self, request: ChatRequest, body: dict[str, Any], key: str) -> ChatReply | Fault:
        limits, guess = self.client.limits, request.max_tokens * request.n
        if limits.tokens.limited:
            guess += prompt_tokens(request, self.client.model)
        await self._sleep(limits.book(guess))
        while limits.paused:
            await self._sleep(limits.paused)
        try:
            async with asyncio.timeout(self.client.timeout):  # the package's own is one for each read of the socket
                raw = await self.api.chat.completions.with_raw_response.create(**body)
            reply = read_reply(blot_out(raw.http_response.text, self.client.secret), request, key)
        except (openai.OpenAIError, TimeoutError, Broken) as e:
            return fault_of(e, self.client.secret)
        limits.tokens.correct(reply.usage.prompt_tokens + reply.usage.completion_tokens - guess)
        return reply

    async def _wait(self, fault: Fault, tried: int) -> None:
        """Until the next try; all wait where the server asks for it."""
        if fault.wait is not None:
            self.client.limits.pause(fault.wait)
        await self._sleep(fault.pause(tried))

    def _given_up(self, fault: Fault, request: ChatRequest, key: str, started: float) -> ChatReply:
        """The outcome of a row that gets no answer. Raises Stopped where that may not be the row's fault: the run ends,
        and a row that fails through all tries of the next start too, though the server is there, is given up then."""
        if fault.whose == "row":
            self.rejected += 1
            if self.account.answered or self.rejected < HOPELESS:
                return ChatReply(outcome="rejected", error=fault.said, key=key)
        failed = ChatReply(outcome="failed", error=fault.said, key=key)
        if fault.whose == "moment" and fault.reached:
            if self.last_answer > started or self.account.outcome(key) == "failed":
                return failed
            self.client.count(failed, request)
        self._end(self.client.fault_error(fault))
        raise Stopped

    # --- the end ---

    async def _sleep(self, seconds: float) -> None:
        """Raises Stopped where the run ends meanwhile."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)
        if self.stopping.is_set():
            raise Stopped

    def _end(self, error: TeacherError) -> None:
        self.error = self.error or error
        self.stopping.set()

    async def _stop(self) -> None:
        self.stopping.set()
        async with self.settled:
            self.settled.notify_all()


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
