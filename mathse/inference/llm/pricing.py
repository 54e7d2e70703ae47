"""Dollars per token, and an upper bound of the cost of a request before it is sent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mathse.inference.llm.chat import ChatRequest, Usage
from mathse.inference.llm.images import picture_of

BATCH_DISCOUNT = 0.5  # factor of the Batch API's prices
MILLION = 1_000_000
OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens. ``cached``: for prompt tokens in the server's prompt cache; None: as ``input``."""

    input: float
    output: float
    cached: float | None = None

    def of(self, usage: Usage) -> float:
        """Return the price of an answer, dollars."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.completion_tokens * self.output) / MILLION


# OpenAI's list prices in November 2026, from several public tables. They change; a setting overrides them.
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
    """Return the list price of a model; None if it is not known.

    The table above is searched by the model's name without its date. Other models are looked up by name and server in
    the ``genai-prices`` package, which needs no network: providers have different prices for the same model, and a
    server of your own has none. If a price rises with the length of a prompt, the lowest is returned.

    Args:
        model: the server's name of the model.
        server: its base URL; None: the OpenAI API.
    """
    name = model.rpartition("/")[2]
    return PRICES.get(name) or PRICES.get(_DATE.sub("", name)) or _by_genai_prices(model, server or OPENAI_URL)


@lru_cache
def _by_genai_prices(model: str, server: str) -> Price | None:
    import genai_prices  # takes 0.15 s, which a run with a known model saves

    def dollars(**tokens: int) -> float:
        """Return the price of a thousand tokens as dollars per million."""
        usage = genai_prices.Usage(**tokens)
        return float(genai_prices.calc_price(usage, model, provider_api_url=server).total_price * 1000)

    try:
        listed = genai_prices.calc_price(genai_prices.Usage(), model, provider_api_url=server).model_price
        if listed.input_mtok is None or listed.output_mtok is None:  # billed per picture or per second
            return None
        cached = None
        if listed.cache_read_mtok is not None:
            cached = dollars(input_tokens=1000, cache_read_tokens=1000)
        return Price(dollars(input_tokens=1000), dollars(output_tokens=1000), cached)
    except LookupError:  # unknown provider, or unknown model of the provider
        return None


# --- estimates of tokens ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tiles:
    """Tokens of a picture that is scaled into 2048 x 2048 and to a short side of 768, then cut into 512 x 512 tiles."""

    base: int
    tile: int

    def of(self, width: int, height: int) -> int:
        scale = min(1.0, 2048 / max(width, height))
        scale *= min(1.0, 768 / (min(width, height) * scale))
        across, down = (math.ceil(side * scale / 512) for side in (width, height))
        return self.base + self.tile * across * down


@dataclass(frozen=True)
class _Patches:
    """Tokens of a picture that is cut into at most ``limit`` patches."""

    side: int
    limit: int
    factor: float = 1.0

    def of(self, width: int, height: int) -> int:
        patches = math.ceil(width / self.side) * math.ceil(height / self.side)
        return math.ceil(min(patches, self.limit) * self.factor)


_PICTURES: tuple[tuple[str, _Tiles | _Patches], ...] = (  # by the first prefix of the model's name that matches
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
_OTHER = _Patches(28, 16_384)  # Qwen2-VL's rule, used for models with an unknown rule


def image_tokens(model: str, width: int, height: int) -> int:
    """Estimate the prompt tokens of a picture of ``width`` x ``height`` pixels."""
    name = model.rpartition("/")[2]
    rule = next((rule for prefix, rule in _PICTURES if name.startswith(prefix)), _OTHER)
    return rule.of(width, height)


def prompt_tokens(request: ChatRequest, model: str, bytes_a_token: float = 3.5) -> int:
    """Estimate the tokens of a request's prompt from its UTF-8 bytes and its pictures.

    English has four bytes per token, Chinese three to four, formulas two to three. ``bytes_a_token=1`` gives an upper
    bound for any tokenizer's text tokens.
    """
    text, pictures = 0, 0  # bytes, tokens
    for message in request.messages:
        content: Any = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                text += len(part["text"].encode("utf-8", "replace"))
            elif part["type"] == "image_url":
                pictures += image_tokens(model, *picture_of(part["image_url"]["url"]).size)
    return math.ceil(text / bytes_a_token) + pictures + 16 * len(request.messages)  # 16 for the marks of a message


def bound_cost(request: ChatRequest, model: str, price: Price) -> float:
    """Return the cost, in dollars, of a prompt with one token per byte and of answers with the maximal length."""
    most = Usage(prompt_tokens(request, model, bytes_a_token=1), request.max_tokens * request.n)
    return price.of(most)
