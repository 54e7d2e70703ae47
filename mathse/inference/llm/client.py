"""The one door to chat models: requests in, replies out, each on the disk before anything counts on it."""

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
    """An OpenAI-compatible server and one of its models, to be asked; arguments as of ``Connection``."""

    def complete(self, requests: Iterable[ChatRequest], advance: Advance = _ignore) -> list[ChatReply]:
        """A reply to each request, in their order; ``requests`` are drawn as they are needed, ``advance`` is told of
        each one that is done.

        Raises TeacherError where the server cannot be used at all: unreachable, wrong key or model, budget spent. What
        was answered until then is kept.
        """
        try:
            if self.mode == "batch":
                return Batches(self).run(requests, advance)
            replies: list[ChatReply] = in_a_loop(Online(self).run(requests, advance))
            return replies
        finally:
            self.account.sync()
