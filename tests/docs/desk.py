"""A folder with everything that the pages' commands name, at its smallest; the commands are run in this process."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Sequence
from glob import glob
from pathlib import Path

import pytest
from e2e.runs import SIZES, WORLD
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from docs.pages import ROOT, program
from mathse.__main__ import main as mathse
from mathse.config import build
from mathse.config.data import SyntheticDataConfig
from mathse.data.images import png_bytes
from mathse.runs.store import write_jsonl

PAPER_SETS = ("mathvl", "geoqa_plus", "geometry3k", "chartqa", "unigeo", "multimath", "mavis", "math_puma", "mathv360k")
TRAIN = [
    *(size for size in SIZES if not size.startswith("experiment=")),
    "orm.references=true",  # as experiment=smoke has it
    "distill.judge=answer",  # an ORM of two steps accepts nothing
    "evolution.reflect.feedback=none",  # so that a run trains an ORM only where its judge is one
]
FEW = "data.test=8"  # of evaluate.py, which reads no other split of the built-in task


def small(name: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with sizes added under which every stage still runs. What a command says itself stays."""
    chosen = {argument.partition("=")[0].lstrip("+"): argument.partition("=")[2] for argument in arguments}
    benchmark = chosen.get("benchmark", "synthetic")
    if name == "train":
        sizes = list(TRAIN)
        if chosen.get("data", "synthetic") == "synthetic":
            sizes += WORLD
    else:  # a size that would change nothing is refused
        sizes = ["progress=off"]
        if "predictions" not in chosen and benchmark != "orm_test":
            sizes += ["evaluation.max_new_tokens=4", *([FEW] if benchmark == "synthetic" else [])]
        if "judge.checkpoint" in chosen or benchmark == "orm_test":
            sizes += ["judge.max_new_tokens=4"]
    if chosen.get("backbone", "tiny") != "tiny":
        sizes = [size for size in sizes if not size.startswith("backbone.")]
    return [*arguments, *(size for size in sizes if size.partition("=")[0] not in chosen)]


def execute(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """One command, with small sizes; its exit code."""
    name, arguments = program([path for word in words for path in sorted(glob(word)) or [word]])
    for key in ("MATHSE_TRACEBACK", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(key, "0")
    GlobalHydra.instance().clear()
    try:
        if name in ("train", "evaluate"):
            if "--help" not in arguments:
                arguments = small(name, arguments)
            return mathse([name, *arguments])
        if name.endswith(".py"):
            return script(ROOT / name, arguments, monkeypatch)
        if name:
            return mathse([name, *arguments])
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else 1
    raise ValueError(f"{' '.join(words)}: nothing here knows how to run it; say in the block's title why it is not run")


def script(file: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", [str(file), *arguments])
    runpy.run_path(str(file), run_name="__main__")
    return 0


def furnish(folder: Path) -> None:
    """The files that the pages name, in the forms that the pages describe."""
    world = build(SyntheticDataConfig(seed=5, seed_size=8, pool=30, test=8, dev=8, orm_train=8, orm_held=8))
    problems = list(world.splits()["pool"])
    (folder / "images").mkdir()
    own, labelled = [], []
    for number, problem in enumerate(problems):
        image = f"images/{number}.png"
        (folder / image).write_bytes(png_bytes(problem.images[0]))
        row = {"question": problem.question, "images": [image], "answer": problem.answer, "solution": problem.solution}
        own.append({"id": f"own/{number}", **row})
        for status, path in (("correct", problem.solution), ("wrong", "Step 1: no.")):
            labelled.append(
                {"id": f"{number}/{status}", "problem_id": f"p/{number}", **row, "path": path, "status": status}
            )
    write_jsonl(folder / "problems.jsonl", own)
    write_jsonl(folder / "labelled.jsonl", labelled[:8])
    write_jsonl(folder / "labelled_held.jsonl", labelled[8:16])
    geometry3k(folder / "geometry3k")
    (folder / "geo").mkdir()
    records(folder / "geometry3k_records")
    mathvision(folder)
    authors_files(folder)
    pair = {"question": "<image>\nFind x.", "image": "images/1.png", "answer_gt": "12"}
    pair |= {"chosen": "Look. Final answer: 12", "rejected": "Guess. Final answer: 3"}
    write_jsonl(folder / "pairs.jsonl", [pair])
    evaluations(folder)
    for name in ("DIR", "BASE", "CHECKPOINT"):  # what a reader has and we have not; only looked at, never opened
        (folder / name).mkdir()
        (folder / name / "config.json").write_text('{"model_type": "qwen2_vl"}')
    (folder / "mathvista.json").write_text("{}")
    for name in PAPER_SETS:  # as the two above
        (folder / "data" / name).mkdir(parents=True)


def geometry3k(folder: Path, count: int = 30) -> None:
    for number in range(count):
        place = folder / "train" / str(number)
        place.mkdir(parents=True)
        Image.new("RGB", (40, 40), (number * 8, 90, 200 - number * 5)).save(place / "img_diagram.png")
        question, choices = f"Find side {number} of the figure.", [str(number + k) for k in range(4)]
        record = {"problem_text": question, "choices": choices, "answer": "B", "id": number, "unit": "cm"}
        (place / "data.json").write_text(json.dumps(record), encoding="utf-8")


def records(folder: Path) -> None:
    folder.mkdir()
    Image.new("RGB", (40, 40), "white").save(folder / "1.png")
    record = {"id": 1, "problem_text": "Find x.", "choices": ["1", "2", "3", "4"], "answer": "B", "image_file": "1.png"}
    write_jsonl(folder / "records.jsonl", [record])


def mathvision(folder: Path) -> None:
    rows = [
        {"id": str(k), "question": f"How many dots are in picture {k}?\n<image1>", "options": [], "answer": str(k),
         "solution": None, "level": 1, "subject": "counting", "image": f"images/{k}.png"}
        for k in range(1, 4)
    ]  # fmt: skip
    write_jsonl(folder / "mathvision.jsonl", rows)
    write_jsonl(folder / "answers.jsonl", [{"id": str(k), "response": f"\\boxed{{{k}}}"} for k in range(1, 4)])


def authors_files(folder: Path) -> None:
    end = "The answer to this problem is"
    picture = ["images/1.png"]
    right = {"prompt": "<image>Find x.", "media": picture, "reasoning": f"Step 1: Look.\n{end} 12."}
    hard = {"prompt": "<image>\nFind y.", "media": picture, "answer": "3", "reasoning": f"Step 1: Guess.\n{end} 4."}
    revised = {
        "instruction": "Solve.",
        "input": "3 + 5?",
        "draft": "It is 9.",
        "reflection": "No.",
        "output": f"{end} 8.",
    }
    for name, row in {"sft_chosen": right, "hard_problems": hard, "reflection_sft": revised}.items():
        write_jsonl(folder / f"{name}.jsonl", [row])


def evaluations(folder: Path) -> None:
    """Two evaluations of the same answers, for what compares them."""
    from evaluation.cases import run

    settings = (f"benchmark.mathvision.problems={folder}/mathvision.jsonl", f"predictions={folder}/answers.jsonl")
    run(folder / "outputs" / "evaluate" / "a", "benchmark=mathvision", *settings)
    shutil.copytree(folder / "outputs" / "evaluate" / "a", folder / "outputs" / "evaluate" / "b")


def unfinish(runs: Path) -> None:
    """Takes the last stage away from every finished run below a folder, as if each had been killed before it."""
    for summary in runs.glob("*/summary.json"):
        summary.unlink()
        shutil.rmtree(summary.parent / "final")
