"""The HTTP of ``mathse reward-server``: bounded requests in, JSON out, one at a time at the model.

How a request arrives is in ``connection``.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Collection
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mathse.commands.reward_server.connection import Connection, encoded_error
from mathse.commands.reward_server.requests import Json, Scorer
from mathse.errors import DataError, MathSEError

MOST_BYTES = 32 * 2**20  # of a request
MOST_HELD = 512 * 2**20  # bytes of all requests that arrive or wait
MOST_WAITING = 256  # requests that wait for the model
LONGEST_WAIT = 600.0  # seconds for the model
BACKLOG = 1024  # connections that are not yet accepted


class RewardServer(uvicorn.Server):
    """Holds its address as soon as it is made; raises OSError where that cannot be.

    ``hosts``: names that clients call this machine by, beside its own, localhost and addresses in digits.
    """

    def __init__(self, address: tuple[str, int], scorer: Scorer, hosts: Collection[str] = ()) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listening = socket.create_server(address, family=family, backlog=BACKLOG)
        self.server_port: int = self._listening.getsockname()[1]
        names = {name.lower() for name in ("localhost", address[0], socket.gethostname(), *hosts)}
        app = Starlette(
            routes=Answers(scorer, self).routes(),
            middleware=[Middleware(OwnHost, names=names)],
            exception_handlers={
                HTTPException: _refused,
                DataError: partial(_failed, 400),
                MathSEError: partial(_failed, 500),
                ClientDisconnect: partial(_failed, 400),  # answered by the connection, or nobody reads it
            },
        )
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            backlog=BACKLOG,
            log_config=None,
            log_level="error",  # thousands of requests are no news
            access_log=False,
            server_header=False,
        )
        super().__init__(config)

    def serve_forever(self) -> None:
        """Until SIGTERM, Ctrl-C, or ``should_exit``: then the request at the model is answered, and those that wait are
        told to ask again."""
        with self._listening:
            self.run(sockets=[self._listening])


class Answers:
    """The queue of requests. One request is at the model, the others wait for it in their order."""

    def __init__(self, scorer: Scorer, server: uvicorn.Server) -> None:
        self.scorer, self.server = scorer, server
        self.model = asyncio.Lock()
        self.waiting = 0  # requests
        self.held = 0  # bytes

    def routes(self) -> list[Route]:
        return [
            Route("/health", partial(self._show, lambda: {"status": "ok"}), methods=["GET"]),
            Route("/v1/models", partial(self._show, self.scorer.models), methods=["GET"]),
            Route("/reward", partial(self._judge, self.scorer.rewards), methods=["POST"]),
            Route("/v1/chat/completions", partial(self._judge, self.scorer.chat), methods=["POST"]),
        ]

    async def _show(self, answer: Callable[[], Json], request: Request) -> Response:
        return _json(200, answer())

    async def _judge(self, answer: Callable[[Any], Json], request: Request) -> Response:
        # Only as application/json: a web page in a browser may send other kinds unasked.
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "Content-Type must be application/json")
        body = bytearray()
        try:
            await self._read(request, body)
            if self.waiting == MOST_WAITING:
                raise _busy(f"{MOST_WAITING} requests are waiting already")
            self.waiting += 1
            try:
                return await self._answered(answer, request, body)
            finally:
                self.waiting -= 1
        finally:
            self.held -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        too_large = HTTPException(413, f"at most {MOST_BYTES // 2**20} MiB are taken; send fewer rows")
        if int(request.headers.get("Content-Length", 0)) > MOST_BYTES:
            raise too_large
        async for piece in request.stream():
            body += piece
            self.held += len(piece)
            if len(body) > MOST_BYTES:
                raise too_large
            if self.held > MOST_HELD:
                raise _busy(f"the requests that are waiting already hold {MOST_HELD // 2**20} MiB")

    async def _answered(self, answer: Callable[[Any], Json], request: Request, body: bytearray) -> Response:
        try:
            asked = await asyncio.to_thread(json.loads, body)
        except (ValueError, RecursionError):
            raise HTTPException(400, "the body is not valid JSON") from None
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await self.model.acquire()
        except TimeoutError:
            raise _busy(f"the model was not free for {LONGEST_WAIT:g} seconds") from None
        try:
            if self.server.should_exit:
                raise _busy("the server is being stopped")
            if await request.is_disconnected():
                raise ClientDisconnect
            return _json(200, await asyncio.to_thread(answer, asked))
        finally:
            self.model.release()


class OwnHost:
    """Refuses requests to another host: a web page could have its own name lead to this machine, and ask it from there.

    An address in digits is no such name.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("Host", "")
        if self._is_own(host):
            await self.app(scope, receive, send)
        else:
            sentence = f"Host is {host[:80]!r}, and this server has no such name; start it with --allow-host NAME"
            await _error(421, sentence)(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name.rstrip(".") in self.names or bool(ip_address(name))
        except ValueError:  # no host, or no address
            return False


def _json(status: int, value: Json) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")


def _error(status: int, sentence: str) -> Response:
    again = {"Retry-After": "1"} if status == 503 else None
    return Response(encoded_error(sentence), status, again, media_type="application/json")


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, f"{reason}; ask again later")


async def _refused(request: Request, error: Any) -> Response:
    path, sentence = request.url.path[:80], str(error.detail)
    if error.status_code in (404, 405):  # Starlette's own
        sentence = (
            f"there is no {request.method} {path}; GET has /health, /v1/models, POST /reward, /v1/chat/completions"
        )
    return _error(error.status_code, sentence)


async def _failed(status: int, request: Request, error: Exception) -> Response:
    return _error(status, str(error))
