"""A run folder over own problems of every kind that an export must carry, and its export; the paths are made up."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from run_builder import write_stage
from small import picture

from mathse.__main__ import main
from mathse.config.data import JsonlDataConfig
from mathse.config.schema import TrainConfig
from mathse.evolution.state import Judged
from mathse.runs.store import write_json, write_jsonl
from mathse.types import Lineage, ReasoningPath, Verdict

PROBLEMS: list[dict[str, Any]] = [
    {"id": "one", "question": "Find x.", "images": ["a.png"], "answer": "B", "choices": ["12", "13"]},
    {"id": "two", "question": "Which is larger?", "images": ["a.png", "b.jpg"], "answer": "7"},
    {"id": "text", "question": "What is 2 + 2?", "images": [], "answer": "4"},
    {"id": "zh", "question": "如图,求三角形的面积。", "images": ["b.jpg"], "answer": "6"},
    {"id": "turned", "question": "How many?", "images": ["turned.jpg"], "answer": "1"},
    {"id": "clear", "question": "How tall?", "images": ["clear.png"], "answer": "2"},
    {"id": "mark", "question": "What stands for <image> and <|image_pad|>?", "images": ["a.png"], "answer": "3"},
]
ORIGINS: dict[str, tuple[Any, str]] = {"one": ("teacher", "distill"), "zh": ("reflection", "reflection")}


@dataclass(frozen=True)
class OwnRun:
    folder: Path
    problems: Path
    pictures: Path


def own_run(place: Path, family: str = "qwen2vl", **orm: Any) -> OwnRun:
    """A run in ``place`` whose student and ORM are of ``family``; ``orm``: settings of the ORM."""
    run, data = place / "run", place / "data"
    data.mkdir(parents=True)
    _write_pictures(data)
    write_jsonl(data / "problems.jsonl", PROBLEMS)
    paths = [_path(row["id"]) for row in PROBLEMS]
    config = asdict(TrainConfig())
    config["data"] = {**asdict(JsonlDataConfig()), "path": str(data / "problems.jsonl"), "seed": 0}
    config["backbone"] = {"_target_": f"mathse.models.{family}.load"}
    config["orm"] |= orm
    write_json(run / "run.json", {"name": "own", "task": "evolve", "seed": 0, "config": config})
    write_jsonl(run / "final" / "train.jsonl", paths)
    write_jsonl(run / "orm" / "feedback.jsonl", [Judged(path, _label(path)) for path in paths])
    for stage in ("final", "orm"):
        write_stage(run / stage)
    return OwnRun(run, data / "problems.jsonl", data)


def _write_pictures(folder: Path) -> None:
    picture(84, 56, seed=1).save(folder / "a.png")
    picture(56, 84, seed=2).save(folder / "b.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: a quarter turn
    picture(84, 28, seed=3).save(folder / "turned.jpg", exif=turned)
    Image.new("RGBA", (56, 56), (255, 0, 0, 0)).save(folder / "clear.png")


def _path(problem_id: str) -> ReasoningPath:
    origin, stage = ORIGINS.get(problem_id, ("student", "round_01"))
    lineage = Lineage(origin, stage, "somebody", prompt="generate/full/en/1")
    text = f"Step 1: Look.\nStep 2: The answer to this problem is {problem_id}."
    return ReasoningPath(f"{stage}/{problem_id}/0", problem_id, text, lineage)


def _label(path: ReasoningPath) -> Verdict:
    if path.problem_id in ("two", "zh"):
        return Verdict(path.id, "wrong", "Step 2", "The answer is another.", judge="teacher")
    return Verdict(path.id, "correct", judge="teacher")


def export(run: Path, out: Path, *options: str) -> Path:
    assert main(["export", str(run), "--out", str(out), *options]) == 0
    return out


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
