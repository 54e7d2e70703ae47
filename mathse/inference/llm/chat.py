"""A request to a chat model, and the reply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from mathse.types import fix_characters

Outcome = Literal["answered", "refused", "empty", "cut_off", "rejected", "failed"]


@dataclass(frozen=True)
class ChatRequest:
    """One request; its content is its cache key (see ``key``).

    ``messages`` are in the OpenAI form; pictures are ``{"type": "image_url", ...}`` parts made by ``llm.images``.
    ``temperature`` None leaves it to the server. ``schema``: a JSON schema for the answer, used where the server has
    structured output. ``again``: numbers the repetitions of a request whose answer is to be another one.
    """

    messages: list[dict[str, Any]]
    temperature: float | None = 0.0
    max_tokens: int = 1024
    n: int = 1
    seed: int | None = None
    top_p: float = 1.0
    schema: dict[str, Any] | None = None
    prompt_version: str = ""
    logprobs: bool = False
    again: int = 0

    def key(self, model: str) -> str:
        """64 hex digits: equal for equal requests to equal models, wherever they are served."""
        text = json.dumps({"model": model, **asdict(self)}, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer as the server counts them (0 where it does not), all choices together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's, those that the server had read before


@dataclass(frozen=True)
class ChatReply:
    """A reply.

    ``texts``: one a choice, ``n`` of them or fewer where the server gives fewer; a choice without text is "".
    ``outcome``: "answered"; "refused" (a content filter or the model would not); "empty"; "cut_off" (``max_tokens``
    ended the first choice); "rejected" (the server takes no such row: too long, a picture it cannot read); "failed"
    (no answer to this row after all tries, though others were answered). ``error`` is the reason of the last two.
    ``logprobs``: one list a choice, of {"token", "logprob", "top": {token: logprob}}; None where there are none, or
    where what was wanted of them is in ``watched`` (see ServedDialect).
    Texts consist of whole characters, whatever the server or an older cache holds (see ``whole_characters``).
    """

    texts: list[str] = field(default_factory=list)
    refusal: str | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str = ""  # as the server names it
    cached: bool = False  # from the disk: nothing was sent
    error: str | None = None
    outcome: Outcome = "answered"
    finish_reasons: list[str] = field(default_factory=list)  # one a choice
    logprobs: list[list[dict[str, Any]]] | None = None
    key: str = ""  # of its request
    watched: list[float] | None = None  # log-probabilities of the tokens that the request is about

    def __post_init__(self) -> None:
        fix_characters(self, "texts", "refusal", "finish_reason", "model", "error", "finish_reasons", "logprobs")

    @property
    def text(self) -> str:
        """The first choice's text; "" where there is none."""
        return self.texts[0] if self.texts else ""

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        left_out = ("cached", "key") if self.watched is not None else ("cached", "key", "watched")
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], key: str) -> Self:
        return cls(**{**stored, "usage": Usage(**stored["usage"])}, cached=True, key=key)
