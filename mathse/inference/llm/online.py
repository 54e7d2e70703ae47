"""One HTTP request a chat request, many at a time, repeated with growing pauses where the server cannot answer now.

The way of a request: answered from the cache, if its answer is there. Else its key is claimed, so that no other run
sends it too; its cost is reserved in the budget; it is sent to the least busy of the client's addresses; its answer is
flushed to the disk, counted and returned.
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
from mathse.inference.llm.faults import Broken, Fault, fault_of, without_key
from mathse.inference.llm.pricing import most_it_can_cost, prompt_tokens
from mathse.inference.llm.records import Records

if TYPE_CHECKING:
    import openai

POLL = (0.05, 1.0)  # seconds between looks for an answer that another run has requested: first, longest
AHEAD = 4  # requests read ahead, times the slots
AVOIDED = 30.0  # seconds that an address which cannot be reached gets no request, where there are others
POOL = 32  # connections; for each request the package looks at all of a pool, which at 256 is a third of its CPU time
HOPELESS = 10  # rows rejected before any was answered: a setting is wrong


class Stopped(Exception):
    """The run ends: nothing more is sent."""


@dataclass
class Pool:
    """Connections to one address, which stay open, and how many requests are under way on them."""

    api: openai.AsyncOpenAI
    under_way: int = 0


More = Callable[[ChatRequest, ChatReply], list[ChatRequest]]  # what is to be asked behind a reply


class Online:
    """The requests of one ``complete`` or ``stream`` call, inside one event loop."""

    def __init__(self, client: Connection) -> None:
        self.client, self.account, self.claims = client, client.account, client.cache.claims
        slots = client.max_concurrency * len(client.base_urls)
        self.slots = asyncio.Semaphore(slots)
        self.read_ahead = AHEAD * slots  # requests
        self.ahead = asyncio.Semaphore(self.read_ahead)
        self.busy: Counter[str] = Counter()  # requests under way by address
        self.pools: defaultdict[str, list[Pool]] = defaultdict(list)  # by address
        self.opened = AsyncExitStack()  # ends them
        self.out_of_reach: dict[str, float] = {}  # when an address that could not be reached may be tried again
        self.reviving, self.turning = asyncio.Lock(), asyncio.Lock()
        self.revived = 0.0  # time.monotonic() of the last time
        self.settled = asyncio.Condition()  # a request under way has ended
        self.stopping = asyncio.Event()
        self.error: TeacherError | None = None
        self.in_batches = Records(client.cache.folder).files()
        self.rejected = 0
        self.last_answer = 0.0  # time.monotonic() of it

    async def run(self, requests: Iterable[ChatRequest], advance: Callable[[int], None]) -> list[ChatReply]:
        """A reply to each, in their order."""
        replies: dict[int, ChatReply] = {}

        def done(number: int, answers: list[ChatReply]) -> None:
            replies[number] = answers[0]
            advance(1)

        async def one_by_one() -> AsyncIterator[ChatRequest]:
            for request in requests:
                yield request

        await self.each(one_by_one(), done)
        return [replies[number] for number in range(len(replies))]

    async def each(
        self,
        requests: AsyncIterable[ChatRequest],
        done: Callable[[int, list[ChatReply]], None],
        more: More | None = None,
    ) -> None:
        """``done(number of the request, its replies)`` as each is answered: one reply, and those to what ``more`` says.

        Requests under way are waited for and stored also after an error or Ctrl-C: they will be billed.
        """
        tasks: set[asyncio.Task[None]] = set()
        errors: list[BaseException] = []

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, Stopped):
                errors.append(error)

        async with AsyncExitStack() as self.opened:
            try:
                # Requests are read as earlier ones end: a request with pictures may be a megabyte.
                number = 0
                async for request in requests:
                    await self.ahead.acquire()
                    if self.stopping.is_set():
                        break
                    task = asyncio.create_task(self._row(number, request, done, more))
                    tasks.add(task)
                    task.add_done_callback(ended)
                    number += 1
                await _ended(tasks)
            finally:
                self.stopping.set()
                await _ended(tasks)
                await asyncio.sleep(0)  # for the callbacks of the last ones
        for error in (self.error, *errors):
            if error is not None:
                raise error

    @property
    def addresses(self) -> list[str]:
        return self.client.base_urls

    async def _row(
        self, number: int, request: ChatRequest, done: Callable[[int, list[ChatReply]], None], more: More | None
    ) -> None:
        finished = False
        try:
            replies = [await self._reply(request)]
            for another in more(request, replies[0]) if more is not None else ():
                replies.append(await self._reply(another))
            done(number, replies)
            finished = True
        finally:
            self.ahead.release()
            if not finished:  # a full disk, a damaged answer: nothing more is sent
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
        reserved = 0.0
        try:
            async with self.slots:
                reserved = await self._reserve(request)
                reply = await self._tried(request, key)
            # Its slot is the next request's while the answer goes to the disk, which may be slow for a moment.
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
            await self._take_turn()
            url, sent = self._least_busy(), time.monotonic()
            self.busy[url] += 1
            try:
                reply = await self._send(url, request, body, key)
            finally:
                self.busy[url] -= 1
                if self.client.turns is not None:
                    self.client.turns.give_back()
            if isinstance(reply, ChatReply):
                self.last_answer = time.monotonic()
                return reply
            # a parameter that the server does not know costs no try
            if self.client.dialect.gives_way(reply, request, body):
                continue
            tries_left -= reply.whose == "moment"
            if reply.whose != "moment" or not tries_left:
                return self._given_up(reply, request, key, started)
            if not reply.reached:
                self.out_of_reach[url] = time.monotonic() + AVOIDED
                await self._revive(sent)
            if reply.wait is not None:
                self.client.limits.pause(reply.wait)  # of all requests: the server asks for it
            await self._sleep(reply.pause(self.client.max_retries - tries_left))

    async def _take_turn(self) -> None:
        """Where the server holds one model at a time, wait until it is this client's."""
        turns = self.client.turns
        if turns is None or turns.joined():
            return
        async with self.turning:  # one waits for all
            if not turns.joined():
                try:
                    await asyncio.to_thread(turns.take)
                except TeacherError as error:
                    self._end(error)
                    raise Stopped from None

    def _least_busy(self) -> str:
        """Of the addresses in reach; of all, where none is."""
        now = time.monotonic()
        reachable = [url for url in self.addresses if self.out_of_reach.get(url, 0.0) <= now]
        return min(reachable or self.addresses, key=self.busy.__getitem__)

    async def _revive(self, sent: float) -> None:
        """Have whoever started the server start it again, once for all requests that it lost; ``sent``: when the lost
        request was."""
        if self.client.revive is None:
            return
        async with self.reviving:
            if sent < self.revived or self.stopping.is_set():
                return
            try:
                await asyncio.to_thread(self.client.revive)
            except TeacherError as error:
                self._end(error)
                raise Stopped from None
            self.revived = time.monotonic()
            self.out_of_reach.clear()

    async def _send(self, url: str, request: ChatRequest, body: dict[str, Any], key: str) -> ChatReply | Fault:
        import openai

        limits, estimate = self.client.limits, request.max_tokens * request.n  # tokens
        if limits.tokens.limited:
            estimate += prompt_tokens(request, self.client.model)
        await self._sleep(limits.book(estimate))
        while limits.paused:
            await self._sleep(limits.paused)
        try:
            async with asyncio.timeout(self.client.timeout):  # the package's own limit is for each read of the socket
                async with self._connection(url) as api:
                    # not chat.completions.create, which copies and checks the body: a third of a request's work here
                    raw = await api.post("/chat/completions", body=body, cast_to=httpx.Response)
            reply = self.client.dialect.reply(without_key(raw.text, self.client.secret), request, key)
        except (openai.OpenAIError, TimeoutError, Broken) as e:
            return fault_of(e, self.client.secret)
        limits.tokens.correct(reply.usage.prompt_tokens + reply.usage.completion_tokens - estimate)
        return reply

    @asynccontextmanager
    async def _connection(self, url: str) -> AsyncIterator[openai.AsyncOpenAI]:
        """To an address: of its first pool that has one to spare, else of a new pool."""
        pool = next((pool for pool in self.pools[url] if pool.under_way < POOL), None)
        if pool is None:
            pool = Pool(await self.opened.enter_async_context(self.client.connected(url)))
            self.pools[url].append(pool)
        pool.under_way += 1
        try:
            yield pool.api
        finally:
            pool.under_way -= 1

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


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
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
