"""A connection to the reward server. A request arrives completely before its deadline, or gets an error.

uvicorn's connection has no deadline, and it closes at once after an error. A client that is still sending then gets a
reset, and loses the answer. This connection reads for some seconds after an error.
"""

from __future__ import annotations

import json
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_ARRIVAL_SECONDS = 60.0  # from a request's first byte, or the opening of a new connection, to its last byte
READING_SECONDS = 5.0  # of reading after an error
MAX_CONNECTIONS = 512


def encode_error(sentence: str) -> bytes:
    """Return the body of an error, in OpenAI's format."""
    return json.dumps({"error": {"message": sentence, "type": "invalid_request_error"}}, ensure_ascii=False).encode()


class DeadlineConnection(H11Protocol):
    _clock: TimerHandle | None = None  # runs while a request arrives
    _refused = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_clock(MAX_ARRIVAL_SECONDS)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, f"{MAX_CONNECTIONS} clients are connected already; ask again later")

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._clock is None:
            self._set_clock(MAX_ARRIVAL_SECONDS)
        super().data_received(data)  # this call may refuse it: h11 then has another state
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_clock()  # it is complete
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._set_clock(MAX_ARRIVAL_SECONDS)  # the rest of an earlier answered request has been read

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._clock is None and self.conn.their_state is h11.SEND_BODY:  # the next request is arriving
            self._set_clock(MAX_ARRIVAL_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection when the server stops. A request that is still arriving gets an error."""
        if self._refused:
            self.transport.close()
        elif self._clock is not None and self._is_arriving():
            self._refuse(503, "the server is being stopped; ask again later")
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _too_late(self) -> None:
        self._clock = None
        if self._refused or not self._is_arriving():
            self.transport.close()
        else:
            self._refuse(
                408,
                f"the request was not complete after {MAX_ARRIVAL_SECONDS:g} seconds; send it faster, or fewer rows",
            )

    def _is_arriving(self) -> bool:
        return self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])

    def _refuse(self, status: int, sentence: str) -> None:
        """Send an error, unless the app has started to answer, and end the connection."""
        self._refused = True
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the app notices it; its later output is not sent
            self.cycle.message_event.set()
        body = encode_error(sentence)
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
        self._set_clock(READING_SECONDS)

    def _set_clock(self, seconds: float) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(seconds, self._too_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
