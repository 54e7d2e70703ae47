"""Two further domains from published records to a report: science with choices and diagrams, and charts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from mathse.commands.export.examples import read_sft_examples
from mathse.config.data import PublicData as Settings
from mathse.data.domains import domain_of
from mathse.data.readers.source import PublicData
from mathse.inference import prompts
from mathse.runs.reader import Run, read_run
from mathse.runs.store import read_json

from .runs import SIZES, run

QUICK = (*SIZES, "teacher=replay", "judge=answer", "evolution.rounds=1", "evolution.reflect.feedback=none")
THINGS = ("wind", "a rock", "milk", "steam", "the ice", "juice")


def scienceqa(folder: Path, count: int = 14) -> Path:
    """Records of our own in ScienceQA's published files; every second one has a picture."""
    records: dict[str, dict[str, Any]] = {}
    for k in range(count):
        choices = [THINGS[k % 6], THINGS[(k + 1) % 6], THINGS[(k + 2) % 6]]
        record = {
            "question": f"Which of these is called number {k}?", "choices": choices, "answer": k % 3, "task": "closed",
            "hint": "The picture shows where it lies." if k % 2 else "", "image": "image.png" if k % 2 else None,
            "grade": "grade2", "subject": "natural science", "topic": "physics", "category": "Matter",
            "skill": "Identify things", "lecture": "Things have names.", "split": "test" if k == 0 else "train",
            "solution": f"Step 1: The thing called number {k} is {choices[k % 3]}.",
        }  # fmt: skip
        records[str(k)] = record
        if k % 2:
            picture(folder / "images" / "train" / str(k) / "image.png", f"{k}")
    folder.mkdir(exist_ok=True)
    (folder / "problems.json").write_text(json.dumps(records))
    return folder


def ai2d(folder: Path, count: int = 8) -> Path:
    """Diagrams of our own, two questions each, in AI2D's published files; the first one is of its test split."""
    (folder / "questions").mkdir(parents=True)
    (folder / "ai2d_test_ids.csv").write_text("0\n")
    for k in range(count):
        for pictures in ("images", "abc_images"):
            picture(folder / pictures / f"{k}.png", f"{k} {pictures[:3]}")
        questions = (f"What eats number {k}?", f"What is A in diagram {k}?")
        texts = ["grass", "an owl", "a fox", "a snake"]
        records = {
            text: {"abcLabel": bool(n), "answerTexts": texts, "correctAnswer": k % 4, "questionId": f"{k}.png-{n}"}
            for n, text in enumerate(questions)
        }
        record = {"imageName": f"{k}.png", "questions": records}
        (folder / "questions" / f"{k}.png.json").write_text(json.dumps(record))
    return folder


def picture(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (48, 32), "white")
    ImageDraw.Draw(image).text((4, 8), text, fill="black")
    image.save(file)


def ends_with_a_report(folder: Path, domain: str, *settings: str) -> Run:
    summary = run(folder, *QUICK, *settings)
    finished = read_run(folder)
    assert summary["metric"] is not None and (folder / "report.html").is_file()
    assert finished.config["task_domain"]["name"] == domain
    return finished


SCIENCE = [("scienceqa", scienceqa), pytest.param("ai2d", ai2d, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "made"), SCIENCE)
def test_multiple_choice_science_runs_from_published_records_to_a_report(tmp_path: Path, name: str, made: Any) -> None:
    finished = ends_with_a_report(tmp_path / "run", "science", f"data={name}", f"data.root={made(tmp_path / name)}")
    for example in read_sft_examples(finished, "distill"):
        problem = example.problem
        assert domain_of(problem).name == "science" and problem.answer in "ABCD" and len(problem.choices) >= 3
        assert "(B) " in example.prompt and example.path.text.endswith(f"is {problem.answer}.")
        assert "You teach science" in prompts.generation_prompt(problem, "full")
    assert read_json(tmp_path / "run" / "distill" / "stage.json")["summary"]["accepted"] > 0


def test_the_set_s_own_splits_and_lettered_diagrams_are_found(tmp_path: Path) -> None:
    sizes = {}
    for name, folder in (("scienceqa", scienceqa(tmp_path / "s")), ("ai2d", ai2d(tmp_path / "a"))):
        settings = (Settings(name=name, root=str(folder), split=split) for split in ("train", "test", "all"))
        sets = list(map(PublicData, settings))
        sizes[name] = [len(source.table) for source in sets]
    assert sizes == {"scienceqa": [13, 1, 14], "ai2d": [14, 2, 16]}
    assert [Path(sets[-1].get(f"ai2d/3.png-{k}").images[0]).parent.name for k in (0, 1)] == ["images", "abc_images"]


def test_charts_run_from_real_records_to_a_report(tmp_path: Path, fixtures: Path) -> None:
    data = (f"data.root={fixtures / 'real' / 'chartqa'}", "data.split=test", "decontaminate.action=off")
    finished = ends_with_a_report(tmp_path / "run", "charts", "data=chartqa", "task_domain=charts", *data)
    examples = list(read_sft_examples(finished, "distill"))
    assert examples and all("You read charts" in prompts.generation_prompt(e.problem, "full") for e in examples)
    assert finished.config["task_domain"]["answer"] == {"form": "text", "tolerance": 0.05, "unit": "optional"}
