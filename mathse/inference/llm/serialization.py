"""Requests and replies as JSON: the body that is sent, and the reply read from the body that comes back.

Servers differ in what they accept and in what they send, so nothing of a body is taken for granted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mathse.inference.llm.chat import ChatReply, ChatRequest, Outcome, Usage
from mathse.inference.llm.faults import Broken, Fault

TOP_LOGPROBS = 20  # alternatives a token, where logprobs are asked for; what APIs give at most


@dataclass
class Dialect:
    """The form of requests that a server accepts. It starts from what the OpenAI API documents, and changes where the
    server refuses a parameter: such a refusal is not billed, and the same request is sent again at once."""

    structured: bool = True
    max_tokens: str = "max_completion_tokens"

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "messages": request.messages, self.max_tokens: request.max_tokens}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.top_p != 1.0:
            body["top_p"] = request.top_p
        if request.n != 1:
            body["n"] = request.n
        if request.seed is not None:
            body["seed"] = request.seed
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if request.schema is not None and self.structured:
            schema = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def reply(self, body: str, request: ChatRequest, key: str) -> ChatReply:
        """The reply that a body holds. Raises Broken where it holds no whole chat completion."""
        return read_reply(body, request, key)

    def gives_way(self, fault: Fault, request: ChatRequest, sent: Mapping[str, Any]) -> bool:
        """Whether the fault is about a parameter that has another form; from now on ``body`` uses that."""
        if fault.status not in (400, 422):
            return False
        message = fault.message.lower()
        about_schema = any(
            term in message for term in ("response_format", "json_schema", "guided", "structured", "grammar")
        )
        if "response_format" in sent and about_schema:
            self.structured = False
            return True
        for old, new in (("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")):
            if old in sent and old in message and "upport" in message:  # "Unsupported parameter", "is not supported"
                self.max_tokens = new
                return True
        return False


def read_reply(body: str, request: ChatRequest, key: str) -> ChatReply:
    """Raises Broken where this is no whole chat completion."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Broken(f"a body that is not whole JSON ({len(body)} characters: {e})") from None
    return reply_from(value, request, key)


def reply_from(value: Any, request: ChatRequest, key: str) -> ChatReply:
    """The same for a body that has been parsed."""
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list) or not choices:
        error = value.get("error") if isinstance(value, Mapping) else None
        raise Broken(f"a body without choices ({json.dumps(error)[:200]})" if error else "a body without choices")
    if not all(isinstance(c, Mapping) and isinstance(c.get("message"), Mapping) for c in choices):
        raise Broken("a choice without a message")

    def index(choice: Mapping[str, Any]) -> int:
        position = choice.get("index")
        return position if isinstance(position, int) else 0

    choices = sorted(choices, key=index)[: request.n]
    texts = [_text(choice["message"].get("content")) for choice in choices]
    reasons = [str(choice.get("finish_reason") or "") for choice in choices]
    refusal = next((str(r) for c in choices if (r := c["message"].get("refusal"))), None)
    # several choices are answered if one of them is
    outcomes = [_outcome(text, reason, refusal) for text, reason in zip(texts, reasons, strict=True)]
    model = value.get("model")
    return ChatReply(
        texts=texts,
        refusal=refusal,
        finish_reason=reasons[0] or None,
        usage=_usage(value.get("usage")),
        model=model if isinstance(model, str) else "",
        outcome="answered" if "answered" in outcomes else outcomes[0],
        finish_reasons=reasons,
        logprobs=_logprobs(choices) if request.logprobs else None,
        key=key,
    )


def _text(content: Any) -> str:
    """A message's text, which some servers send as a string, some as parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str))
    return ""


def _outcome(text: str, reason: str, refusal: str | None) -> Outcome:
    if reason == "content_filter" or (refusal is not None and not text.strip()):
        return "refused"
    if reason == "length":
        return "cut_off"
    return "answered" if text.strip() else "empty"


def _usage(value: Any) -> Usage:
    """Counts of tokens; what a server leaves out, or sends as something else than a count, is 0."""

    def count(counts: Any, name: str) -> int:
        number = counts.get(name) if isinstance(counts, Mapping) else None
        return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0

    details = value.get("prompt_tokens_details") if isinstance(value, Mapping) else None
    return Usage(count(value, "prompt_tokens"), count(value, "completion_tokens"), count(details, "cached_tokens"))


def _logprobs(choices: list[Mapping[str, Any]]) -> list[list[dict[str, Any]]] | None:
    """None unless every choice has some."""
    contents: list[Any] = [(c.get("logprobs") or {}).get("content") for c in choices]
    if not all(isinstance(tokens, list) for tokens in contents):
        return None
    try:
        return [
            [
                {
                    "token": token["token"],
                    "logprob": token["logprob"],
                    "top": {other["token"]: other["logprob"] for other in token.get("top_logprobs") or ()},
                }
                for token in tokens
            ]
            for tokens in contents
        ]
    except (KeyError, TypeError):
        return None
