"""The entry to chat models: requests in, replies out, each stored before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from queue import SimpleQueue

from mathse.inference.llm.batch import Batches
from mathse.inference.llm.chat import ChatReply, ChatRequest, Usage
from mathse.inference.llm.connection import Connection
from mathse.inference.llm.online import More, Online, in_a_loop

__all__ = ["ChatClient", "ChatReply", "ChatRequest", "Usage"]

Advance = Callable[[int], None]
UNREAD = 16  # replies that may wait for one before them, times the requests that are read ahead


def _ignore(rows: int) -> None:
    pass


class ChatClient(Connection):
    """Sends requests to one model of an OpenAI-compatible server; arguments as of ``Connection``."""

    def complete(self, requests: Iterable[ChatRequest], advance: Advance = _ignore) -> list[ChatReply]:
        """A reply to each request, in their order. ``requests`` is read as slots become free; ``advance(1)`` is called
        for each request that is done.

        Raises TeacherError where the server cannot be used at all: unreachable, wrong key or model, budget spent. The
        answers until then are kept.
        """
        try:
            if self.mode == "batch":
                return Batches(self).run(requests, advance)
            replies: list[ChatReply] = in_a_loop(Online(self).run(requests, advance))
            return replies
        finally:
            self.account.sync()

    def stream(self, requests: Iterable[ChatRequest], more: More | None = None) -> Iterator[list[ChatReply]]:
        """The replies to each request, in their order, as they come: one, and those to what ``more(request, reply)``
        asks for behind it. ``requests`` is read as slots become free, so that the server is kept busy while the caller
        works on what came; what the caller does not wait for any more is not sent.

        Raises TeacherError as ``complete``.
        """
        loop, feed = asyncio.new_event_loop(), asyncio.Queue[ChatRequest | None]()
        came: SimpleQueue[tuple[int, list[ChatReply]] | None] = SimpleQueue()
        online = Online(self)

        async def read() -> AsyncIterator[ChatRequest]:
            while (request := await feed.get()) is not None:
                yield request

        def work() -> None:
            try:
                loop.run_until_complete(online.each(read(), lambda number, replies: came.put((number, replies)), more))
            finally:
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()
                came.put(None)

        requests, more_to_read = iter(requests), True
        sent = answered = taken = 0
        waiting: dict[int, list[ChatReply]] = {}
        with ThreadPoolExecutor(1, "requests") as pool:
            working = pool.submit(work)
            try:
                while True:
                    # Requests are made here, in the caller's thread: what they are made from is read by the caller too.
                    most = min(answered + online.read_ahead, taken + UNREAD * online.read_ahead)
                    while more_to_read and sent < most:
                        request = next(requests, None)
                        loop.call_soon_threadsafe(feed.put_nowait, request)
                        more_to_read = request is not None
                        sent += more_to_read
                    item = came.get()
                    if item is None:
                        break
                    waiting[item[0]] = item[1]
                    answered += 1
                    while taken in waiting:
                        taken += 1
                        yield waiting.pop(taken - 1)
                working.result()
            finally:
                # Requests under way are waited for: their answers are kept.
                with suppress(RuntimeError):  # it is closed: all have ended
                    loop.call_soon_threadsafe(online.stopping.set)
                    loop.call_soon_threadsafe(feed.put_nowait, None)
                wait([working])
                self.account.sync()
