"""What generator=vllm and judge.engine=vllm promise, on real vLLM: this process's answers, through swaps and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small import picture, problems

from mathse.config.backbones import TinyBackbone as Section
from mathse.inference.rows import solve_row
from mathse.inference.serving.student import ServedStudents
from mathse.inference.serving.vllm_engine import VLLMEngine
from mathse.models import load
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone

pytestmark = pytest.mark.vllm
Open = Callable[..., ServedStudents]


SIZES = Section(hidden_size=64, layers=2, heads=2, mlp_size=128, vision_size=32)  # heads of 32, which vLLM takes


def checkpoint(folder: Path, seed: int) -> Path:
    TinyBackbone(SIZES, init_seed=seed).save(folder)
    return folder


def rows(count: int) -> list[Row]:
    asked = [solve_row("compact", problem) for problem in problems(count)]
    asked.append(Row(question="What is 3 plus 4?", images=()))
    asked.append(Row(question="Which is larger?", images=[picture(56, 84), picture(140, 28, seed=1)]))
    asked.append(Row(question="And now?", images=[picture(28, 28)], history=[("What is it?", "It is 4.")]))
    return asked


def engine_pids(engine: VLLMEngine) -> list[int]:
    """The processes of the engine: the server and what it started."""
    assert engine._process is not None and engine._process.child is not None
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines()[1:]:
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    found, look = [], [engine._process.child.process.pid]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += below
    return found


def test_one_engine_answers_as_each_checkpoint_through_swaps_and_kills(students: Open, tmp_path: Path) -> None:
    served, asked = students(Section()), rows(12)
    engine = served.engine
    assert isinstance(engine, VLLMEngine)
    for round_number, seed in enumerate((1, 2, 1)):
        folder = tmp_path / f"checkpoint_{seed}"
        if not folder.exists():
            checkpoint(folder, seed)
        local = load("tiny", folder)
        student = served.of(folder, lambda folder=folder: load("tiny", folder))  # type: ignore[misc]
        limits = {"max_new_tokens": 16 + round_number}  # so that nothing comes from the disk
        assert student.generate(asked, **limits) == local.generate(asked, **limits)
    log = engine._log.read_text()
    assert log.count("Reloading and processing weights took") >= 2

    drawn = student.generate(asked, max_new_tokens=8, n=3, temperature=1.0, seed=7)
    assert [len(texts) for texts in drawn] == [3] * len(asked) and any(len(set(texts)) > 1 for texts in drawn)

    # killed in the middle of a stage
    pids = engine_pids(engine)
    killing = threading.Timer(0.5, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids])
    killing.start()
    longer = {"max_new_tokens": 200}
    assert student.generate(asked, **longer) == local.generate(asked, **longer)
    killing.join()
    time.sleep(0.1)
    assert student.generate(asked, max_new_tokens=201) == local.generate(asked, max_new_tokens=201)
    assert not set(engine_pids(engine)) & set(pids)  # another engine
