"""Dollars a token, and an upper bound of the tokens of a request before it is sent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mathse.inference.llm.chat import ChatRequest, Usage
from mathse.inference.llm.images import picture_of

BATCH_DISCOUNT = 0.5  # the Batch API's
MILLION = 1_000_000
OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Price:
    """Dollars a million tokens. ``cached``: of prompt tokens that the server had read before; None: as ``input``."""

    input: float
    output: float
    cached: float | None = None

    def of(self, usage: Usage) -> float:
        cached = self.input if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.completion_tokens * self.output) / MILLION


# OpenAI's list prices as several public tables gave them in November 2026. They change; a setting wins over them.
PRICES = {
    "gpt-4o": Price(2.5, 10, 1.25),
    "gpt-4o-2024-05-13": Price(5, 15),
    "gpt-4o-mini": Price(0.15, 0.6, 0.075),
    "gpt-4.1": Price(2, 8, 0.5),
    "gpt-4.1-mini": Price(0.4, 1.6, 0.1),
    "gpt-4.1-nano": Price(0.1, 0.4, 0.025),
    "o3": Price(2, 8, 0.5),
    "o4-mini": Price(1.1, 4.4, 0.275),
    "gpt-5": Price(1.25, 10, 0.125),
    "gpt-5-mini": Price(0.25, 2, 0.025),
    "gpt-5-nano": Price(0.05, 0.4, 0.005),
    "gpt-5.4": Price(2.5, 15, 0.25),
    "gpt-5.4-mini": Price(0.75, 4.5, 0.075),
    "gpt-5.5": Price(5, 30, 0.5),
}
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def price_of(model: str, server: str | None = None) -> Price | None:
    """The list price of a model at a server's base URL (None: the OpenAI API); None where it is not known.

    The table above goes by the name alone, a dated one standing for its family. Other models are looked up in the
    ``genai-prices`` package, which has its data in it: by the server too, since one model costs differently at
    different providers, and nothing at a server of one's own. Where a price rises with the length of a prompt, it is
    the lowest.
    """
    name = model.rpartition("/")[2]
    return PRICES.get(name) or PRICES.get(_DATE.sub("", name)) or _by_genai_prices(model, server or OPENAI)


@lru_cache
def _by_genai_prices(model: str, server: str) -> Price | None:
    import genai_prices  # here: 0.15 s, which a run with a known model need not wait

    def dollars(**tokens: int) -> float:
        """Of a thousand tokens, as dollars a million."""
        usage = genai_prices.Usage(**tokens)
        return float(genai_prices.calc_price(usage, model, provider_api_url=server).total_price * 1000)

    try:
        listed = genai_prices.calc_price(genai_prices.Usage(), model, provider_api_url=server).model_price
        if listed.input_mtok is None or listed.output_mtok is None:  # billed by the picture or the second
            return None
        cached = dollars(input_tokens=1000, cache_read_tokens=1000) if listed.cache_read_mtok is not None else None
        return Price(dollars(input_tokens=1000), dollars(output_tokens=1000), cached)
    except LookupError:  # no such provider, or no such model of it
        return None


# --- tokens before they are counted -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tiles:
    """Tokens of a picture cut into 512 x 512 tiles, after it was scaled into 2048 x 2048 and to a short side of 768."""

    base: int
    tile: int

    def of(self, width: int, height: int) -> int:
        scale = min(1.0, 2048 / max(width, height))
        scale *= min(1.0, 768 / (min(width, height) * scale))
        across, down = (math.ceil(side * scale / 512) for side in (width, height))
        return self.base + self.tile * across * down


@dataclass(frozen=True)
class _Patches:
    """Tokens of a picture cut into patches, ``limit`` of them at most."""

    side: int
    limit: int
    factor: float = 1.0

    def of(self, width: int, height: int) -> int:
        patches = math.ceil(width / self.side) * math.ceil(height / self.side)
        return math.ceil(min(patches, self.limit) * self.factor)


_PICTURES: tuple[tuple[str, _Tiles | _Patches], ...] = (  # by the beginning of the model's name
    ("gpt-4o-mini", _Tiles(2833, 5667)),
    ("gpt-4o", _Tiles(85, 170)),
    ("gpt-4.1-mini", _Patches(32, 1536, 1.62)),
    ("gpt-4.1-nano", _Patches(32, 1536, 2.46)),
    ("gpt-4.1", _Tiles(85, 170)),
    ("o4-mini", _Patches(32, 1536, 1.72)),
    ("o3", _Tiles(75, 150)),
    ("gpt-5-mini", _Patches(32, 1536, 1.62)),
    ("gpt-5-nano", _Patches(32, 1536, 2.46)),
    ("gpt-5", _Tiles(70, 140)),
)
_ANY = _Patches(28, 16_384)  # Qwen2-VL's own; for models whose rule is not known


def image_tokens(model: str, width: int, height: int) -> int:
    """About how many prompt tokens a picture of this size comes to."""
    name = model.rpartition("/")[2]
    return next((rule for start, rule in _PICTURES if name.startswith(start)), _ANY).of(width, height)


def prompt_tokens(request: ChatRequest, model: str, bytes_a_token: float = 3.5) -> int:
    """About how many tokens a request's prompt comes to: its UTF-8 bytes, and its pictures.

    English has four bytes a token, Chinese three to four, formulas two to three. ``bytes_a_token=1`` gives what no
    tokenizer can exceed, for the text.
    """
    text, pictures = 0, 0
    for message in request.messages:
        content: Any = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                text += len(part["text"].encode("utf-8", "replace"))
            elif part["type"] == "image_url":
                pictures += image_tokens(model, *picture_of(part["image_url"]["url"]).size)
    return math.ceil(text / bytes_a_token) + pictures + 16 * len(request.messages)


def most_it_can_cost(request: ChatRequest, model: str, price: Price) -> float:
    """Dollars, if every byte of the prompt were a token and every answer as long as it may be."""
    most = Usage(prompt_tokens(request, model, bytes_a_token=1), request.max_tokens * request.n)
    return price.of(most)
