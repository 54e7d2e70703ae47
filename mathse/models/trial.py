"""A tokenizer and a chat template are tried in another process before this one uses them.

Both are programs that came with a checkpoint: a template has loops and makes texts of any length, a tokenizer has
regular expressions. jinja2's sandbox bounds neither time nor memory, and a thread cannot be stopped in either. So a
short-lived process with limits of the operating system uses them first (``trial_worker``); what exceeds the limits
there is refused, in a sentence.

A template that does harm only at a text of its own choosing gets past a trial.
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

CPU_SECONDS = 20  # a tokenizer of 260,000 tokens takes 3
WALL_SECONDS = 180  # on a machine with much else to do
MEMORY_BYTES = 4 * 2**30  # of address space
WORKER = Path(__file__).with_name("trial_worker.py")


def try_tokenizer(folder: Path) -> None:
    """Raise CheckpointError unless tokenizer.json of a checkpoint folder, where there is one, encodes some texts."""
    file = folder / "tokenizer.json"
    if file.is_file():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if reason := _trial("tokenizer", str(file), digest):
            raise CheckpointError(f"{file} cannot be used ({reason}); fetch it again")


def try_template(name: str | Path, template: str) -> None:
    """Raise CheckpointError unless a chat template renders some conversations; ``name``: of its folder or file."""
    if reason := _trial("template", template, ""):
        raise CheckpointError(f"{name}: its chat template cannot be rendered ({reason}); fetch it again")


_reasons: dict[tuple[str, str], str | None] = {}  # of what was tried in this process


def _trial(kind: str, value: str, digest: str) -> str | None:
    """Why it cannot be used; None where it can. The same content is tried once a process."""
    key = (kind, digest or value)
    if key not in _reasons:
        _reasons[key] = _run({kind: value, "seconds": CPU_SECONDS, "bytes": MEMORY_BYTES})
    return _reasons[key]


def _run(task: dict[str, Any]) -> str | None:
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
    if done.returncode < 0:  # a signal: SIGXCPU, or SIGKILL and SIGABRT where memory ran out
        return f"it takes more than {task['seconds']} seconds or {task['bytes'] / 2**30:g} GiB of memory"
    last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"])[-1]
    if "MemoryError" in last:
        return f"it takes more than {task['bytes'] / 2**30:g} GiB of memory"
    return last[:300]
