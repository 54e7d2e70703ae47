"""A request as the JSON that goes out, and the JSON that comes back as a reply."""

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
    """What a server understands. It starts from what the OpenAI API documents, and gives way where the server says
    no: such a refusal is not billed, and the same request goes out again at once."""

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
            described = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": described}
        return body

    def gives_way(self, fault: Fault, request: ChatRequest, sent: Mapping[str, Any]) -> bool:
        """Whether the fault is about a word that can be said otherwise; ``body`` then says it so."""
        if fault.status not in (400, 422):
            return False
        said = fault.said.lower()
        about_form = any(word in said for word in ("response_format", "json_schema", "guided", "structured", "grammar"))
        if "response_format" in sent and about_form:
            self.structured = False
            return True
        for old, new in (("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")):
            if old in sent and old in said and "upport" in said:  # "Unsupported parameter", "is not supported"
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
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list) or not choices:
        error = value.get("error") if isinstance(value, Mapping) else None
        raise Broken(f"a body without choices ({json.dumps(error)[:200]})" if error else "a body without choices")
    if not all(isinstance(c, Mapping) and isinstance(c.get("message"), Mapping) for c in choices):
        raise Broken("a choice without a message")
    choices = sorted(choices, key=_position)[: request.n]
    texts = [_text(choice["message"].get("content")) for choice in choices]
    reasons = [str(choice.get("finish_reason") or "") for choice in choices]
    refusal = next((str(r) for c in choices if (r := c["message"].get("refusal"))), None)
    model = value.get("model")
    return ChatReply(
        texts=texts,
        refusal=refusal,
        finish_reason=reasons[0] or None,
        usage=_usage(value.get("usage")),
        model=model if isinstance(model, str) else "",
        outcome=_outcome(texts, reasons, refusal),
        finish_reasons=reasons,
        logprobs=_logprobs(choices) if request.logprobs else None,
        key=key,
    )


def _position(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _text(content: Any) -> str:
    """Text as one string, or as parts, as some servers give it."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str))
    return ""


def _outcome(texts: list[str], reasons: list[str], refusal: str | None) -> Outcome:
    """Several choices are answered if one of them is."""
    each = [_outcome_of(text, reason, refusal) for text, reason in zip(texts, reasons, strict=True)]
    return "answered" if "answered" in each else each[0]


def _outcome_of(text: str, reason: str, refusal: str | None) -> Outcome:
    if reason == "content_filter" or (refusal is not None and not text.strip()):
        return "refused"
    if reason == "length":
        return "cut_off"
    return "answered" if text.strip() else "empty"


def _usage(value: Any) -> Usage:
    if not isinstance(value, Mapping):
        return Usage()
    details = value.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, Mapping) else 0
    return Usage(_count(value, "prompt_tokens"), _count(value, "completion_tokens"), cached)


def _count(value: Mapping[str, Any], name: str) -> int:
    count = value.get(name)
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else 0


def _logprobs(choices: list[Mapping[str, Any]]) -> list[list[dict[str, Any]]] | None:
    """None unless every choice has some."""
    given: list[Any] = [(c.get("logprobs") or {}).get("content") for c in choices]
    if not all(isinstance(tokens, list) for tokens in given):
        return None
    try:
        return [[_token(t) for t in tokens] for tokens in given]
    except (KeyError, TypeError):
        return None


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    top = {other["token"]: other["logprob"] for other in token.get("top_logprobs") or ()}
    return {"token": token["token"], "logprob": token["logprob"], "top": top}
