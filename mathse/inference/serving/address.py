"""The address of a server, and the requests to it that are not chat: whether it answers, which models it has."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mathse.inference.llm.faults import MAX_MESSAGE_CHARS, without_key

QUICK_TIMEOUT = 10.0  # seconds, for requests that a server answers at once
LOADING_TIMEOUT = 600.0  # seconds, for loading weights and for chat
MAX_REPLY_BYTES = 2**26


@dataclass(frozen=True)
class HttpReply:
    """The body of a reply, or the error of the server or of the connection."""

    text: str = ""
    error: str | None = None
    status: int | None = None  # the HTTP status of an error; None: nothing answered


@dataclass(frozen=True)
class Address:
    """The address of a server.

    Args:
        base_url: up to and including ``/v1``.
        api_key_env: the environment variable with the key; None: the server needs none.
        section: the section of the settings that errors name.
    """

    base_url: str
    api_key_env: str | None = None
    section: str = "generator"

    @property
    def setting(self) -> str:
        """The setting that has ``base_url``."""
        return "judge.server" if self.section == "judge" else f"{self.section}.base_url"

    @property
    def key(self) -> str | None:
        return os.environ.get(self.api_key_env, "").strip() or None if self.api_key_env else None

    @property
    def port(self) -> int:
        parts = urlsplit(self.base_url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def is_taken(self) -> bool:
        """Whether anything listens at the address."""
        try:
            socket.create_connection((urlsplit(self.base_url).hostname or "", self.port), QUICK_TIMEOUT).close()
        except OSError:
            return False
        return True

    def models(self) -> list[str] | None:
        """Return the names of the server's models; None if no server answers with such a list."""
        try:
            with urllib.request.urlopen(self._make_request("models"), timeout=QUICK_TIMEOUT) as reply:
                models = json.loads(reply.read(MAX_REPLY_BYTES))["data"]
            return [str(model["id"]) for model in models]
        except (OSError, ValueError, KeyError, TypeError):  # urllib's errors are OSErrors
            return None

    def request_root(self, path: str, body: dict[str, Any] | None) -> HttpReply:
        """POST ``body`` to a path beside ``/v1``, or GET it without a body."""
        url = self.base_url.rstrip("/").removesuffix("/v1")
        timeout = QUICK_TIMEOUT if body is None else LOADING_TIMEOUT
        return self._send(self._make_request(path, body, url), timeout)

    def chat(self, body: dict[str, Any]) -> HttpReply:
        """Request one chat completion. The answer is not stored."""
        return self._send(self._make_request("chat/completions", body), LOADING_TIMEOUT)

    def _send(self, request: urllib.request.Request, timeout: float) -> HttpReply:
        status = None
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                content = reply.read(MAX_REPLY_BYTES + 1)
            if len(content) <= MAX_REPLY_BYTES:
                return HttpReply(content.decode("utf-8", "replace"))
            message = f"the reply has more than {MAX_REPLY_BYTES:,} bytes"
        except urllib.error.HTTPError as e:
            status, message = e.code, f"{e.code}: {e.read(10_000).decode('utf-8', 'replace')}"
        except OSError as e:
            message = str(e)
        error = without_key(" ".join(message.split()), self.key)[:MAX_MESSAGE_CHARS]
        return HttpReply(error=error, status=status)

    def _make_request(
        self, path: str, body: dict[str, Any] | None = None, url: str | None = None
    ) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(f"{url or self.base_url.rstrip('/')}/{path}", data, headers)
