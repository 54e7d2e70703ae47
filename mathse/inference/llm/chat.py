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
    """A request; its contents are its cache key (see ``key``).

    Args:
        messages: in the OpenAI form; pictures are ``{"type": "image_url", ...}`` parts.
        temperature: None: the server's default.
        max_tokens: of each choice.
        n: number of choices.
        seed: None: none is sent.
        top_p: of nucleus sampling.
        schema: JSON schema of the answer, used if the server has structured output.
        prompt_version: name and version of the prompt.
        logprobs: request the log-probabilities of tokens.
        again: numbers the repetitions of a request that should get another answer.
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
        """Return 64 hex digits, equal for equal requests to the same model, at whatever server."""
        text = json.dumps({"model": model, **asdict(self)}, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Usage:
    """Tokens of an answer as the server counts them, all choices together; 0 if the server does not count."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # tokens of the prompt that the server had in its prompt cache


@dataclass(frozen=True)
class ChatReply:
    """A reply. All texts consist of whole characters, whatever the server or an older cache has.

    ``texts`` has one text per choice, ``n`` of them or fewer if the server gives fewer; a choice without text is "".

    ``outcome`` is
        "answered"
        "refused"   by a content filter or by the model
        "empty"
        "cut_off"   at ``max_tokens``
        "rejected"  the server does not accept the row: too long, a picture that it cannot read
        "failed"    no answer to this row after all tries, although other rows were answered
    ``error`` is the reason of "rejected" and "failed".

    ``logprobs`` has a list per choice, of {"token", "logprob", "top": {token: logprob}}. None: there are none, or
    ``watched`` has the part of them that is needed (see ``ServedDialect``).
    """

    texts: list[str] = field(default_factory=list)
    refusal: str | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str = ""  # as the server names it
    cached: bool = False  # read from the disk: nothing was sent
    error: str | None = None
    outcome: Outcome = "answered"
    finish_reasons: list[str] = field(default_factory=list)  # one per choice
    logprobs: list[list[dict[str, Any]]] | None = None
    key: str = ""  # of its request
    watched: list[float] | None = None  # log-probabilities of the tokens that the request is about

    def __post_init__(self) -> None:
        fix_characters(self, "texts", "refusal", "finish_reason", "model", "error", "finish_reasons", "logprobs")

    @property
    def text(self) -> str:
        """The first choice's text; "" if there is none."""
        return self.texts[0] if self.texts else ""

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        left_out = {"cached", "key"} if self.watched is not None else {"cached", "key", "watched"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], key: str) -> Self:
        return cls(**{**stored, "usage": Usage(**stored["usage"])}, cached=True, key=key)
