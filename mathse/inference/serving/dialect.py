"""How a served student or ORM is asked, beyond what the OpenAI API documents, and how little of a reply is kept.

A verdict's reply lists a log-probability of every token, with alternatives: 20 to 100 kB. What is read of it are two
numbers, the log-probabilities of CORRECT and WRONG where the status stands; they are read as it comes, and kept alone.
vLLM is asked for just these two a token (``logprob_token_ids``), other servers for the likeliest 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.faults import Fault
from mathse.inference.llm.serialization import Dialect
from mathse.inference.prompts.feedback import STATUS_KEY
from mathse.inference.serving.messages import with_urls

NEVER = -100  # logit_bias: the token is not drawn
NONE = -9999.0  # the log-probability of a token that is not among the alternatives: JSON has no -inf


@dataclass(frozen=True)
class Statuses:
    """The tokens that CORRECT and WRONG begin with: their ids, and their texts, by which servers name tokens."""

    ids: tuple[int, int]
    texts: tuple[str, str]


@dataclass
class ServedDialect(Dialect):
    """Requests have the server's name of the model; answers are stored under the client's name for it.

    Args:
        served_as: that name.
        banned: token ids that local sampling never draws (an image's placeholders), so the server must not either.
        url: of a picture's address, what is sent (see pictures.py).
        statuses: of an ORM.
        by_id: the server gives log-probabilities of tokens that are named by their ids (vLLM).
    """

    served_as: str = ""
    banned: tuple[int, ...] = ()
    url: Callable[[str], str] = str
    statuses: Statuses | None = None
    by_id: bool = False

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        # What a request leaves out would come from the checkpoint's generation_config.json, so top_p is always sent.
        body = super().body(request, self.served_as or model) | {"top_p": request.top_p}
        body["messages"] = with_urls(request.messages, self.url)
        if self.by_id and self.statuses is not None and request.logprobs:
            del body["top_logprobs"]
            body["logprob_token_ids"] = list(self.statuses.ids)
        return body | {"logit_bias": {str(token): NEVER for token in self.banned}} if self.banned else body

    def reply(self, body: str, request: ChatRequest, key: str) -> ChatReply:
        reply = super().reply(body, request, key)
        if self.statuses is None or not reply.logprobs:
            return reply
        return replace(reply, logprobs=None, watched=at_status(reply.logprobs[0], *self.statuses.texts))

    def gives_way(self, fault: Fault, request: ChatRequest, sent: Mapping[str, Any]) -> bool:
        if fault.status in (400, 422) and "logit_bias" in sent and "logit_bias" in fault.message:
            self.banned = ()  # a trained model does not draw them anyway
            return True
        return super().gives_way(fault, request, sent)


def at_status(tokens: Sequence[Mapping[str, Any]], correct: str, wrong: str) -> list[float] | None:
    """The log-probabilities of CORRECT and WRONG at the token that the status begins with; None where the answer has no
    such token.

    Args:
        tokens: {"token", "logprob", "top": {token: logprob}} of the whole answer.
        correct, wrong: the tokens that CORRECT and WRONG begin with. One that is not among the alternatives is less
            likely than all of them, and counts as 0.
    """
    key = STATUS_KEY.search("".join(token["token"] for token in tokens))
    end = 0  # characters up to the end of the token
    for token in tokens:
        end += len(token["token"])
        if key is not None and end > key.end():
            if token["token"] not in (correct, wrong):
                return None
            log_probs = {**token["top"], token["token"]: token["logprob"]}
            pair = [log_probs.get(status, NONE) for status in (correct, wrong)]
            return [max(NONE, value) if not math.isnan(value) else NONE for value in pair]
    return None
