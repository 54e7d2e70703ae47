"""About how many tokens a text or a picture comes to, without a tokenizer.

Today's tokenizers first cut a text into words (a space or a sign before it included), groups of up to three digits, and
runs of signs; most such pieces are one token. Long words are two or three, and Chinese has about 0.7 a character.
"""

from __future__ import annotations

import math
import re

from mathse.data.images import image_size
from mathse.inference.llm.pricing import image_tokens
from mathse.types import Problem

A_MESSAGE = 8  # tokens around a message: its role, its end, the beginning of the answer
WORD = 12  # letters that are one token
FURTHER = 6  # letters a token beyond that
SIGNS = 3  # of a run that are one token
A_CHARACTER = 0.7  # tokens a Chinese character
_PIECE = re.compile(
    r"(?P<han>[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+)|(?P<word>[^\W\d_\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+)"
    r"|(?P<number>\d{1,3})|(?P<line>[\r\n]+)|(?P<signs>[^\w\s]+|_+)"
)


def text_tokens(text: str) -> int:
    """About as many as a tokenizer of GPT-4o's or Qwen2's kind makes of ``text``."""
    total = 0.0
    for piece in _PIECE.finditer(text):
        size = piece.end() - piece.start()
        if piece.lastgroup == "han":
            total += A_CHARACTER * size
        elif piece.lastgroup == "word":
            total += 1 + math.ceil(max(0, size - WORD) / FURTHER)
        elif piece.lastgroup == "signs":
            total += math.ceil(size / SIGNS)
        else:
            total += 1
    return math.ceil(total)


def picture_tokens(problem: Problem, model: str, side: int) -> int:
    """Of a problem's pictures as they are sent: at most ``side`` pixels long. Only headers of files are read."""
    total = 0
    for ref in problem.images:
        width, height = image_size(ref)
        scale = min(1.0, side / max(width, height))
        total += image_tokens(model, max(1, round(width * scale)), max(1, round(height * scale)))
    return total
