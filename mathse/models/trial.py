"""Try a checkpoint's tokenizer and chat template in another process before this process uses them.

Both are programs that came with a checkpoint: a template has loops and can write texts of any length, a tokenizer has
regular expressions. jinja2's sandbox limits neither time nor memory, and a thread cannot be stopped in either. So a
short-lived process with limits of the operating system uses them first (``trial_worker``). If it exceeds the limits,
the checkpoint is refused.

A template that does harm only for a particular text passes the trial.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mathse.errors import CheckpointError

CPU_SECONDS = 20  # a tokenizer of 260,000 tokens needs 3
WALL_SECONDS = 180  # allows for other load on the machine
MEMORY_BYTES = 4 * 2**30  # of address space
WORKER = Path(__file__).with_name("trial_worker.py")


def try_tokenizer(folder: Path) -> None:
    """Raise CheckpointError if a checkpoint folder has a tokenizer.json that cannot encode some texts."""
    file = folder / "tokenizer.json"
    if file.is_file():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if reason := _find_fault("tokenizer", str(file), digest):
            raise CheckpointError(f"{file} cannot be used ({reason}); fetch it again")


def try_template(name: str | Path, template: str) -> None:
    """Raise CheckpointError unless a chat template renders some conversations; ``name`` is its folder or file."""
    if reason := _find_fault("template", template, ""):
        raise CheckpointError(f"{name}: its chat template cannot be rendered ({reason}); fetch it again")


_faults: dict[tuple[str, str], str | None] = {}  # (kind, content) -> result of an earlier trial in this process


def _find_fault(kind: str, value: str, digest: str) -> str | None:
    """Return why a program cannot be used; None if it can. Equal contents are tried once in a process."""
    key = (kind, digest or value)
    if key not in _faults:
        _faults[key] = _run_worker({kind: value, "seconds": CPU_SECONDS, "bytes": MEMORY_BYTES})
    return _faults[key]


def _run_worker(task: dict[str, Any]) -> str | None:
    command = [sys.executable, "-P", str(WORKER)]
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, input=json.dumps(task).encode(), capture_output=True, env=environment, timeout=WALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {WALL_SECONDS} seconds"
    if done.returncode == 0:
        return None
    if done.returncode < 0:  # a signal: SIGXCPU, or SIGKILL and SIGABRT if memory ran out
        return f"it takes more than {task['seconds']} seconds or {task['bytes'] / 2**30:g} GiB of memory"
    last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"])[-1]
    if "MemoryError" in last:
        return f"it takes more than {task['bytes'] / 2**30:g} GiB of memory"
    return last[:300]
