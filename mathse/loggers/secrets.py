"""What a dashboard must not be told of a run's settings: keys, and addresses or commands with keys in them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

NAMES = ("key", "token", "secret", "password", "passwd", "credentials", "authorization")  # how such settings end
HIDDEN = "***"
SHORTEST = 8  # characters of an environment variable's value that is looked for in texts

_WORD = rf"[\w-]*(?:{'|'.join(NAMES)})"
_PATTERNS = (
    (re.compile(r"(?<=://)[^/\s@]+@"), ""),  # user:password@host
    # ?api_key=..., API_KEY='...' vllm serve, {"api_key": "..."}, X-Api-Key: ...
    (re.compile(rf"({_WORD}['\"]?\s*[=:]\s*['\"]?(?:basic\s+)?)(?!bearer\b)[^&\s'\"]+", re.I), rf"\1{HIDDEN}"),
    (re.compile(rf"(--{_WORD}\s+['\"]?)[^\s'\"]+", re.I), rf"\1{HIDDEN}"),  # --api-key ...
    (re.compile(r"\b(bearer\s+)[^\s'\"]+", re.I), rf"\1{HIDDEN}"),
)


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` without the settings, at any depth, whose names say that they hold a secret; in texts, what stands
    where an address or a command has one is blotted out, and so is the value of every environment variable that a
    setting called ``..._env`` names, or whose own name says that it holds a secret."""
    of_environment = [v for k, v in os.environ.items() if k.lower().endswith(NAMES) and len(v) >= SHORTEST]
    cleaned: dict[str, Any] = _cleaned(config, _named_values(config) + of_environment)
    return cleaned


def _cleaned(value: Any, known: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {k: _cleaned(v, known) for k, v in value.items() if not str(k).lower().endswith(NAMES)}
    if isinstance(value, (list, tuple)):
        return [_cleaned(v, known) for v in value]
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, HIDDEN)
        for pattern, instead in _PATTERNS:
            value = pattern.sub(instead, value)
    return value


def _named_values(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [secret for item in value for secret in _named_values(item)]
    if not isinstance(value, Mapping):
        return []
    named = [os.environ.get(v, "") for k, v in value.items() if str(k).endswith("_env") and isinstance(v, str)]
    return [v for v in named if len(v) >= SHORTEST] + [s for item in value.values() for s in _named_values(item)]
