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
from mathse.inference.llm.online import FollowUp, Online, run_in_loop

__all__ = ["ChatClient", "ChatReply", "ChatRequest", "Usage"]

Advance = Callable[[int], None]
MAX_UNREAD = 16  # replies that may wait for an earlier reply, per request that is read ahead


def _ignore(rows: int) -> None:
    pass


class ChatClient(Connection):
    """Sends requests to one model of an OpenAI-compatible server. The arguments are those of ``Connection``."""

    def complete(self, requests: Iterable[ChatRequest], advance: Advance = _ignore) -> list[ChatReply]:
        """Return a reply to each request, in order.

        Args:
            requests: read as slots become free.
            advance: called with 1 for each finished request.

        Raises:
            TeacherError: the server cannot be used at all: unreachable, wrong key or model, budget spent. The answers
                until then are kept.
        """
        try:
            if self.mode == "batch":
                return Batches(self).run(requests, advance)
            replies: list[ChatReply] = run_in_loop(Online(self).run(requests, advance))
            return replies
        finally:
            self.account.sync()

    def stream(self, requests: Iterable[ChatRequest], follow_up: FollowUp | None = None) -> Iterator[list[ChatReply]]:
        """Yield the replies to each request, in order, as soon as they arrive.

        The server stays busy while the caller works on the replies. If the caller stops reading, nothing more is sent.

        Args:
            requests: read as slots become free, in the caller's thread.
            follow_up: returns further requests for a reply; their replies follow it in its list.

        Raises:
            TeacherError: as ``complete``.
        """
        loop, feed = asyncio.new_event_loop(), asyncio.Queue[ChatRequest | None]()
        arrived: SimpleQueue[tuple[int, list[ChatReply]] | None] = SimpleQueue()
        online = Online(self)

        async def read_feed() -> AsyncIterator[ChatRequest]:
            while (request := await feed.get()) is not None:
                yield request

        def work() -> None:
            try:
                put = online.run_each(read_feed(), lambda number, replies: arrived.put((number, replies)), follow_up)
                loop.run_until_complete(put)
            finally:
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()
                arrived.put(None)

        requests, has_more = iter(requests), True
        n_sent = n_answered = n_yielded = 0
        out_of_order: dict[int, list[ChatReply]] = {}  # replies that wait for an earlier reply, by number
        with ThreadPoolExecutor(1, "requests") as pool:
            working = pool.submit(work)
            try:
                while True:
                    # 1) Make requests in the caller's thread, since the caller reads their sources too.
                    limit = min(n_answered + online.read_ahead, n_yielded + MAX_UNREAD * online.read_ahead)
                    while has_more and n_sent < limit:
                        request = next(requests, None)
                        loop.call_soon_threadsafe(feed.put_nowait, request)
                        has_more = request is not None
                        n_sent += has_more
                    # 2) Wait for the next reply.
                    item = arrived.get()
                    if item is None:
                        break
                    number, replies = item
                    out_of_order[number] = replies
                    n_answered += 1
                    # 3) Yield all replies whose predecessors have been yielded.
                    while n_yielded in out_of_order:
                        n_yielded += 1
                        yield out_of_order.pop(n_yielded - 1)
                working.result()
            finally:
                # Wait for the requests under way, so that their answers are kept.
                with suppress(RuntimeError):  # the loop is closed: all have ended
                    loop.call_soon_threadsafe(online.stopping.set)
                    loop.call_soon_threadsafe(feed.put_nowait, None)
                wait([working])
                self.account.sync()
