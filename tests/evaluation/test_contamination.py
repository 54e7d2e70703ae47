"""``check_against``: training rows that are in a benchmark. tests/decontamination tests the pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from evaluation.cases import draw_pictures, metrics, rows, run, write_rows
from mathse.errors import DataError
from mathse.evaluation.benchmark import Item
from mathse.evaluation.contamination import check
from mathse.types import Problem

LONG = "In triangle ABC the angle at A is 50 degrees and the angle at B is 60 degrees. How large is the angle at C?"


# --- a file of training rows ------------------------------------------------------------------------------------------


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    draw_pictures(tmp_path, 3)
    asked = [LONG, "Find x.", "What is shown here, and how many of them are there in the whole picture?"]
    return [
        Item(Problem(f"b{k}", question, (str(tmp_path / "images" / f"{k}.png"),), "1"), {}, question)
        for k, question in enumerate(asked, 1)
    ]


@pytest.fixture
def found(tmp_path: Path, items: list[Item]) -> Callable[..., list[tuple[str, str, list[str], bool]]]:
    """(train id, benchmark id, by, counts) of the pairs of training rows."""

    def of(*training: dict[str, object]) -> list[tuple[str, str, list[str], bool]]:
        file = write_rows(tmp_path / "train.jsonl", training)
        check("b", items, file, tmp_path / "out.jsonl", lambda text: None)
        return [(row["id"], row["against_id"], row["by"], row["counts"]) for row in rows(tmp_path / "out.jsonl")]

    return of


def test_rows_pair_by_question_or_by_picture(found: Callable[..., list[tuple[str, str, list[str], bool]]]) -> None:
    assert found(
        {"id": "t1", "question": LONG.upper(), "images": []},
        {"id": "t2", "question": "Something else altogether?", "images": ["images/3.png"]},
        {"id": "t3", "question": "Nothing of the kind.", "images": []},
        {"id": "t4", "question": LONG.replace("How large", "So how large"), "image": "images/1.png"},
        {"id": "t5", "conversations": [{"from": "human", "value": f"<image>\n{LONG}"}, {"from": "gpt", "value": "70"}]},
        {"id": "t6", "question": LONG.replace("60", "65"), "images": []},
    ) == [
        ("t1", "b1", ["question"], True),
        ("t2", "b3", ["image"], True),
        ("t4", "b1", ["near_question", "image"], True),
        ("t5", "b1", ["question"], True),
    ]


def test_a_scaled_picture_is_the_same_to_the_eye(
    found: Callable[..., list[tuple[str, str, list[str], bool]]], tmp_path: Path
) -> None:
    Image.open(tmp_path / "images" / "2.png").resize((200, 200)).save(tmp_path / "copy.jpg", quality=60)
    assert found({"id": "t", "question": "Another?", "images": ["copy.jpg"]}) == [("t", "b2", ["near_image"], True)]


def test_a_question_that_tells_nothing_is_listed_and_is_weak_without_a_picture_in_common(
    found: Callable[..., list[tuple[str, str, list[str], bool]]],
) -> None:
    assert found(
        {"id": "t1", "question": "Find x.", "images": ["images/1.png"]},
        {"id": "t2", "question": "find $x$", "images": ["images/2.png"]},
    ) == [
        ("t1", "b1", ["image"], True),
        ("t1", "b2", ["question"], False),
        ("t2", "b2", ["question", "image"], True),
    ]


def test_pictures_that_are_not_here_are_counted(tmp_path: Path, items: list[Item]) -> None:
    train = write_rows(tmp_path / "train.jsonl", [{"id": "t", "question": LONG, "images": ["not/here.png"]}])
    said: list[str] = []
    summed = check("b", items, train, tmp_path / "out.jsonl", said.append)
    assert summed["pictures_not_opened"] == {"training": 1, "benchmark": 0} and summed["sure"] == ["b1"]
    assert any("1 pictures could not be opened" in text for text in said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "holds no rows"),
        ('{"id": "t", "question": "q"}\n{"id": "t', "train.jsonl:2: "),
        ('{"id": "t", "answer": "1"}\n', "train.jsonl:1: no question"),
        ("[1]\n", "train.jsonl:1: a row is a JSON object"),
        ('{"id": "x/0", "problem_id": "x", "text": "t"}\n', "its rows name problems of a run, and no folder above it"),
    ],
)
def test_training_rows_that_cannot_be_read_are_named(tmp_path: Path, items: list[Item], line: str, said: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(line)
    with pytest.raises(DataError, match=said):
        check("b", items, file, tmp_path / "out.jsonl", lambda text: None)


def test_rows_of_a_run_are_looked_up_in_its_data(tmp_path: Path, items: list[Item]) -> None:
    own = write_rows(tmp_path / "own.jsonl", [
        {"id": f"own/{k}", "question": LONG if k == 3 else f"Question number {k}?", "images": [], "answer": "1"}
        for k in range(8)
    ])  # fmt: skip
    stage = tmp_path / "run" / "final"
    data = {"_target_": "mathse.data.problems.JsonlData", "path": str(own)}
    stage.mkdir(parents=True)
    (stage.parent / "run.json").write_text(
        json.dumps({"name": "x", "task": "evolve", "seed": 0, "config": {"data": data}})
    )
    train = write_rows(stage / "train.jsonl", [
        {"id": f"distill/own/{k}/0", "problem_id": f"own/{k}", "text": "..."} for k in (2, 3)
    ])  # fmt: skip
    summed = check("b", items, train, tmp_path / "out.jsonl", lambda text: None)
    assert summed["problems"] == ["b1"] and summed["rows"] == 2
    assert [row["id"] for row in rows(tmp_path / "out.jsonl")] == ["own/3"]


def test_a_benchmark_without_its_pictures_is_searched_by_question_and_that_is_said(tmp_path: Path) -> None:
    item = Item(Problem("b", LONG, (), "1"), {"image": "images/1.png"}, LONG)
    train = write_rows(tmp_path / "train.jsonl", [{"id": "t", "question": LONG, "images": []}])
    said: list[str] = []
    summed = check("mathvision", [item], train, tmp_path / "out.jsonl", said.append)
    assert summed["pictures_not_opened"]["benchmark"] == 1 and summed["problems"] == ["b"]
    assert said[-1].startswith("mathvision: 1 pictures could not be opened")


def test_accuracy_is_told_with_and_without_the_problems_found(tmp_path: Path, files: Path) -> None:
    given = [{"id": str(k), "response": str(k) if k in (1, 2, 3) else "none"} for k in range(1, 7)]
    answers = write_rows(tmp_path / "a.jsonl", given)
    train = write_rows(
        tmp_path / "train.jsonl",
        [
            {"id": "t1", "question": "What is the number of dots in picture 1?", "images": []},  # weak: short
            {"id": "t4", "question": "Count.", "images": [str((files / "images" / "4.png").resolve())]},
        ],
    )
    settings = ["benchmark=mathvision", f"benchmark.mathvision.problems={files}/mathvision.jsonl"]
    run(tmp_path / "run", *settings, f"predictions={answers}", f"check_against={train}")
    found = metrics(tmp_path / "run", "mathvision")["contamination"]
    assert found["problems"] == ["1", "4"]
    assert (found["with"]["correct"], found["with"]["total"]) == (3, 6)
    assert (found["without"]["correct"], found["without"]["total"]) == (2, 4)
    assert found["sure"] == ["4"]
    assert (found["without_sure"]["correct"], found["without_sure"]["total"]) == (3, 5)
    assert metrics(tmp_path / "run", "mathvision")["accuracy"] == 0.5  # the official number stays
    assert len(rows(tmp_path / "run" / "mathvision" / "contamination.jsonl")) == 2
    assert "Training rows in the benchmark" in (tmp_path / "run" / "report.html").read_text()
