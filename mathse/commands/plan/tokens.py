"""Estimate the tokens of a text or a picture without a tokenizer.

Current tokenizers first split a text into words (with a space or sign before them), groups of up to three digits, and
runs of signs. Most of these pieces are one token. Long words are two or three tokens, and a Chinese character is about
0.7 tokens.
"""

from __future__ import annotations

import math
import re

from mathse.data.images import image_size
from mathse.inference.llm.pricing import image_tokens
from mathse.types import Problem

MESSAGE_TOKENS = 8  # around a message: its role, its end, the beginning of the answer
_PIECE = re.compile(
    r"(?P<han>[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+)|(?P<word>[^\W\d_\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+)"
    r"|(?P<number>\d{1,3})|(?P<line>[\r\n]+)|(?P<signs>[^\w\s]+|_+)"
)


def count_text_tokens(text: str) -> int:
    """Estimate the tokens of ``text`` for a tokenizer such as GPT-4o's or Qwen2's."""
    total = 0.0
    for piece in _PIECE.finditer(text):
        chars = piece.end() - piece.start()
        if piece.lastgroup == "han":
            total += 0.7 * chars
        elif piece.lastgroup == "word":
            # The first 12 letters are one token, each further 6 letters another.
            total += 1 + math.ceil(max(0, chars - 12) / 6)
        elif piece.lastgroup == "signs":
            total += math.ceil(chars / 3)
        else:
            total += 1
    return math.ceil(total)


def count_picture_tokens(problem: Problem, model: str, side: int) -> int:
    """Return the tokens of a problem's pictures as they are sent, scaled to at most ``side`` pixels.

    Only the headers of the files are read.
    """
    total = 0
    for ref in problem.images:
        width, height = image_size(ref)
        scale = min(1.0, side / max(width, height))
        total += image_tokens(model, max(1, round(width * scale)), max(1, round(height * scale)))
    return total
