"""One HTTP request per chat request, many at a time, repeated with growing pauses while the server cannot answer.

The steps of a request: 1) Return its answer from the cache, if it is there. 2) Claim its key, so that no other run
sends it too. 3) Reserve its cost in the budget. 4) Send it to the least busy of the client's addresses. 5) Flush its
answer to the disk, count it, return it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from mathse.errors import TeacherError
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.connection import Connection
from mathse.inference.llm.faults import BrokenReply, Fault, read_fault, without_key
from mathse.inference.llm.pricing import bound_cost, prompt_tokens
from mathse.inference.llm.records import Records

if TYPE_CHECKING:
    import openai

READ_AHEAD = 4  # requests that are read ahead, per slot
# Connections of a pool. For each request the package looks at all connections of a pool; with 256 of them that is a
# third of its CPU time.
POOL_CONNECTIONS = 32
MAX_REJECTED = 10  # rows that are rejected before any is answered; then a setting must be wrong


class Stopped(Exception):
    """The run ends: nothing more is sent."""


@dataclass
class ConnectionPool:
    """Connections to one address, which stay open, and the number of requests that use them."""

    api: openai.AsyncOpenAI
    n_under_way: int = 0


FollowUp = Callable[[ChatRequest, ChatReply], list[ChatRequest]]  # returns the requests that a reply calls for


class Online:
    """The requests of one ``complete`` or ``stream`` call, in one event loop."""

    def __init__(self, client: Connection) -> None:
        self.client, self.account, self.claims = client, client.account, client.cache.claims
        n_slots = client.max_concurrency * len(client.base_urls)
        self.slots = asyncio.Semaphore(n_slots)
        self.read_ahead = READ_AHEAD * n_slots  # requests
        self.ahead = asyncio.Semaphore(self.read_ahead)
        self.busy: Counter[str] = Counter()  # requests under way, by address
        self.pools: defaultdict[str, list[ConnectionPool]] = defaultdict(list)  # by address
        self.exit_stack = AsyncExitStack()  # closes the pools
        self.avoided_until: dict[str, float] = {}  # time.monotonic(), by address that could not be reached
        self.reviving, self.acquiring = asyncio.Lock(), asyncio.Lock()
        self.revived_at = 0.0  # time.monotonic()
        self.settled = asyncio.Condition()  # notified when a request ends
        self.stopping = asyncio.Event()
        self.error: TeacherError | None = None
        self.in_batches = Records(client.cache.folder).files()
        self.n_rejected = 0
        self.last_answer_at = 0.0  # time.monotonic()

    async def run(self, requests: Iterable[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """Return a reply to each request, in order."""
        replies: dict[int, ChatReply] = {}

        def done(number: int, of_request: list[ChatReply]) -> None:
            replies[number] = of_request[0]
            advance(1)

        async def iterate() -> AsyncIterator[ChatRequest]:
            for request in requests:
                yield request

        await self.run_each(iterate(), done)
        return [replies[number] for number in range(len(replies))]

    async def run_each(
        self,
        requests: AsyncIterable[ChatRequest],
        done: Callable[[int, list[ChatReply]], None],
        follow_up: FollowUp | None = None,
    ) -> None:
        """Call ``done(number of the request, its replies)`` when a request is answered.

        The replies are the request's own and those to its follow-ups. Requests under way are awaited and stored also
        after an error or Ctrl-C, since they will be billed.
        """
        tasks: set[asyncio.Task[None]] = set()
        errors: list[BaseException] = []

        def on_end(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, Stopped):
                errors.append(error)

        async with AsyncExitStack() as self.exit_stack:
            try:
                # Requests are read when earlier requests end, since a request with pictures may have a megabyte.
                number = 0
                async for request in requests:
                    await self.ahead.acquire()
                    if self.stopping.is_set():
                        break
                    task = asyncio.create_task(self._run_row(number, request, done, follow_up))
                    tasks.add(task)
                    task.add_done_callback(on_end)
                    number += 1
                await _wait_for_all(tasks)
            finally:
                self.stopping.set()
                await _wait_for_all(tasks)
                await asyncio.sleep(0)  # run the callbacks of the last tasks
        for error in (self.error, *errors):
            if error is not None:
                raise error

    async def _run_row(
        self,
        number: int,
        request: ChatRequest,
        done: Callable[[int, list[ChatReply]], None],
        follow_up: FollowUp | None,
    ) -> None:
        is_finished = False
        try:
            replies = [await self._answer(request)]
            for further in follow_up(request, replies[0]) if follow_up is not None else ():
                replies.append(await self._answer(further))
            done(number, replies)
            is_finished = True
        finally:
            self.ahead.release()
            if not is_finished:  # for example a full disk, or a damaged answer: send nothing more
                self.stopping.set()
                async with self.settled:
                    self.settled.notify_all()

    async def _answer(self, request: ChatRequest) -> ChatReply:
        """Return the stored answer of a request; otherwise claim its key and send it."""
        key = request.key(self.client.model)
        pause = 0.05  # seconds between looks for an answer that another run has requested
        while True:
            stored = self.client.read_stored(key, request)
            if stored is not None:
                return stored
            if key in self.in_batches:
                self._end(self.client.in_batch_error(self.in_batches[key]))
                raise Stopped
            if self.claims.take(key):
                try:
                    # Another run may have stored the answer between the look and the claim.
                    return self.client.read_stored(key, request) or await self._request(request, key)
                finally:
                    self.claims.give_back(key)
            await self._sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _request(self, request: ChatRequest, key: str) -> ChatReply:
        """Reserve the cost of a request, send it, store and count its answer."""
        reserved_usd = 0.0
        try:
            async with self.slots:
                reserved_usd = await self._reserve(request)
                reply = await self._send_with_retries(request, key)
            # The slot is free for the next request while the answer is written, since the disk may be slow.
            await asyncio.to_thread(self.client.store, reply, request)
            self.client.count(reply, request)
            return reply
        finally:
            self.account.release(reserved_usd)
            async with self.settled:
                self.settled.notify_all()

    async def _reserve(self, request: ChatRequest) -> float:
        """Reserve the highest cost of a request, dollars. If only requests under way leave too little budget, wait for
        their ends."""
        price = self.client.price
        if price is None or self.account.budget_usd is None:
            return 0.0
        most_usd = bound_cost(request, self.client.model, price)
        async with self.settled:
            while not self.stopping.is_set():
                if self.account.reserve(most_usd):
                    return most_usd
                if self.account.reserved <= 0:
                    self._end(self.client.budget_error(most_usd))
                else:
                    await self.settled.wait()
        raise Stopped

    async def _send_with_retries(self, request: ChatRequest, key: str) -> ChatReply:
        """Return the reply after at most ``max_retries`` further tries."""
        started_at, tries_left = time.monotonic(), self.client.max_retries + 1
        while True:
            if self.stopping.is_set():
                raise Stopped
            body = self.client.dialect.body(request, self.client.model)
            await self._acquire_model()
            url, sent_at = self._least_busy(), time.monotonic()
            self.busy[url] += 1
            try:
                result = await self._send(url, request, body, key)
            finally:
                self.busy[url] -= 1
                if self.client.model_lock is not None:
                    self.client.model_lock.release()
            if isinstance(result, ChatReply):
                self.last_answer_at = time.monotonic()
                return result
            fault = result
            # A parameter that the server does not know costs no try.
            if self.client.dialect.gives_way(fault, request, body):
                continue
            tries_left -= fault.scope == "transient"
            if fault.scope != "transient" or not tries_left:
                return self._give_up(fault, request, key, started_at)
            if not fault.reached:
                # Other addresses get its requests for 30 seconds.
                self.avoided_until[url] = time.monotonic() + 30.0
                await self._revive(sent_at)
            if fault.wait is not None:
                self.client.limits.pause(fault.wait)  # of all requests, since the server asks for it
            await self._sleep(fault.pause(self.client.max_retries - tries_left))

    async def _acquire_model(self) -> None:
        """If the server holds one model at a time, wait until it holds this client's model."""
        lock = self.client.model_lock
        if lock is None or lock.try_acquire():
            return
        async with self.acquiring:  # a single request waits for all
            if not lock.try_acquire():
                try:
                    await asyncio.to_thread(lock.acquire)
                except TeacherError as error:
                    self._end(error)
                    raise Stopped from None

    def _least_busy(self) -> str:
        """Return the least busy address that can be reached; of all addresses, if none can."""
        now = time.monotonic()
        urls = self.client.base_urls
        reachable = [url for url in urls if self.avoided_until.get(url, 0.0) <= now]
        return min(reachable or urls, key=self.busy.__getitem__)

    async def _revive(self, sent_at: float) -> None:
        """Have the server started again, once for all requests that it lost. ``sent_at``: time of the lost request."""
        if self.client.revive is None:
            return
        async with self.reviving:
            if sent_at < self.revived_at or self.stopping.is_set():
                return
            try:
                await asyncio.to_thread(self.client.revive)
            except TeacherError as error:
                self._end(error)
                raise Stopped from None
            self.revived_at = time.monotonic()
            self.avoided_until.clear()

    async def _send(self, url: str, request: ChatRequest, body: dict[str, Any], key: str) -> ChatReply | Fault:
        """Send a request once, within the limits on requests and tokens a minute."""
        import openai

        limits, booked = self.client.limits, request.max_tokens * request.n  # tokens
        if limits.tokens.limited:
            booked += prompt_tokens(request, self.client.model)
        await self._sleep(limits.book(booked))
        while limits.paused:
            await self._sleep(limits.paused)
        try:
            async with asyncio.timeout(self.client.timeout):  # the package's own limit is for each read of the socket
                async with self._connection(url) as api:
                    # chat.completions.create would copy and check the body: a third of a request's work here.
                    raw = await api.post("/chat/completions", body=body, cast_to=httpx.Response)
            reply = self.client.dialect.reply(without_key(raw.text, self.client.secret), request, key)
        except (openai.OpenAIError, TimeoutError, BrokenReply) as e:
            return read_fault(e, self.client.secret)
        limits.tokens.correct(reply.usage.prompt_tokens + reply.usage.completion_tokens - booked)
        return reply

    @asynccontextmanager
    async def _connection(self, url: str) -> AsyncIterator[openai.AsyncOpenAI]:
        """Use a connection to an address, of the first pool with a free connection, or of a new pool."""
        pool = next((pool for pool in self.pools[url] if pool.n_under_way < POOL_CONNECTIONS), None)
        if pool is None:
            pool = ConnectionPool(await self.exit_stack.enter_async_context(self.client.open_async(url)))
            self.pools[url].append(pool)
        pool.n_under_way += 1
        try:
            yield pool.api
        finally:
            pool.n_under_way -= 1

    def _give_up(self, fault: Fault, request: ChatRequest, key: str, started_at: float) -> ChatReply:
        """Return the outcome of a row without an answer, or end the run.

        Raises Stopped if the row may not be at fault. If the row then fails through all tries of the next start too,
        although the server answers, it is given up.
        """
        # The row is at fault, unless every row so far was rejected: then a setting is wrong.
        if fault.scope == "row":
            self.n_rejected += 1
            if self.account.answered or self.n_rejected < MAX_REJECTED:
                return ChatReply(outcome="rejected", error=fault.message, key=key)
        # A transient fault that outlasts all tries is the row's, if other rows were answered meanwhile or if the row
        # failed in an earlier start too.
        failed = ChatReply(outcome="failed", error=fault.message, key=key)
        if fault.scope == "transient" and fault.reached:
            if self.last_answer_at > started_at or self.account.outcome(key) == "failed":
                return failed
            self.client.count(failed, request)
        self._end(self.client.fault_error(fault))
        raise Stopped

    async def _sleep(self, seconds: float) -> None:
        """Sleep. Raises Stopped if the run ends meanwhile."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)
        if self.stopping.is_set():
            raise Stopped

    def _end(self, error: TeacherError) -> None:
        self.error = self.error or error
        self.stopping.set()


async def _wait_for_all(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for all tasks. Unlike ``gather``, it does not cancel them when it is cancelled itself."""
    if tasks:
        await asyncio.wait(tasks)


def run_in_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run ``work`` to its end, also in a thread that runs an event loop already (a notebook's)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        has_loop = False
    else:
        has_loop = True
    if not has_loop:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
