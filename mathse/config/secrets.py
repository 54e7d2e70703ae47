"""Keys in settings: what a command line and a config must not have, and what no page and no dashboard is told."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

NAMES = ("key", "token", "secret", "password", "passwd", "credentials", "authorization")  # how such settings end
HIDDEN = "***"
SHORTEST = 8  # characters of an environment variable's value that is looked for in texts
KEY_PLACE = "a key belongs into the environment"

_WORD = rf"(?P<name>[\w-]*(?:{'|'.join(NAMES)}))"
_PATTERNS = (
    (re.compile(r"(?<=://)[^/\s@]+@"), ""),  # user:password@host
    # ?api_key=..., API_KEY='...' vllm serve, {"api_key": "..."}, X-Api-Key: ...
    (
        re.compile(rf"({_WORD}['\"]?\s*[=:]\s*['\"]?(?:basic\s+)?)(?!bearer\b)(?P<value>[^&\s'\"]+)", re.I),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"(--{_WORD}\s+['\"]?)(?P<value>[^\s'\"]+)", re.I), rf"\1{HIDDEN}"),  # --api-key ...
    (re.compile(r"\b(bearer\s+)(?P<value>[^\s'\"]+)", re.I), rf"\1{HIDDEN}"),
    # keys that are known by how they begin: OpenAI's and others', the hub's, GitHub's
    (re.compile(r"(?<![\w/.-])(?:sk-(?:\w+-)*(?=\w*\d|\w{16})\w{10,}[\w-]*|(?:hf|gh[a-z])_[A-Za-z0-9]{20,})"), HIDDEN),
)
_DOUBTFUL = re.compile(r"(?!.*api)[a-z_-]*(?:key|token)")  # sort_key, eos_token: as likely no secret
_ORDINARY = re.compile(r"\D*|[\W\d]*")  # a word or a number


def holds_secret(text: str) -> bool:
    """Whether there is a key or a password in ``text``: an argument KEY=VALUE, a command, an address.

    ``$NAME`` is none, as it is filled in later, and neither are ``sort_key=length`` and ``{"eos_token": 2}``.
    """
    return any(_is_secret(match) for pattern, _ in _PATTERNS for match in pattern.finditer(text))


def explain_secret(setting: str) -> str:
    """The sentence that refuses a setting with a secret in it, without the secret."""
    section, _, name = setting.rpartition(".")
    if name == "api_key_env":
        return f"{setting}: must be the name of an environment variable, such as OPENAI_API_KEY; {KEY_PLACE}"
    if name == "command":
        return (
            f"{setting}: holds a key, which run.json would show; leave it out and export it before starting: the "
            f"started server inherits the environment (vLLM reads VLLM_API_KEY, to be named in {section}.api_key_env)"
        )
    return f"{setting}: holds a key or a password, which run.json would show; leave it out: {KEY_PLACE}"


def remove_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` without the settings, at any depth, whose names say that they hold a secret; in texts, what stands
    where an address or a command has one is blotted out, and so is the value of every environment variable that a
    setting called ``..._env`` names, or whose own name says that it holds a secret."""
    of_environment = [v for k, v in os.environ.items() if k.lower().endswith(NAMES) and len(v) >= SHORTEST]
    cleaned: dict[str, Any] = _cleaned(config, _named_values(config) + of_environment)
    return cleaned


def _is_secret(match: re.Match[str]) -> bool:
    parts = match.groupdict()
    value = parts.get("value") or match[0]
    if value.startswith("$"):
        return False
    return not (_DOUBTFUL.fullmatch(parts.get("name") or "") and _ORDINARY.fullmatch(value))


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
