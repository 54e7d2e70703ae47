from __future__ import annotations

from pathlib import Path

import pytest
from small import tiny_backbone

from evaluation.cases import draw_pictures, verse_row, vision_row, vista_row, write_rows


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student with random weights."""
    folder = tmp_path_factory.mktemp("student") / "checkpoint"
    tiny_backbone().save(folder)
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six problems of each benchmark as ``mathvista.jsonl``, ``mathvision.jsonl``, ``mathverse.jsonl``, and their
    pictures."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, row in (("mathvista", vista_row), ("mathvision", vision_row), ("mathverse", verse_row)):
        write_rows(folder / f"{name}.jsonl", [row(k) for k in range(1, 7)])
    draw_pictures(folder, 6)
    return folder
