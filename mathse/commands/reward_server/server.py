"""The HTTP server of ``mathse reward-server``: limits of requests, JSON answers, one request at a time in the model."""

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

from mathse.commands.reward_server.connection import DeadlineConnection, encode_error
from mathse.commands.reward_server.requests import Json, RewardScorer
from mathse.errors import DataError, MathSEError

MAX_REQUEST_BYTES = 32 * 2**20
MAX_HELD_BYTES = 512 * 2**20  # of all requests that arrive or wait
MAX_WAITING = 256  # requests that wait for the model
MAX_WAIT_SECONDS = 600.0  # of a request for the model
BACKLOG = 1024  # connections that are not yet accepted


class RewardServer(uvicorn.Server):
    """The server. Its constructor takes the address, and raises OSError for an address in use.

    ``hosts``: other names of this machine that clients use, beside its own name, localhost and IP addresses.
    """

    def __init__(self, address: tuple[str, int], scorer: RewardScorer, hosts: Collection[str] = ()) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listening = socket.create_server(address, family=family, backlog=BACKLOG)
        self.server_port: int = self._listening.getsockname()[1]
        names = {name.lower() for name in ("localhost", address[0], socket.gethostname(), *hosts)}
        app = Starlette(
            routes=RequestQueue(scorer, self).routes(),
            middleware=[Middleware(HostCheck, names=names)],
            exception_handlers={
                HTTPException: _answer_refusal,
                DataError: partial(_answer_error, 400),
                MathSEError: partial(_answer_error, 500),
                ClientDisconnect: partial(_answer_error, 400),  # the connection has answered, or the client is gone
            },
        )
        config = uvicorn.Config(
            app,
            http=DeadlineConnection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            backlog=BACKLOG,
            log_config=None,
            log_level="error",  # thousands of requests would fill the log
            access_log=False,
            server_header=False,
        )
        super().__init__(config)

    def serve_forever(self) -> None:
        """Serve until SIGTERM, Ctrl-C, or ``should_exit``.

        The request in the model is then still answered, and the waiting requests get status 503.
        """
        with self._listening:
            self.run(sockets=[self._listening])


class RequestQueue:
    """The queue of requests. One request uses the model, and the others wait in their order."""

    def __init__(self, scorer: RewardScorer, server: uvicorn.Server) -> None:
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
        return _make_json(200, answer())

    async def _judge(self, answer: Callable[[Any], Json], request: Request) -> Response:
        # A web page in a browser may send other content types without a preflight request.
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "Content-Type must be application/json")
        body = bytearray()
        try:
            await self._read(request, body)
            if self.waiting == MAX_WAITING:
                raise _make_busy(f"{MAX_WAITING} requests are waiting already")
            self.waiting += 1
            try:
                return await self._answer(answer, request, body)
            finally:
                self.waiting -= 1
        finally:
            self.held -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        too_large = HTTPException(413, f"at most {MAX_REQUEST_BYTES // 2**20} MiB are allowed; send fewer rows")
        if int(request.headers.get("Content-Length", 0)) > MAX_REQUEST_BYTES:
            raise too_large
        async for chunk in request.stream():
            body += chunk
            self.held += len(chunk)
            if len(body) > MAX_REQUEST_BYTES:
                raise too_large
            if self.held > MAX_HELD_BYTES:
                raise _make_busy(f"the requests that are waiting already hold {MAX_HELD_BYTES // 2**20} MiB")

    async def _answer(self, answer: Callable[[Any], Json], request: Request, body: bytearray) -> Response:
        try:
            request_body = await asyncio.to_thread(json.loads, body)
        except (ValueError, RecursionError):
            raise HTTPException(400, "the body is not valid JSON") from None
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await self.model.acquire()
        except TimeoutError:
            raise _make_busy(f"the model was not free for {MAX_WAIT_SECONDS:g} seconds") from None
        try:
            # While this request waited, the server may have been stopped, or the client may have left.
            if self.server.should_exit:
                raise _make_busy("the server is being stopped")
            if await request.is_disconnected():
                raise ClientDisconnect
            return _make_json(200, await asyncio.to_thread(answer, request_body))
        finally:
            self.model.release()


class HostCheck:
    """Refuses requests with another host name.

    The name of a web page could resolve to this machine, and the page could then send requests to it. An IP address is
    always accepted.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("Host", "")
        if self._is_own_name(host):
            await self.app(scope, receive, send)
        else:
            sentence = f"Host is {host[:80]!r}, and this server has no such name; start it with --allow-host NAME"
            await _make_error(421, sentence)(scope, receive, send)

    def _is_own_name(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name.rstrip(".") in self.names or bool(ip_address(name))
        except ValueError:  # neither a host name nor an address
            return False


def _make_json(status: int, value: Json) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")


def _make_error(status: int, sentence: str) -> Response:
    again = {"Retry-After": "1"} if status == 503 else None
    return Response(encode_error(sentence), status, again, media_type="application/json")


def _make_busy(reason: str) -> HTTPException:
    return HTTPException(503, f"{reason}; ask again later")


async def _answer_refusal(request: Request, error: Any) -> Response:
    path, sentence = request.url.path[:80], str(error.detail)
    if error.status_code in (404, 405):  # raised by Starlette
        sentence = (
            f"there is no {request.method} {path}; GET has /health, /v1/models, POST /reward, /v1/chat/completions"
        )
    return _make_error(error.status_code, sentence)


async def _answer_error(status: int, request: Request, error: Exception) -> Response:
    return _make_error(status, str(error))
