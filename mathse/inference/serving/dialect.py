"""The requests of a served student or ORM beyond the documented OpenAI API, and the small part of a reply that is kept.

A row becomes the messages of a request with the text and pixels of its local prompt.

A verdict's reply lists a log-probability per token, with alternatives: 20 to 100 kB. Only two numbers of it are used,
the log-probabilities of CORRECT and WRONG at the status. They are extracted when the reply arrives, and nothing else of
the list is stored. vLLM is asked for just these two tokens (``logprob_token_ids``), other servers for the 20 likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.faults import Fault
from mathse.inference.llm.images import image_url_part
from mathse.inference.llm.serialization import Dialect
from mathse.inference.prompts.feedback import STATUS_KEY
from mathse.models.row import Row, iterate_turns

Message = dict[str, Any]

MIN_LOG_PROB = -9999.0  # of a token that is not among the alternatives: JSON has no -inf


def make_messages(
    row: Row, address: Callable[[Any], str], defuse: Callable[[str], str] = lambda text: text
) -> list[Message]:
    """Make the messages of a row, as the chat templates of all families take them.

    Args:
        row: its turns are in order; the first question has the pictures.
        address: returns the address of a picture, as ``PictureFiles.address``.
        defuse: rewrites the marks of chat templates in a user's text, which a server would take for real marks.
    """
    messages: list[Message] = []
    for question, answer in iterate_turns(row):
        content: list[Message] = []
        for part in question:
            if part.image is None:
                content.append({"type": "text", "text": defuse(part.text)})
            else:
                content.append(image_url_part(address(part.image)))
        messages.append({"role": "user", "content": content})
        if answer is not None:
            messages.append({"role": "assistant", "content": defuse(answer)})
    return messages


def replace_urls(messages: list[Message], url: Callable[[str], str]) -> list[Message]:
    """Return the messages with the address of each picture replaced by ``url(address)``."""
    replaced = []
    for message in messages:
        if not isinstance(message["content"], str):
            content = []
            for part in message["content"]:
                is_image = part["type"] == "image_url"
                content.append(image_url_part(url(part["image_url"]["url"])) if is_image else part)
            message = {**message, "content": content}
        replaced.append(message)
    return replaced


@dataclass(frozen=True)
class StatusTokens:
    """The tokens at which CORRECT and WRONG differ: their ids, and their texts, by which servers name tokens."""

    ids: tuple[int, int]
    texts: tuple[str, str]


@dataclass
class ServedDialect(Dialect):
    """Requests have the server's name of the model; answers are stored under the client's name of it.

    Args:
        served_as: the server's name of the model.
        banned: token ids that local sampling never draws, such as an image's placeholders; the server must not draw
            them either.
        url: maps a picture's address to the URL that is sent (see pictures.py).
        statuses: the status tokens of an ORM.
        by_id: the server gives log-probabilities of tokens that are named by their ids (vLLM).
    """

    served_as: str = ""
    banned: tuple[int, ...] = ()
    url: Callable[[str], str] = str
    statuses: StatusTokens | None = None
    by_id: bool = False

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        # Engines take a parameter that a request leaves out from the checkpoint's generation_config.json, so top_p is
        # always sent.
        body = super().body(request, self.served_as or model) | {"top_p": request.top_p}
        body["messages"] = replace_urls(request.messages, self.url)
        if self.by_id and self.statuses is not None and request.logprobs:
            del body["top_logprobs"]
            body["logprob_token_ids"] = list(self.statuses.ids)
        if self.banned:
            body["logit_bias"] = {str(token): -100 for token in self.banned}  # -100: the token is never drawn
        return body

    def reply(self, body: str, request: ChatRequest, key: str) -> ChatReply:
        reply = super().reply(body, request, key)
        if self.statuses is None or not reply.logprobs:
            return reply
        watched = read_status_log_probs(reply.logprobs[0], *self.statuses.texts)
        return replace(reply, logprobs=None, watched=watched)

    def gives_way(self, fault: Fault, request: ChatRequest, sent: Mapping[str, Any]) -> bool:
        if fault.status in (400, 422) and "logit_bias" in sent and "logit_bias" in fault.message:
            self.banned = ()  # a trained model does not draw these tokens in practice
            return True
        return super().gives_way(fault, request, sent)


def read_status_log_probs(tokens: Sequence[Mapping[str, Any]], correct: str, wrong: str) -> list[float] | None:
    """Return the log-probabilities of CORRECT and WRONG at the first token of the status.

    Args:
        tokens: {"token", "logprob", "top": {token: logprob}} of the whole answer.
        correct: the token that CORRECT begins with. If it is not among the alternatives, its probability counts as 0,
            since it is less likely than all of them.
        wrong: the same for WRONG.

    Returns:
        None if the answer has neither token at the status.
    """
    key = STATUS_KEY.search("".join(token["token"] for token in tokens))
    if key is None:
        return None
    end = 0  # characters up to the end of the token
    for token in tokens:
        end += len(token["token"])
        if end <= key.end():
            continue
        if token["token"] not in (correct, wrong):
            return None
        log_probs = {**token["top"], token["token"]: token["logprob"]}
        pair = []
        for status in (correct, wrong):
            log_prob = log_probs.get(status, MIN_LOG_PROB)
            pair.append(MIN_LOG_PROB if math.isnan(log_prob) else max(MIN_LOG_PROB, log_prob))
        return pair
    return None
