"""Evaluations for tests: benchmark files of a few rows, the real task in this process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from PIL import Image, ImageDraw

from mathse.config import evaluation, parse
from mathse.config.options import CONF
from mathse.config.register import register
from mathse.config.schema import EvaluateConfig
from mathse.evaluation.benchmark import LLM, RULE, Extraction, Item, Scored
from mathse.evaluation.benchmarks import math_verifier, mathvision
from mathse.evaluation.benchmarks.mathvision import MathVision
from mathse.evaluation.grading import GradedAnswer
from mathse.evaluation.predictions import Answer
from mathse.evaluation.task import evaluate
from mathse.runs.store import read_json, read_jsonl
from mathse.types import Problem

# The smallest backbone and the smallest world; nothing is learnt.
TINY = (
    "progress=off",
    *(f"backbone.{size}" for size in ("hidden_size=32", "layers=1", "heads=2", "mlp_size=64", "vision_size=16")),
    "evaluation.max_new_tokens=4",
    "evaluation.batch_size=3",
    "generator.max_new_tokens=4",
    "generator.batch_size=2",
    *(f"data.{split}=4" for split in ("seed_size", "pool", "dev", "orm_train", "orm_held")),
    "data.test=7",
)


def configured(*settings: str) -> EvaluateConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse(compose("evaluate", overrides=list(settings)), EvaluateConfig)


def run(folder: Path, *settings: str) -> float | None:
    """Run evaluate.py in this process and return its result."""
    return evaluate(configured("progress=off", *settings), folder)


def leave_scoring_processes() -> None:
    """Before a fork: a process and its copy must not talk to the same scoring process."""
    for workers in (mathvision._workers(), math_verifier._workers()):
        workers.close()


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def rows(file: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(file))


def metrics(folder: Path, benchmark: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / benchmark / "metrics.json")
    return found


def vista_row(number: int, **other: Any) -> dict[str, Any]:
    """A row in MathVista's form with its number as answer."""
    row = {
        "pid": str(number),
        "question": f"How many dots are in picture {number}?",
        "image": f"images/{number}.png",
        "choices": None,
        "unit": None,
        "precision": None,
        "answer": str(number),
        "question_type": "free_form",
        "answer_type": "integer",
        "metadata": {"task": "geometry problem solving", "skills": ["arithmetic reasoning"], "language": "english"},
    }
    return {**row, **other}


def vision_row(number: int, **other: Any) -> dict[str, Any]:
    """A row in MATH-Vision's form with its number as answer."""
    row = {
        "id": str(number),
        "question": f"What is the number of dots in picture {number}?\n<image1>",
        "options": [],
        "answer": str(number),
        "solution": None,
        "level": 1 + number % 2,
        "subject": "counting",
        "image": f"images/{number}.png",
    }
    return {**row, **other}


def verse_row(number: int, **other: Any) -> dict[str, Any]:
    """A row in MathVerse's form with its number as answer."""
    row = {
        "sample_index": str(number),
        "problem_index": str(number),
        "problem_version": "Text Lite",
        "question": f"Find the length of side {number}.",
        "image": f"images/{number}.png",
        "answer": str(number),
        "question_type": "free-form",
        "metadata": {"subject": "Plane Geometry", "subfield": "Length"},
    }
    return {**row, **other}


def draw_pictures(folder: Path, count: int) -> None:
    """``images/1.png`` ... below ``folder``: a triangle each, all different."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for k in range(1, count + 1):
        image = Image.new("RGB", (84, 84), "white")
        corners = [(5 + 3 * k, 70), (75, 60 - 4 * k), (20, 10 + 5 * k)]
        ImageDraw.Draw(image).polygon(corners, outline="black", width=2)
        image.save(folder / "images" / f"{k}.png")


class Lenient(MathVision):
    """A benchmark of somebody's own: any answer that holds the reference is right."""

    def __init__(self, prompt: Any = "plain", case: bool = True) -> None:
        super().__init__(evaluation.MathVision(prompt=prompt))
        self.case = case

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None = None) -> list[Extraction]:
        return [
            Extraction(item.problem.answer if item.problem.answer in response else "")
            for item, response in zip(items, responses, strict=True)
        ]


def item(identity: str, answer: str = "1", **problem: Any) -> Item:
    return Item(Problem(identity, f"Question {identity}?", answer=answer, **problem), {}, "asked")


def graded(
    prediction: str | None, correct: bool | None = True, p: float | None = None, sample: int = 0
) -> GradedAnswer:
    """An answer to problem "1" that says ``prediction``."""
    scored = Scored("1", f"says {prediction}", prediction, prediction, "1", correct, RULE)
    return GradedAnswer(item("1"), Answer("1", scored.response, sample), scored, scored, None, False, p)
