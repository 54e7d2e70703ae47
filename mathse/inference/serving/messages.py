"""A row as the messages of a request, with the text and pixels that the local prompt of the same row is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mathse.models.row import Part, Row, turns

Message = dict[str, Any]


def messages(
    row: Row, address: Callable[[Any], str], defuse: Callable[[str], str] = lambda text: text
) -> list[Message]:
    """The turns in order, the first question's text and pictures in theirs, as the chat templates of all families take
    them.

    Args:
        address: of a picture, as ``Pictures.address``.
        defuse: rewrites marks in the user's text, which a server would take for the real ones.
    """

    def content_of(part: Part) -> Message:
        return {"type": "text", "text": defuse(part.text)} if part.image is None else image_part(address(part.image))

    result: list[Message] = []
    for question, answer in turns(row):
        result.append({"role": "user", "content": list(map(content_of, question))})
        if answer is not None:
            result.append({"role": "assistant", "content": defuse(answer)})
    return result


def image_part(url: str) -> Message:
    return {"type": "image_url", "image_url": {"url": url}}


def with_urls(turns: list[Message], url: Callable[[str], str]) -> list[Message]:
    """The same messages with each picture's address replaced by ``url(address)``, as they are sent."""

    def part_of(part: Message) -> Message:
        return image_part(url(part["image_url"]["url"])) if part["type"] == "image_url" else part

    return [
        turn if isinstance(turn["content"], str) else {**turn, "content": [part_of(part) for part in turn["content"]]}
        for turn in turns
    ]
