"""A real HTTP server on this machine, which serves from entering to leaving: what the stand-ins of a hub, an API and an
engine have in common."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Listening(ThreadingHTTPServer):
    """``owner``: the stand-in, for the handlers of its requests."""

    owner: Any
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news."""
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):  # ValueError: its closed file
            super().handle_error(request, client_address)


class LocalServer:
    below = ""  # what its address ends with

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        self._server = Listening(("127.0.0.1", port), handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.below}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
