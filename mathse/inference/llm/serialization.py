"""Requests and replies as JSON: the body that is sent, and the reply that is read from the returned body.

Servers differ in the parameters that they accept and in the fields that they return, so every field is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mathse.inference.llm.chat import ChatReply, ChatRequest, Outcome, Usage
from mathse.inference.llm.faults import BrokenReply, Fault

TOP_LOGPROBS = 20  # alternatives per token, the most that APIs give


@dataclass
class Dialect:
    """The form of requests that a server accepts.

    It starts with the OpenAI API's documented form, and changes when the server refuses a parameter: such a refusal is
    not billed, and the same request is sent again at once.
    """

    structured: bool = True
    max_tokens: str = "max_completion_tokens"

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """Return the JSON body of a request."""
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
        """Return the reply in a body. Raises BrokenReply if it is no whole chat completion."""
        return read_reply(body, request, key)

    def gives_way(self, fault: Fault, request: ChatRequest, sent: Mapping[str, Any]) -> bool:
        """Whether the fault is about a parameter of ``sent`` with another form, which ``body`` uses from now on."""
        if fault.status not in (400, 422):
            return False
        message = fault.message.lower()
        schema_terms = ("response_format", "json_schema", "guided", "structured", "grammar")
        if "response_format" in sent and any(term in message for term in schema_terms):
            self.structured = False
            return True
        for old, new in (("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")):
            if old in sent and old in message and "upport" in message:  # "Unsupported parameter", "is not supported"
                self.max_tokens = new
                return True
        return False


def read_reply(body: str, request: ChatRequest, key: str) -> ChatReply:
    """Return the reply in a body. Raises BrokenReply if it is no whole chat completion."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise BrokenReply(f"a body that is not whole JSON ({len(body)} characters: {e})") from None
    return reply_from(value, request, key)


def reply_from(value: Any, request: ChatRequest, key: str) -> ChatReply:
    """Return the reply in a parsed body. Raises BrokenReply if it is no whole chat completion."""
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list) or not choices:
        error = value.get("error") if isinstance(value, Mapping) else None
        raise BrokenReply(f"a body without choices ({json.dumps(error)[:200]})" if error else "a body without choices")
    if not all(isinstance(c, Mapping) and isinstance(c.get("message"), Mapping) for c in choices):
        raise BrokenReply("a choice without a message")

    def index(choice: Mapping[str, Any]) -> int:
        position = choice.get("index")
        return position if isinstance(position, int) else 0

    choices = sorted(choices, key=index)[: request.n]
    texts = [_read_text(choice["message"].get("content")) for choice in choices]
    reasons = [str(choice.get("finish_reason") or "") for choice in choices]
    refusal = next((str(r) for c in choices if (r := c["message"].get("refusal"))), None)
    # A reply is answered if one of its choices is.
    outcomes = [_outcome_of(text, reason, refusal) for text, reason in zip(texts, reasons, strict=True)]
    model = value.get("model")
    return ChatReply(
        texts=texts,
        refusal=refusal,
        finish_reason=reasons[0] or None,
        usage=_read_usage(value.get("usage")),
        model=model if isinstance(model, str) else "",
        outcome="answered" if "answered" in outcomes else outcomes[0],
        finish_reasons=reasons,
        logprobs=_read_logprobs(choices) if request.logprobs else None,
        key=key,
    )


def _read_text(content: Any) -> str:
    """Return a message's text, which some servers send as a string and others as parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str))
    return ""


def _outcome_of(text: str, reason: str, refusal: str | None) -> Outcome:
    if reason == "content_filter" or (refusal is not None and not text.strip()):
        return "refused"
    if reason == "length":
        return "cut_off"
    return "answered" if text.strip() else "empty"


def _read_usage(value: Any) -> Usage:
    """Return the counts of tokens; 0 for a count that is missing or is no count."""

    def read_count(counts: Any, name: str) -> int:
        number = counts.get(name) if isinstance(counts, Mapping) else None
        return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0

    details = value.get("prompt_tokens_details") if isinstance(value, Mapping) else None
    return Usage(
        read_count(value, "prompt_tokens"),
        read_count(value, "completion_tokens"),
        read_count(details, "cached_tokens"),
    )


def _read_logprobs(choices: list[Mapping[str, Any]]) -> list[list[dict[str, Any]]] | None:
    """Return a list per choice of {"token", "logprob", "top"}; None unless every choice has log-probabilities."""
    contents: list[Any] = [(c.get("logprobs") or {}).get("content") for c in choices]
    if not all(isinstance(tokens, list) for tokens in contents):
        return None
    of_choices = []
    try:
        for tokens in contents:
            of_tokens = []
            for token in tokens:
                entry = {"token": token["token"], "logprob": token["logprob"]}
                entry["top"] = {other["token"]: other["logprob"] for other in token.get("top_logprobs") or ()}
                of_tokens.append(entry)
            of_choices.append(of_tokens)
    except (KeyError, TypeError):
        return None
    return of_choices
