from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import KEY, ApiServer, Body, text_of
from engine import Engine
from transformers.utils import logging

from mathse.llm import batch, online


def taught(body: Body) -> str:
    """A teacher who adds up all numbers it sees, and finds every path wrong at its first step."""
    text = text_of(body)
    if "improvement_suggestion" in text:
        word = {"status": "WRONG", "error_step": "Step 1", "error_analysis": "The sum is another one."}
        return json.dumps({**word, "improvement_suggestion": "Add again."})
    return f"Step 1: so.\nThe answer to this problem is {sum(map(int, re.findall(r'[0-9]', text))) % 10}."


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable_progress_bar()
    for module in (online, batch):
        monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The settings of a teacher behind an API."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ApiServer(taught) as api:
        yield ["teacher=openai", f"teacher.base_url={api.url}", f"teacher.cache_dir={tmp_path / 'taught'}"]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine
