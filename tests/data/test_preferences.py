"""``convert-data preferences``: what a pair of a chosen and a rejected path says, and what it does not say.

The records are written by us in the published shape of MMPR: we hold none of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small import picture

from mathse.__main__ import main
from mathse.commands.convert_data.preferences import convert
from mathse.config import build
from mathse.config.data import JsonlData
from mathse.data.labelled_paths import read_labelled
from mathse.errors import DataError
from mathse.runs.store import read_jsonl, write_json, write_jsonl
from mathse.types import ReasoningPath

PROMPT = (
    "Your task is to answer the question below. Give step by step reasoning before you answer, and when you're ready "
    'to answer, please use the format "Final answer: .."\n\nQuestion:\n\n'
)


def pair(question: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"question": f"<image>\n{PROMPT}{question}", "chosen": chosen, "rejected": rejected, **more}


RIGHT, WRONG = "Both sides are 6, so x is 12.\n\nFinal answer: 12", "Both sides are 3.\n\nFinal answer: 6"
CHOICES = "Which is it?\nA. 3\nB. 4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("1", "2"):
        picture(8, 8, seed=int(name)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def made(folder: Path, *pairs: dict[str, Any]) -> Path:
    write_jsonl(folder / "pairs.jsonl", pairs)
    convert([folder / "pairs.jsonl"], folder / "out", folder / "images")
    return folder / "out"


def labels(out: Path) -> list[tuple[str, str]]:
    rows = [row for name in ("orm_train", "orm_held") for row in read_jsonl(out / f"{name}.jsonl")]
    return sorted((row["path"]["text"], row["verdict"]["status"]) for row in rows)


def reasons(out: Path) -> list[str]:
    return [row["reason"] for row in read_jsonl(out / "bad_rows.jsonl")]


def test_a_pair_becomes_a_problem_a_training_row_and_two_labelled_paths(folder: Path) -> None:
    out = made(folder, pair("Find x.", RIGHT, WRONG, image="1.png", answer_gt="12"))
    source = build(JsonlData(path=str(out / "problems.jsonl")))
    (problem,) = [problem for split in source.splits().values() for problem in split]
    assert (problem.question, problem.answer, len(problem.images)) == ("Find x.", "12", 1)
    (row,) = read_jsonl(out / "train.jsonl", ReasoningPath)
    assert (row.problem_id, row.text) == (problem.id, RIGHT)
    assert row.lineage.origin == "student" and row.lineage.parent is None
    assert labels(out) == [(WRONG, "wrong"), (RIGHT, "correct")]
    assert reasons(out) == []


def test_labelled_paths_are_read_as_an_orm_s_rows(folder: Path) -> None:
    out = made(folder, *(pair(f"Find x{k}.", RIGHT, WRONG, image="1.png", answer_gt="12") for k in range(60)))
    source = build(JsonlData(path=str(out / "problems.jsonl")))
    train, held = (read_labelled(out / f"{name}.jsonl", source.get) for name in ("orm_train", "orm_held"))
    assert len(train) + len(held) == 120 and held
    assert not {row.problem.id for row in train} & {row.problem.id for row in held}


def test_a_choice_is_a_choice_and_its_answer_a_letter(folder: Path) -> None:
    out = made(folder, pair(CHOICES, "Look. Final answer: B", "Look. Final answer: A", image="1.png", answer_gt="B"))
    (row,) = read_jsonl(out / "problems.jsonl")
    assert (row["question"], row["choices"], row["answer"]) == ("Which is it?", ["3", "4"], "B")


def test_where_no_answer_is_given_it_is_the_chosen_path_s(folder: Path) -> None:
    out = made(folder, pair("Find x.", RIGHT, WRONG, image=["1.png", "2.png"]))
    (row,) = read_jsonl(out / "problems.jsonl")
    assert (row["answer"], row["answer_from"], len(row["images"])) == ("12", "path", 2)


def test_a_rejected_path_that_is_not_known_to_be_wrong_is_no_wrong_path(folder: Path) -> None:
    same, silent = "In another way.\n\nFinal answer: 12.0", "A nice picture of a triangle"
    out = made(folder, *(pair("Find x.", RIGHT, text, image="1.png", answer_gt="12") for text in (same, silent)))
    assert labels(out) == [(RIGHT, "correct")]
    assert ["comes to the right answer" in reasons(out)[0], "announces no answer" in reasons(out)[1]] == [True, True]


def test_a_chosen_path_that_misses_the_reference_answer_is_no_right_path(folder: Path) -> None:
    out = made(folder, pair("Find x.", "It is 7.\n\nFinal answer: 7", WRONG, image="1.png", answer_gt="12"))
    assert labels(out) == [(WRONG, "wrong")] and not list(read_jsonl(out / "train.jsonl"))
    assert "comes to '7', the reference answer is '12'" in reasons(out)[0]


def test_a_pair_about_a_matter_of_taste_is_left_out_with_a_reason(folder: Path) -> None:
    good = pair("Find x.", RIGHT, WRONG, image="1.png")
    out = made(folder, pair("Describe the picture.", "A red house stands there", "House", image="1.png"), good)
    assert len(list(read_jsonl(out / "problems.jsonl"))) == 1
    assert "announces no answer, so it is not known to be right" in reasons(out)[0]


def test_a_path_that_is_paired_several_times_is_one_row(folder: Path) -> None:
    others = [f"No.\n\nFinal answer: {k}" for k in (1, 2, 3)]
    pairs = [pair("Find x.", RIGHT, text, image="1.png", answer_gt="12") for text in others]
    out = made(folder, *pairs, {**pairs[0], "image": "2.png"})
    assert len(list(read_jsonl(out / "train.jsonl"))) == 2  # of the two pictures
    assert len(labels(out)) == 6


def test_mmpr_s_meta_json_names_files_and_folders_of_pictures(folder: Path) -> None:
    root = folder / "MMPR-v1.2"
    (root / "annotations").mkdir(parents=True)
    (root / "images" / "geo").mkdir(parents=True)
    picture(8, 8, seed=3).save(root / "images" / "geo" / "1.png")
    write_jsonl(root / "annotations" / "geo.jsonl", [pair("Find x.", RIGHT, WRONG, image="1.png", answer_gt="12")])
    for name, above in (("inside", ""), ("above", "MMPR-v1.2/")):  # where the paths of a meta.json begin
        part = {"root": f"{above}images/geo", "annotation": f"{above}annotations/geo.jsonl"}
        write_json(root / "meta.json", {"geo": part})
        assert main(["convert-data", "preferences", str(root / "meta.json"), "--out", str(folder / name)]) == 0
        assert len(labels(folder / name)) == 2
    write_json(root / "meta.json", {"geo": {"root": "x", "annotation": "gone.jsonl"}})
    with pytest.raises(DataError, match=r"geo: no file 'gone.jsonl' beside it; unpack"):
        convert([root / "meta.json"], folder / "out")


def test_files_that_are_no_pairs_are_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.jsonl").write_text(json.dumps({"question": "Find x.", "answer": "1"}) + "\n")
    for file, sentence in ((folder / "x.jsonl", '"chosen" is missing'), (folder / "no.jsonl", "no such file")):
        assert main(["convert-data", "preferences", str(file), "--out", str(folder / "out")]) == 1
        assert sentence in capsys.readouterr().err
    assert not (folder / "out").exists()
