"""A stand-in for ``vllm serve`` that is slow on purpose and needs no model: how busy does a client keep its slots?

    python experiments/engines/stand_in.py serve FOLDER --served-model-name NAME --port 8000 \
        --slots 64 --tokens-per-second 40 --tokens 50-500

It takes the options that generator=vllm passes, and answers chat requests, verdicts with two log-probabilities a token,
and the control requests (which weights it holds, load, sleep). A request waits for a slot, and holds it as long as its
answer is: between the two numbers of tokens, drawn by the request's text. ``GET /stats`` counts what it did, ``GET
/seconds`` tells how many of its slots were busy in each second of the machine's clock (``time.monotonic``). Standard
library only, one process, so that its own work does not stand in the way.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

WRONG = '{"error_analysis": "The sum is another one.", "error_step": "Step 1", "status": "WRONG"}'
RIGHT = '{"error_analysis": null, "error_step": null, "status": "CORRECT"}'
SOLUTION = "Step 1: The picture shows what is asked, and the numbers are added up one after another.\n"


class StandIn:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.held, self.asleep = options, Path(options.folder).name, False
        self.slots = asyncio.Semaphore(options.slots)
        self.stats: dict[str, float] = {
            "requests": 0, "busy_seconds": 0.0, "first": 0.0, "last": 0.0, "last_began": 0.0,
            "bytes_read": 0, "bytes_written": 0, "loads": 0, "sleeps": 0, "file_urls": 0, "data_urls": 0,
        }  # fmt: skip
        self.busy: Counter[int] = Counter()  # slot-seconds by second

    async def serve(self) -> None:
        server = await asyncio.start_server(self._connection, self.options.host, self.options.port, backlog=4096)
        print(f"serves {self.options.folder} as {self.options.served_model_name}", flush=True)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *fields = head.decode("latin-1").split("\r\n")
                method, path, _ = request.split(" ", 2)
                sizes = [line.split(":")[1] for line in fields if line.lower().startswith("content-length:")]
                body = await reader.readexactly(int(sizes[0])) if sizes else b""
                status, answer = await self._answer(method, path, body)
                data = json.dumps(answer).encode()
                if path.startswith("/v1/chat"):
                    self.stats["bytes_read"] += len(head) + len(body)
                    self.stats["bytes_written"] += len(data)
                kind, size = "Content-Type: application/json", f"Content-Length: {len(data)}"
                writer.write("\r\n".join([f"HTTP/1.1 {status} X", kind, size, "", ""]).encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        route, asked = urlsplit(path).path, json.loads(body) if body.strip() else {}
        if route == "/v1/models":
            return 200, {"data": [{"id": self.options.served_model_name}]}
        if route == "/health":
            return 200, {}
        if route == "/stats":
            return 200, self.stats
        if route == "/seconds":
            return 200, self.busy
        if route == "/is_sleeping":
            return 200, {"is_sleeping": self.asleep}
        if route == "/collective_rpc":
            if asked["method"] == "mathse_load":
                self.held = Path(asked["kwargs"]["folder"]).name
                self.stats["loads"] += 1
            elif asked["method"] == "mathse_forget":
                self.held = ""
            return 200, {"results": [self.held]}
        if route in ("/sleep", "/wake_up"):
            self.asleep = route == "/sleep"
            self.stats["sleeps"] += self.asleep
            return 200, {}
        if route.startswith("/reset_"):
            return 200, {}
        if route != "/v1/chat/completions":
            return 404, {"error": {"message": f"{route}: not found"}}
        if self.asleep or not self.held:
            return 500, {"error": {"message": "it sleeps"}}
        async with self.slots:
            began = time.monotonic()
            self.stats["first"], self.stats["last_began"] = self.stats["first"] or began, began
            reply = await self._completion(asked, body)
            ended = self.stats["last"] = time.monotonic()
            self.stats["busy_seconds"] += ended - began
            for second in range(int(began), int(ended) + 1):
                self.busy[second] += min(ended, second + 1) - max(began, second)  # type: ignore[assignment]
            self.stats["requests"] += 1
        return 200, reply

    async def _completion(self, asked: dict[str, Any], body: bytes) -> dict[str, Any]:
        self._look_at_pictures(asked)
        seed = int.from_bytes(hashlib.sha256(body).digest()[:8], "big")
        shortest, longest = map(int, self.options.tokens.split("-"))
        tokens = min(shortest + seed % (longest - shortest + 1), asked["max_tokens"])
        await asyncio.sleep(tokens / self.options.tokens_per_second)
        choices = [self._choice(asked, seed, tokens, k) for k in range(asked.get("n", 1))]
        # The client compares a prompt's count with its own where a server reports one; prompts are not read here.
        usage = {"prompt_tokens": 0, "completion_tokens": tokens * len(choices)}
        return {"id": "x", "object": "chat.completion", "model": asked["model"], "choices": choices, "usage": usage}

    def _look_at_pictures(self, asked: dict[str, Any]) -> None:
        """A file must lie where vLLM would be allowed to read it."""
        for message in asked["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else ():
                if part["type"] != "image_url":
                    continue
                url = part["image_url"]["url"]
                if not url.startswith("file://"):
                    self.stats["data_urls"] += 1
                    continue
                self.stats["file_urls"] += 1
                file = Path(unquote(urlsplit(url).path)).resolve()
                if Path(self.options.allowed_local_media_path).resolve() not in file.parents or not file.is_file():
                    raise ConnectionError(f"{file}: not below {self.options.allowed_local_media_path}")

    def _choice(self, asked: dict[str, Any], seed: int, tokens: int, index: int) -> dict[str, Any]:
        if asked.get("logprobs"):
            return verdict(index, RIGHT if seed % 2 else WRONG)
        text = (SOLUTION * (1 + tokens // 20))[: 4 * tokens] + f"\nThe answer to this problem is {seed % 10}."
        return written(index, text)


def written(index: int, text: str) -> dict[str, Any]:
    """A choice of a chat completion."""
    return {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}


def verdict(index: int, text: str) -> dict[str, Any]:
    """A choice with log-probabilities: in pieces of four characters, the status by itself; two alternatives a piece, as
    vLLM gives them."""
    names = ("CORRECT", "WRONG")
    likelier = max(names, key=text.rfind)
    before, status, after = text.rpartition(likelier)
    parts = (
        (before[k : k + 4] for k in range(0, len(before), 4)),
        (status,),
        (after[k : k + 4] for k in range(0, len(after), 4)),
    )
    odds = [-0.1 if name == likelier else -2.4 for name in names]
    top = [{"token": n, "logprob": p, "bytes": list(n.encode())} for n, p in zip(names, odds, strict=True)]
    content = [
        {"token": piece, "logprob": -0.1, "bytes": list(piece.encode()), "top_logprobs": top}
        for piece in chain.from_iterable(parts)
        if piece
    ]
    return {**written(index, text), "logprobs": {"content": content}}


def options_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("folder")
    parser.add_argument("--served-model-name", default="model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--allowed-local-media-path", default="/")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--tokens-per-second", type=float, default=1e6, help="of one request")
    parser.add_argument("--tokens", default="50-500", help="of an answer, from - to")
    return parser.parse_known_args(argv)[0]


def main(argv: Sequence[str] | None = None) -> None:
    asyncio.run(StandIn(options_of(argv)).serve())


if __name__ == "__main__":
    main()
