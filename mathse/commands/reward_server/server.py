"""The HTTP of ``mathse reward-server``: bounded requests in, JSON out, one at a time at the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Lock
from typing import Any

from mathse.commands.reward_server.requests import Json, Scorer
from mathse.errors import DataError

MOST_BYTES = 32 * 2**20  # of a request
MOST_WAITING = 64  # requests that are read or wait for the model
PATIENCE = 60.0  # seconds for a client to send what it has begun


class RewardServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], scorer: Scorer) -> None:
        self.scorer = scorer
        self.model = Lock()
        self.waiting = BoundedSemaphore(MOST_WAITING)
        super().__init__(address, Handler)


class Refused(Exception):
    """An HTTP status and a sentence."""


class Handler(BaseHTTPRequestHandler):
    server: RewardServer
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def do_GET(self) -> None:
        answers: dict[str, Callable[[], Json]] = {
            "/health": lambda: {"status": "ok"},
            "/v1/models": self.server.scorer.models,
        }
        if self.path in answers:
            self._send(200, answers[self.path]())
        else:
            self._send(404, _error(f"there is no {self.path[:80]}; GET has {', '.join(answers)}"))

    def do_POST(self) -> None:
        scorer = self.server.scorer
        answers: dict[str, Callable[[Any], Json]] = {"/reward": scorer.rewards, "/v1/chat/completions": scorer.chat}
        if not self.server.waiting.acquire(blocking=False):
            self.close_connection = True
            self._send(503, _error(f"{MOST_WAITING} requests are waiting already; ask again later"))
            return
        try:
            if self.path not in answers:
                raise Refused(404, f"there is no {self.path[:80]}; POST has {', '.join(answers)}")
            request = self._request()
            with self.server.model:
                answer = answers[self.path](request)
            self._send(200, answer)
        except Refused as refused:
            status, sentence = refused.args
            self.close_connection = True  # its body may lie unread
            self._send(status, _error(sentence))
        except DataError as error:
            self._send(400, _error(str(error)))
        finally:
            self.server.waiting.release()

    def _request(self) -> Any:
        """The body as JSON. Only as ``application/json``: a web page in a browser may send other kinds unasked."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "Content-Type must be application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(411, "Content-Length is missing; send the body whole")
        if len(length) > 12 or int(length) > MOST_BYTES:
            raise Refused(413, f"at most {MOST_BYTES // 2**20} MiB are taken; send fewer rows")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not valid JSON") from None

    def _send(self, status: int, value: Json) -> None:
        body = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: thousands of requests are no news."""


def _error(sentence: str) -> Json:
    """As OpenAI's clients read it."""
    return {"error": {"message": sentence, "type": "invalid_request_error"}}
