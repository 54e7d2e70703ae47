"""Rows, outputs and an LLM by script, shared by the tests of the benchmarks."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def outputs(folder: Path, ending: str) -> dict[str, Path]:
    """Real models' outputs below ``folder`` that come with published results: name -> outputs file."""
    return {
        file.name.removesuffix(ending): file.with_name(f"{file.name.removesuffix(ending)}.jsonl.gz")
        for file in sorted(folder.glob(f"*{ending}"))
    }


def rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        pytest.skip(f"needs {file}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write(file: Path, content: Sequence[dict[str, Any]]) -> Path:
    """JSON lines, and a picture for each row that names one."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
    for row in content:
        if row.get("image"):
            picture = file.parent / row["image"]
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), "white").save(picture)
    return file


class Scripted:
    """An LLM with prepared replies, which records its prompts."""

    model = "scripted"

    def __init__(self, say: Callable[[str], str | None] | str | None) -> None:
        self.say = say if callable(say) else lambda prompt: say
        self.asked: list[tuple[str, str]] = []

    def ask(self, prompts: Sequence[str], version: str, max_tokens: int) -> list[str | None]:
        self.asked += [(version, prompt) for prompt in prompts]
        return [self.say(prompt) for prompt in prompts]


def vista_row(**changes: Any) -> dict[str, Any]:
    return {
        "pid": "1", "question": "How many?", "image": "images/1.png", "choices": None, "unit": None, "precision": None,
        "answer": "3", "question_type": "free_form", "answer_type": "integer",
        "metadata": {"split": "testmini", "language": "english", "source": "IconQA", "category": "math-targeted-vqa",
                     "task": "math word problem", "context": "abstract scene", "grade": "not applicable",
                     "skills": ["arithmetic reasoning", "numeric commonsense"]},
    } | changes  # fmt: skip


def choice_row(*choices: str, **changes: Any) -> dict[str, Any]:
    kind = {"question_type": "multi_choice", "answer_type": "text", "choices": list(choices), "answer": choices[0]}
    return vista_row(**kind | changes)


def vision_row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "1", "question": "Which?\n<image1>", "options": ["A", "B", "C", "D", "E"], "answer": "B",
        "solution": None, "level": 2, "subject": "arithmetic", "image": "images/1.png",
    } | changes  # fmt: skip


def verse_row(**changes: Any) -> dict[str, Any]:
    return {
        "sample_index": "1", "problem_index": "1", "problem_version": "Text Dominant", "question": "Find x.",
        "image": "images_version_1-4/image_1.png", "answer": "14", "question_type": "free-form",
        "metadata": {"split": "testmini", "source": "GeoQA", "subject": "Plane Geometry", "subfield": "Angle"},
    } | changes  # fmt: skip
