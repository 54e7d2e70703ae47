"""Where a server is, and the requests to it beside chat: does it answer, which models has it."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mathse.inference.llm.faults import without_key

TIMEOUT = 10.0  # seconds, for its list of models
LOADING = 600.0  # seconds, for weights
MOST_BYTES = 2**26  # of a reply
MAX_MESSAGE = 300  # characters of a server's own message in ours


@dataclass(frozen=True)
class Answered:
    """What a request came to: the body, or the error of the server or of the connection."""

    text: str = ""
    error: str | None = None
    status: int | None = None  # HTTP's; None where nothing answered


@dataclass(frozen=True)
class Address:
    """``base_url``: up to and with ``/v1``. ``section``: of the settings, for messages."""

    base_url: str
    api_key_env: str | None = None
    section: str = "generator"

    @property
    def setting(self) -> str:
        """The name of ``base_url`` in the settings."""
        return "judge.server" if self.section == "judge" else f"{self.section}.base_url"

    @property
    def key(self) -> str | None:
        return os.environ.get(self.api_key_env, "").strip() or None if self.api_key_env else None

    @property
    def port(self) -> int:
        parts = urlsplit(self.base_url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def taken(self) -> bool:
        """Whether anything listens there."""
        try:
            socket.create_connection((urlsplit(self.base_url).hostname or "", self.port), TIMEOUT).close()
        except OSError:
            return False
        return True

    def models(self) -> list[str] | None:
        """The names of its models; None where no server gives such an answer (yet)."""
        try:
            with urllib.request.urlopen(self._request("models"), timeout=TIMEOUT) as reply:
                models = json.loads(reply.read(MOST_BYTES))["data"]
            return [str(model["id"]) for model in models]
        except (OSError, ValueError, KeyError, TypeError):  # urllib's errors are OSErrors
            return None

    def at_root(self, path: str, body: dict[str, Any] | None) -> Answered:
        """The answer of a path beside ``/v1``, to a POST, or to a GET where there is no body."""
        return self._answered(self._request(f"../{path}", body), TIMEOUT if body is None else LOADING)

    def chat(self, body: dict[str, Any]) -> Answered:
        """One chat completion, which is kept nowhere."""
        return self._answered(self._request("chat/completions", body))

    def _answered(self, request: urllib.request.Request, timeout: float = LOADING) -> Answered:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                content = reply.read(MOST_BYTES + 1)
            if len(content) <= MOST_BYTES:
                return Answered(content.decode("utf-8", "replace"))
            status, message = None, f"the reply has more than {MOST_BYTES:,} bytes"
        except urllib.error.HTTPError as e:
            status, message = e.code, f"{e.code}: {e.read(10_000).decode('utf-8', 'replace')}"
        except OSError as e:
            status, message = None, str(e)
        error = without_key(" ".join(message.split()), self.key)[:MAX_MESSAGE]
        return Answered(error=error, status=status)

    def _request(self, path: str, body: dict[str, Any] | None = None) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        url = self.base_url.rstrip("/")
        if path.startswith("../"):
            url, path = url.removesuffix("/v1"), path.removeprefix("../")
        return urllib.request.Request(f"{url}/{path}", data, headers)
