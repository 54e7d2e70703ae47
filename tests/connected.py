"""Real ranks for tests: processes that are forked from the test's own, and connected."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

import torch

from mathse.training import ranks

STUCK = 180  # seconds after which a test would rather fail than wait


def in_ranks(size: int, lead: Callable[[], Any], minutes: float = STUCK / 60) -> Any:
    """What ``lead`` returns on rank 0 of ``size`` connected processes, the others of which follow; its exception,
    where it raises one. ``minutes``: as trainer.timeout_minutes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    children, (reading, writing) = [], os.pipe()
    for rank in range(size):
        if (child := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os._exit(
                _as_rank(
                    lead if rank == 0 else lambda: ranks.current().follow(),
                    size,
                    writing if rank == 0 else None,
                    minutes,
                )
            )
        children.append(child)
    os.close(writing)
    watch = threading.Timer(STUCK, lambda: [os.kill(child, signal.SIGKILL) for child in children])
    watch.start()
    try:
        with os.fdopen(reading, "rb") as pipe:
            return pickle.load(pipe)  # noqa: S301 - of this very test; an EOFError: the ranks were stuck
    finally:
        for child in children:
            os.waitpid(child, 0)
        watch.cancel()


def _as_rank(work: Callable[[], Any], size: int, pipe: int | None, minutes: float) -> int:
    result: Any
    # The first thread of a forked process that computes replaces torch's pool, and a second one beside it may see none
    # ("Invalid thread pool!"): transformers reads weights in several threads.
    torch.set_num_threads(1)
    try:
        with ranks.join("cpu", size, minutes):
            result = work()
    except Exception as e:  # noqa: BLE001 - told to the test
        traceback.print_exc()
        result = e
    if pipe is not None:
        with os.fdopen(pipe, "wb") as file:
            pickle.dump(result, file)
    return int(isinstance(result, Exception))
