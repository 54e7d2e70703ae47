"""The entry to chat models: requests in, replies out, each stored before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mathse.inference.llm.batch import Batches
from mathse.inference.llm.chat import ChatReply, ChatRequest, Usage
from mathse.inference.llm.connection import Connection
from mathse.inference.llm.online import Online, in_a_loop

__all__ = ["ChatClient", "ChatReply", "ChatRequest", "Usage"]

Advance = Callable[[int], None]


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
