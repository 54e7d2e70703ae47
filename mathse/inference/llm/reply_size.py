"""A server's reply has a limit of size: one that sends for ever would fill this process's memory.

The limit counts bytes as they come over the network. The package ``openai`` has its own choice of HTTP library, so a
response says itself which kind of stream it holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from mathse.inference.llm.faults import Broken

MOST_BYTES = 2**28  # a file of a batch's answers is the largest; OpenAI's have 200 MB at most


async def bound_async(response: Any) -> None:
    """For ``event_hooks`` of an asynchronous client: what is read of the response ends at ``MOST_BYTES``."""
    stream = response.stream

    class Bounded(_kind(stream, "AsyncByteStream")):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            read = 0
            async for part in stream:
                read = _counted(read, part)
                yield part

        async def aclose(self) -> None:
            await stream.aclose()

    response.stream = Bounded()


def bound(response: Any) -> None:
    """The same of a client that waits."""
    stream = response.stream

    class Bounded(_kind(stream, "SyncByteStream")):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            read = 0
            for part in stream:
                read = _counted(read, part)
                yield part

        def close(self) -> None:
            stream.close()

    response.stream = Bounded()


def _kind(stream: Any, name: str) -> Any:
    """The class of that name that the stream extends, which its library asks for."""
    return next(kind for kind in type(stream).__mro__ if kind.__name__ == name)


def _counted(read: int, part: bytes) -> int:
    if read + len(part) > MOST_BYTES:
        raise Broken(f"the reply has more than {MOST_BYTES:,} bytes")
    return read + len(part)
