"""A row as the messages of a request, with the text and pixels that the local prompt of the same row is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mathse.models.row import Row

Message = dict[str, Any]


def messages(
    row: Row, address: Callable[[Any], str], defuse: Callable[[str], str] = lambda text: text
) -> list[Message]:
    """The turns in order, the pictures before the first question, as the chat templates of all families have them.

    Args:
        address: of a picture, as ``Pictures.address``.
        defuse: rewrites special tokens in the user's text, which a server would take for the real ones.
    """
    result: list[Message] = []
    turns = [*row.get("history", ()), (row["question"], None)]
    for question, answer in turns:
        pictures = [] if result else [image_part(address(image)) for image in row["images"]]
        result.append({"role": "user", "content": [*pictures, {"type": "text", "text": defuse(question)}]})
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
