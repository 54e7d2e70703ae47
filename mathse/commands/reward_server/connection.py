"""How a request reaches the reward server: whole before its deadline, or it is refused by a sentence.

uvicorn's connection knows no deadline, and closes one that it refuses at once: what the client was still sending then
comes back to it as a reset, which loses the answer. Here an answer to a request that is broken off is followed by
reading on for a while.
"""

from __future__ import annotations

import json
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

ARRIVES_IN = 60.0  # seconds for a request, from its first byte (of a new connection, from its begin) to its last
READS_ON = 5.0  # seconds, what a refused client sends is read so long
MOST_CONNECTIONS = 512


def encoded_error(sentence: str) -> bytes:
    """The body of a refusal, as OpenAI's clients read it."""
    return json.dumps({"error": {"message": sentence, "type": "invalid_request_error"}}, ensure_ascii=False).encode()


class Connection(H11Protocol):
    _clock: TimerHandle | None = None  # runs while a request arrives
    _refused = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_clock(ARRIVES_IN)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, f"{MOST_CONNECTIONS} clients are connected already; ask again later")

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._clock is None:
            self._set_clock(ARRIVES_IN)
        super().data_received(data)  # which may refuse it: h11's state is then neither of these
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_clock()  # it is whole
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._set_clock(ARRIVES_IN)  # the rest of one that was answered before it was whole has been read

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._clock is None and self.conn.their_state is h11.SEND_BODY:  # the next one had begun to arrive
            self._set_clock(ARRIVES_IN)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: a request that is still arriving is not waited for."""
        if self._refused:
            self.transport.close()
        elif self._clock is not None and self._has_begun():
            self._refuse(503, "the server is being stopped; ask again later")
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _too_late(self) -> None:
        self._clock = None
        if self._refused or not self._has_begun():
            self.transport.close()
        else:
            self._refuse(408, f"the request was not whole after {ARRIVES_IN:g} seconds; send it faster, or fewer rows")

    def _has_begun(self) -> bool:
        return self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer in the app's place, if it has not begun to answer, and end the connection."""
        self._refused = True
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the app sees it; later output is not sent
            self.cycle.message_event.set()
        body = encoded_error(sentence)
        headers: list[Any] = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *([("Retry-After", "1")] if status == 503 else []),
        ]
        reason = HTTPStatus(status).phrase.encode()
        answer = (h11.Response(status_code=status, headers=headers, reason=reason), h11.Data(body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in answer))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_clock(READS_ON)

    def _set_clock(self, seconds: float) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(seconds, self._too_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
