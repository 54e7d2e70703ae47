"""A row as the messages of a request, with the text and pixels that the local prompt of the same row is made from."""

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
    """The turns in order, the pictures before the first question, as the chat templates of all families have them.

    ``defuse`` rewrites special tokens in the user's text, which a server would take for the real ones.
    """
    result: list[Message] = []
    turns = [*row.get("history", ()), (row["question"], None)]
    for question, answer in turns:
        pictures = [] if result else [picture(image, image_side) for image in row["images"]]
        result.append({"role": "user", "content": [*pictures, {"type": "text", "text": defuse(question)}]})
        if answer is not None:
            result.append({"role": "assistant", "content": defuse(answer)})
    return result


def picture(image: Any, side: int) -> Message:
    """The picture as the backbones see it, as PNG: no pixel differs, unless its long side is above ``side``."""
    opened = image if isinstance(image, Image.Image) else load_image(str(image))
    if max(opened.size) > side:
        opened = opened.copy()
        opened.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    opened.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
