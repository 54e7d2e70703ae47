from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import KEY, MODEL, ApiServer

from mathse.inference.llm import faults
from mathse.inference.llm.client import ChatClient, ChatRequest

NewClient = Callable[..., ChatClient]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key in its place, and waits between tries that suit a test."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(faults, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def connect(api: ApiServer, tmp_path: Path) -> NewClient:
    """A client of the server, its cache in the test's folder."""

    def new(**how: Any) -> ChatClient:
        return ChatClient(
            **{"base_url": api.url, "model": MODEL, "cache_dir": tmp_path / "cache", "timeout": 5.0, **how}
        )

    return new


def row(number: int, **how: Any) -> ChatRequest:
    """A request that says which it is."""
    return ChatRequest([{"role": "user", "content": f"row {number}"}], **{"prompt_version": "solve/1", **how})


def rows(count: int, **how: Any) -> list[ChatRequest]:
    return [row(k, **how) for k in range(count)]


def number_of(text: str) -> int:
    """Which row a server's text is about."""
    return int(text.rsplit(maxsplit=1)[-1])
