"""Real vLLM: an environment of its own, whose program ``MATHSE_VLLM`` names (`make test-vllm` makes it)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mathse.config import build
from mathse.config.generators import VLLMGeneratorConfig
from mathse.config.schema import TrainerConfig
from mathse.inference.serving.student import ServedStudents

# Seeded requests with chunked prefill end the CPU build (0.32); nothing is compiled for tests of a minute.
OPTIONS = (
    "--enforce-eager --max-model-len 2048 --max-num-batched-tokens 65536"
    " --gpu-memory-utilization 0.1"  # of the CPU build: a share of this machine's memory
)


@pytest.fixture(scope="session")
def program() -> str:
    named = os.environ.get("MATHSE_VLLM", "vllm")
    if shutil.which(named) is None:
        pytest.skip("needs vLLM: `make test-vllm` installs it, or MATHSE_VLLM names its program")
    return named


@pytest.fixture
def students(program: str, tmp_path: Path) -> Iterator[Callable[..., ServedStudents]]:
    """``students(backbone section, **settings of the generator)``: of one engine, which ends with the test."""
    opened: list[ServedStudents] = []

    def open_students(section: Any, **settings: Any) -> ServedStudents:
        options = {"program": program, "options": OPTIONS, "cache_dir": str(tmp_path / "answers"), **settings}
        generator = build(VLLMGeneratorConfig(**options))
        opened.append(ServedStudents(generator, section, tmp_path, TrainerConfig(), print))
        return opened[-1]

    yield open_students
    for each in opened:
        each.engine.stop()
