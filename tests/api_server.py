"""A real HTTP server on localhost that answers as the OpenAI API does, and fails as it does.

    with ApiServer(answer=lambda body: "...", mood=lambda text, nth: "500" if nth == 1 else None) as api:
        ... api.url, api.billed, api.asked ...

It speaks chat completions, files and batches. ``billed`` counts the answers that went out whole, by their request's
words and seed; a client that never pays twice leaves every count at 1.
"""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import json
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import Listening, LocalServer

KEY = "sk-test-5f0e1d2c3b4a59687766554433221100"
MODEL = "gpt-4o-2024-08-06"

Body = dict[str, Any]
Mood = Callable[[str, int], str | None]  # (text of the request, its how-manieth try) -> one of MOODS, or None

ERRORS: dict[str, tuple[int, str, str]] = {  # mood -> status, code, message
    "429": (429, "rate_limit_exceeded", "Rate limit reached"),
    "quota": (429, "insufficient_quota", "You exceeded your current quota"),
    "500": (500, "server_error", "The server had an error"),
    "503": (503, "overloaded", "The engine is overloaded"),
    "401": (401, "invalid_api_key", f"Incorrect API key provided: {KEY}"),
    "404": (404, "model_not_found", "The model does not exist"),
    "400": (400, "unsupported_value", "Unsupported value: 'temperature'"),
    "too_long": (400, "context_length_exceeded", "This model's maximum context length is 100 tokens"),
    "no_schema": (400, "invalid_request_error", "response_format of type json_schema is not supported"),
}
BROKEN = ("hang", "half", "not_json", "no_choices", "reset")  # no whole answer: nothing is billed
ANSWERS = ("refusal", "filtered", "empty", "null", "cut_off", "wrong_model")  # billed
MOODS = (*ERRORS, *BROKEN, *ANSWERS)


def text_of(body: Body) -> str:
    """All the words of a request, pictures by their hash."""
    words = []
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            picture = part.get("image_url", {}).get("url", "")
            words.append(part.get("text") or hashlib.sha256(picture.encode()).hexdigest())
    return "\n".join(words)


def identity_of(body: Body) -> str:
    """What an answer is billed under: the words, and a seed where there is one."""
    return text_of(body) + (f"\nseed {body['seed']}" if body.get("seed") else "")


def pictures_in(body: Body) -> list[str]:
    """The data URLs of a request."""
    parts = [p for m in body["messages"] if not isinstance(m["content"], str) for p in m["content"]]
    return [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]


class ApiServer(LocalServer):
    """Serves from entering to leaving. Batches are answered as soon as they are made, or when ``open_batches`` says so.

    Args:
        answer: the words for a request (a list: one a choice).
        mood: what goes wrong; see MOODS.
        key: the one that is let in; None lets anybody in.
        delay: seconds an answer takes.
        retry_after: the header of a 429, in seconds.
        port: 0: a free one.
    """

    below = "/v1"

    def __init__(
        self,
        answer: Callable[[Body], str | list[str]] = lambda body: "The answer to this problem is 12.",
        mood: Mood = lambda text, nth: None,
        *,
        key: str | None = KEY,
        delay: float = 0.0,
        retry_after: float = 0.05,
        port: int = 0,
    ) -> None:
        self.answer, self.mood, self.key, self.delay, self.retry_after = answer, mood, key, delay, retry_after
        self.asked: list[Body] = []  # every chat request, online or in a batch
        self.times: list[float] = []  # when, online
        self.billed: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.under_way, self.most_under_way = 0, 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Body] = {}
        self.batch_mood: Callable[[int], str | None] = lambda number: None  # number from 1 -> "failed", "expired", ...
        self.open_batches = True  # False: batches stay in progress
        # From the freeze_at-th such request on, none is replied to before ``thaw``: a client killed meanwhile has all
        # answers that went out, and none is under way.
        self.freeze_on, self.freeze_at = "POST /v1/chat/completions", 0
        self.seen: Counter[str] = Counter()  # requests by method and path
        self.frozen, self._thawed = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        super().__init__(_Handler, port)

    # --- standing still ---

    def freeze(self, at: int, on: str = "POST /v1/chat/completions") -> None:
        """Stand still at the ``at``-th request of a kind from now."""
        self.frozen.clear()
        self._thawed.clear()
        self.freeze_on, self.freeze_at = on, self.seen[on] + at

    def thaw(self) -> None:
        self.freeze_at = 0
        self._thawed.set()

    def see(self, kind: str) -> None:
        with self.lock:
            self.seen[kind] += 1
            stands = kind == self.freeze_on and 0 < self.freeze_at <= self.seen[kind]
        if stands:
            self.frozen.set()
            self._thawed.wait(30)

    # --- chat ---

    def completion(self, body: Body, mood: str | None) -> Body:
        """A whole answer; it is billed."""
        said = self.answer(body)
        texts = [said] * body.get("n", 1) if isinstance(said, str) else said
        texts = {"empty": [""], "null": [None]}.get(mood or "", texts)  # type: ignore[arg-type]
        refusal = "I cannot help with that." if mood == "refusal" else None
        reason = {"cut_off": "length", "filtered": "content_filter"}.get(mood or "", "stop")
        with self.lock:
            self.billed[identity_of(body)] += 1
        prompt, completion = len(text_of(body).split()), sum(len((t or "").split()) for t in texts)
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "other-model" if mood == "wrong_model" else body["model"],
            "choices": [
                {
                    "index": k,
                    "finish_reason": reason,
                    "message": {"role": "assistant", "content": None if refusal else text, "refusal": refusal},
                }
                for k, text in enumerate(texts)
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }

    def next_mood(self, body: Body) -> str | None:
        text = text_of(body)
        with self.lock:
            self.asked.append(body)
            self.tries[text] += 1
            nth = self.tries[text]
        return self.mood(text, nth)

    # --- batches ---

    def make_batch(self, body: Body) -> Body:
        number = len(self.batches) + 1
        batch = {
            "id": f"batch_{number}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "completion_window": body["completion_window"],
            "created_at": int(time.time()),
            "input_file_id": body["input_file_id"],
            "metadata": body.get("metadata"),
            "status": "in_progress",
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
        }
        self.batches[str(batch["id"])] = batch
        return batch

    def batch_now(self, identity: str) -> Body:
        """The batch as it stands: answered when it is looked at, once batches are open."""
        batch = self.batches[identity]
        if batch["status"] == "in_progress" and self.open_batches:
            self._finish_batch(batch, self.batch_mood(int(identity.partition("_")[2])))
        return batch

    def _finish_batch(self, batch: Body, mood: str | None) -> None:
        if mood in ("failed", "token_limit"):
            code = "token_limit_exceeded" if mood == "token_limit" else "invalid_json_line"
            error = {"code": code, "message": f"the batch is no good ({KEY})", "line": 1, "param": None}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        answered = lines[: len(lines) // 2] if mood == "expired" else lines
        out, err = [], []
        for line in answered:
            trouble = self.next_mood(line["body"])
            if trouble in ERRORS:
                status, code, message = ERRORS[trouble]
                body: Body = {"error": {"message": message, "code": code, "type": code, "param": None}}
                err.append(_batch_line(line["custom_id"], status, body))
            else:
                out.append(_batch_line(line["custom_id"], 200, self.completion(line["body"], trouble)))
        expired = {"code": "batch_expired", "message": "This request could not be executed in time."}
        err += [
            {"id": "x", "custom_id": x["custom_id"], "response": None, "error": expired} for x in lines[len(answered) :]
        ]
        batch |= {
            "status": "expired" if mood == "expired" else "completed",
            "output_file_id": self.add_file(_jsonl(out)) if out else None,
            "error_file_id": self.add_file(_jsonl(err)) if err else None,
        }

    def add_file(self, content: bytes) -> str:
        with self.lock:
            name = f"file-{len(self.files) + 1}"
            self.files[name] = content
        return name


def _batch_line(key: str, status: int, body: Body) -> Body:
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": f"batch_req_{key[:8]}", "custom_id": key, "response": response, "error": None}


def _jsonl(rows: list[Body]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Listening
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self._let_in():
            if self.path == "/v1/chat/completions":
                self._chat(json.loads(content))
            elif self.path == "/v1/files":
                name = self.server.owner.add_file(self._upload(content))
                self.server.owner.see("POST /v1/files")
                self._json(200, {"id": name, "object": "file"})
            elif self.path == "/v1/batches":
                made = self.server.owner.make_batch(json.loads(content))
                self.server.owner.see("POST /v1/batches")
                self._json(200, made)
            else:
                self._error("404")

    def do_GET(self) -> None:
        if not self._let_in():
            return
        api, parts = self.server.owner, self.path.partition("?")[0].split("/")[2:]
        if parts == ["batches"]:
            newest_first = list(api.batches.values())[::-1]
            self._json(200, {"object": "list", "data": newest_first, "has_more": False})
        elif parts[0] == "batches" and parts[1] in api.batches:
            api.see("GET /v1/batches/ID")
            self._json(200, api.batch_now(parts[1]))
        elif parts[0] == "files" and parts[-1] == "content" and parts[1] in api.files:
            api.see("GET /v1/files/ID/content")
            self._send(200, api.files[parts[1]], {})
        else:
            self._error("404")

    def _let_in(self) -> bool:
        key = self.server.owner.key
        if key is not None and self.headers.get("Authorization") != f"Bearer {key}":
            self._error("401")
            return False
        return True

    def _chat(self, body: Body) -> None:
        api = self.server.owner
        mood = api.next_mood(body)
        with api.lock:
            api.times.append(time.monotonic())
            api.under_way += 1
            api.most_under_way = max(api.most_under_way, api.under_way)
        try:
            api.see("POST /v1/chat/completions")
            time.sleep(api.delay)
            if not self._gone():
                self._answer(body, mood)
        finally:
            with api.lock:
                api.under_way -= 1

    def _gone(self) -> bool:
        """Whether the client has closed its end: an engine stops then, and bills nothing."""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _answer(self, body: Body, mood: str | None) -> None:
        api = self.server.owner
        if mood in ERRORS:
            self._error(mood)
        elif mood == "hang":
            time.sleep(20)
        elif mood == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif mood == "half":
            whole = json.dumps({"choices": [{"message": {"content": "half an answer"}}]}).encode()
            self._send(200, whole[: len(whole) // 2], {"Content-Length": str(len(whole)), "Connection": "close"})
            self.close_connection = True
        elif mood == "not_json":
            self._send(200, b'{"choices": [{"message": {"content": "cut', {})
        elif mood == "no_choices":
            self._json(200, {"object": "chat.completion", "choices": [], "error": {"message": "upstream", "code": 502}})
        else:
            self._json(200, api.completion(body, mood))

    def _error(self, mood: str) -> None:
        status, code, message = ERRORS[mood]
        headers = {"Retry-After": str(self.server.owner.retry_after)} if mood == "429" else {}
        body = {"error": {"message": message, "type": code, "code": code, "param": None}}
        self._send(status, json.dumps(body).encode(), headers)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _upload(self, content: bytes) -> bytes:
        """The file in a multipart body."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + content)
        file = next(p for p in message.iter_parts() if p.get_param("name", header="content-disposition") == "file")
        return bytes(file.get_payload(decode=True) or b"")
