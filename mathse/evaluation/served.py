"""``generator=server``: a model behind an OpenAI-compatible server (vLLM, SGLang, ``transformers serve``) answers.

The server renders the prompt with the checkpoint's own chat template, picture before question, which is what this
package's local prompts are made with too. Answers are cached by content like any other, so a rerun asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.backbones.base import Row
from mathse.errors import TeacherError
from mathse.generate import Ask
from mathse.llm.client import ChatClient, ChatReply, ChatRequest
from mathse.llm.images import image_part
from mathse.prompts import Style

USAGE = "student_usage.jsonl"
ROUNDS = 8  # further requests a row, where a server gives fewer choices than asked


class ServerGenerator:
    """Where the student is served, and how samples are drawn. ``style``: of the prompts with prompt=student."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000/v1",
        model: str | None = None,
        api_key_env: str | None = None,
        style: Style = "full",
        batch_size: int = 64,
        temperature: float = 0.7,
        top_p: float = 0.95,
        max_new_tokens: int = 2048,
        image_side: int = 4096,
        cache_dir: str = "outputs/.answers",
        max_concurrency: int = 64,
        timeout: float = 600.0,
        max_retries: int = 8,
    ) -> None:
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.sampling = {"temperature": temperature, "top_p": top_p}
        self.style, self.image_side = style, image_side
        self._server: dict[str, Any] = {
            "base_url": base_url,
            "model": str(model),
            "api_key_env": api_key_env,
            "cache_dir": cache_dir,
            "max_concurrency": max_concurrency,
            "timeout": timeout,
            "max_retries": max_retries,
        }

    def student(self, run: Path) -> ServedStudent:
        """The model, its account kept in the run folder."""
        client = ChatClient(**self._server, section="generator")
        client.account_in(run, USAGE)
        return ServedStudent(client, self.style, self.image_side)


class ServedStudent:
    """What an evaluation asks of a model, answered by a server. What the server cannot take it says itself: such a row
    is answered ""."""

    context = 2**31

    def __init__(self, client: ChatClient, style: Style, image_side: int) -> None:
        self.client, self.prompt_style, self.image_side = client, style, image_side

    def refusal(self, row: Row) -> str | None:
        return None

    def too_long(self, row: Row, limit: int) -> str | None:
        return None

    def generated(self, asks: Iterable[Ask]) -> Iterator[list[list[str]]]:
        """As ``mathse.generate.generated``."""
        for ask in asks:
            yield self._batch(ask.rows, ask.how)

    def _batch(self, rows: Sequence[Row], how: Mapping[str, Any]) -> list[list[str]]:
        """n texts a row; where a server gives fewer choices, the rest is asked for again, with other seeds."""
        texts: list[list[str]] = [[] for _ in rows]
        for again in range(how.get("n", 1) * ROUNDS):
            short = [i for i, found in enumerate(texts) if len(found) < how.get("n", 1)]
            if not short:
                return texts
            requests = [self._request(rows[i], how, len(texts[i]), again) for i in short]
            for i, reply in zip(short, self.client.complete(requests), strict=True):
                texts[i] += _texts(reply, how.get("n", 1) - len(texts[i]))
        raise TeacherError(f"{self.client.base_url}: gives no choices; see what the server's log says")

    def _request(self, row: Row, how: Mapping[str, Any], have: int, again: int) -> ChatRequest:
        parts = [image_part(str(image), self.image_side) for image in row["images"]]
        seed = how.get("seed")
        return ChatRequest(
            [{"role": "user", "content": [*parts, {"type": "text", "text": row["question"]}]}],
            temperature=how.get("temperature", 0.0),
            top_p=how.get("top_p", 1.0),
            max_tokens=how["max_new_tokens"],
            n=how.get("n", 1) - have,
            seed=None if seed is None else (seed + again) % 2**31,
            prompt_version="answer",
            again=again,
        )


def _texts(reply: ChatReply, wanted: int) -> list[str]:
    """The choices; "" for a row that the server refuses. Raises TeacherError for one that it failed to answer."""
    if reply.outcome == "failed":
        raise TeacherError(f"the server gave no answer to a row ({reply.error}); the same command asks for it again")
    if reply.outcome in ("rejected", "refused"):
        return [""] * wanted
    return (reply.texts or [""])[:wanted]
