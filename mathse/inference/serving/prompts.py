"""A row as the messages of a request: the words and pixels that the local prompt of the same row is made of."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from mathse.data.images import load_image
from mathse.models.row import Row

Message = dict[str, Any]


def messages(row: Row, image_side: int, defuse: Callable[[str], str] = lambda text: text) -> list[Message]:
    """Turns in order, the pictures before the first question, as the chat templates of all families have them.

    ``defuse`` takes the meaning from special tokens in user text, which a server would read as what they are.
    """
    said: list[Message] = []
    turns = [*row.get("history", ()), (row["question"], None)]
    for question, answer in turns:
        pictures = [] if said else [picture(image, image_side) for image in row["images"]]
        said.append({"role": "user", "content": [*pictures, {"type": "text", "text": defuse(question)}]})
        if answer is not None:
            said.append({"role": "assistant", "content": defuse(answer)})
    return said


def picture(image: Any, side: int) -> Message:
    """The picture as the backbones see it, as PNG: no pixel differs, unless its long side is above ``side``."""
    shown = image if isinstance(image, Image.Image) else load_image(str(image))
    if max(shown.size) > side:
        shown = shown.copy()
        shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + _text(buffer.getvalue())}}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
