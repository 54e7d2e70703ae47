"""A process that asks N rows of a server: python asks.py URL CACHE RUN N MODE TIMEOUT; what tests kill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mathse.inference.llm import faults
from mathse.inference.llm.client import ChatClient, ChatRequest


def client_of(url: str, cache: str, run: str, mode: Any, timeout: float = 1.5) -> ChatClient:
    client = ChatClient(url, "gpt-4o-2024-08-06", cache_dir=cache, mode=mode, poll_seconds=0.05, timeout=timeout)
    client.account_in(Path(run))
    return client


if __name__ == "__main__":
    url, cache, run, count, mode, timeout = sys.argv[1:]
    faults.FIRST_WAIT_SECONDS = 0.01
    requests = [
        ChatRequest([{"role": "user", "content": f"row {k}"}], prompt_version="solve/1") for k in range(int(count))
    ]
    replies = client_of(url, cache, run, mode, float(timeout)).complete(requests)
    print(len(replies))
