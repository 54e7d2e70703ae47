"""The files that the authors' README names become problems and paths that a run trains on.

The records here are written by us: the README names files and keys, and holds no example.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import SIZES, killed, run
from PIL import Image, ImageChops
from small import picture

from mathse.__main__ import main
from mathse.commands.convert_data.official import convert
from mathse.config import build
from mathse.config.data import JsonlDataConfig
from mathse.data.labelled_paths import read_labelled
from mathse.errors import DataError
from mathse.runs.store import read_json, read_jsonl
from mathse.types import Problem, ReasoningPath

ANSWER = "The answer to this problem is"
CHOSEN: list[dict[str, Any]] = [
    {"prompt": "<image>Find x.\n(A) 12\n(B) 13", "media": ["images/1.png"], "reasoning": f"Step 1: Look.\n{ANSWER} B."},
    {"prompt": "<image>\nHow tall?", "media": "images/2.jpg", "reasoning": f"Step 1: Measure.\n{ANSWER} 7."},
    {
        "prompt": "<image><image>Which is larger?",
        "media": ["images/1.png", "images/2.jpg"],
        "reasoning": f"{ANSWER} 5.",
    },
    {"prompt": "What is 2 + 2?", "media": [], "reasoning": f"Step 1: Add.\n{ANSWER} 4."},
    {"prompt": "<image>\nHow tall?", "media": ["images/2.jpg"], "reasoning": f"Step 1: By eye.\n{ANSWER} 7."},
]
HARD: list[dict[str, Any]] = [
    {"prompt": "<image>如图,求面积。", "media": ["images/2.jpg"], "answer": 6},
    {
        "prompt": "<image>\nFind y.", "media": ["images/1.png"], "answer": "3",
        "reasoning": f"Step 1: Guess.\n{ANSWER} 4.", "error_step": "Step 1", "error_analysis": "A guess is no reason.",
    },
]  # fmt: skip
REFLECTED: list[dict[str, Any]] = [
    {
        "instruction": "<image>\nFind y.", "input": "", "media": ["/home/authors/data/images/1.png"],
        "draft": f"Step 1: Guess.\n{ANSWER} 4.", "reflection": "A guess.", "output": f"Step 1: Count.\n{ANSWER} 3.",
    },
    {"instruction": "Solve.", "input": "3 + 5 = ?", "draft": "It is 9.", "reflection": "No.", "output": f"{ANSWER} 8."},
]  # fmt: skip
FILES = {"sft_chosen.jsonl": CHOSEN, "hard_problems.jsonl": HARD, "reflection_sft.jsonl": REFLECTED}


def write(folder: Path, **files: list[dict[str, Any]]) -> list[Path]:
    """The authors' folder: their files, and the pictures that these name."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    picture(84, 56, seed=1).save(folder / "images" / "1.png")
    picture(56, 84, seed=2).save(folder / "images" / "2.jpg")
    made = []
    for name, rows in (files or {name.partition(".")[0]: rows for name, rows in FILES.items()}).items():
        made.append(folder / f"{name}.jsonl")
        made[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return made


@pytest.fixture
def source(tmp_path: Path) -> list[Path]:
    return write(tmp_path / "authors")


def problems(out: Path) -> dict[str, Problem]:
    data = build(JsonlDataConfig(path=str(out / "problems.jsonl")))
    assert not data.bad_rows
    return {problem.question: problem for problem in data.distillable()}


def bad(out: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(out / "bad_rows.jsonl"))


# --- what becomes of the records --------------------------------------------------------------------------------------


def test_every_record_is_in_the_problems_with_its_pictures_and_answer(tmp_path: Path, source: list[Path]) -> None:
    out = tmp_path / "out"
    counts = convert(source, out)
    assert (counts["problems"], counts["train"], counts["bad_rows"]) == (7, 7, 0)
    assert counts["orm_train"] + counts["orm_held"] == 10
    found = problems(out)
    assert {question: (p.answer, p.choices, len(p.images)) for question, p in found.items()} == {
        "Find x.": ("B", ("12", "13"), 1),
        "How tall?": ("7", (), 1),
        "Which is larger?": ("5", (), 2),
        "What is 2 + 2?": ("4", (), 0),
        "如图,求面积。": ("6", (), 1),
        "Find y.": ("3", (), 1),
        "Solve.\n3 + 5 = ?": ("8", (), 0),
    }
    assert {q for q, p in found.items() if "answer_from" not in p.metadata} == {"如图,求面积。", "Find y."}
    assert found["如图,求面积。"].metadata["language"] == "zh"
    first, second = (Image.open(name) for name in found["Which is larger?"].images)
    for copy, name in ((first, "1.png"), (second, "2.jpg")):
        with Image.open(tmp_path / "authors" / "images" / name) as there:
            assert ImageChops.difference(copy.convert("RGB"), there.convert("RGB")).getbbox() is None


def test_accepted_paths_are_the_training_rows_word_for_word(tmp_path: Path, source: list[Path]) -> None:
    convert(source, tmp_path / "out")
    rows = list(read_jsonl(tmp_path / "out" / "train.jsonl", ReasoningPath))
    assert [row.text for row in rows] == [r["reasoning"] for r in CHOSEN] + [r["output"] for r in REFLECTED]
    assert Counter(row.lineage.origin for row in rows) == {"student": 5, "reflection": 2}
    assert len({row.id for row in rows}) == 7
    asked = {problem.id: problem.question for problem in problems(tmp_path / "out").values()}
    assert [asked[row.problem_id] for row in rows[:2]] == ["Find x.", "How tall?"]
    assert rows[1].problem_id == rows[4].problem_id  # two paths of one problem


def test_wrong_paths_keep_what_was_said_of_them_and_are_the_parents_of_reflections(
    tmp_path: Path, source: list[Path]
) -> None:
    convert(source, tmp_path / "out")
    data = build(JsonlDataConfig(path=str(tmp_path / "out" / "problems.jsonl")))
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_bytes(b"".join((tmp_path / "out" / f"orm_{part}.jsonl").read_bytes() for part in ("train", "held")))
    rows = read_labelled(labelled, data.get)
    wrong = {row.path.id: row for row in rows if row.label.status == "wrong"}
    assert {(w.label.error_step, w.label.error_analysis) for w in wrong.values()} == {
        ("Step 1", "A guess is no reason."),
        (None, "A guess."),
        (None, "No."),
    }
    reflected = [row.path for row in rows if row.path.lineage.origin == "reflection"]
    assert [wrong[str(path.lineage.parent)].path.text for path in reflected] == [r["draft"] for r in REFLECTED]
    assert len(rows) - len(wrong) == 7


def test_a_file_that_is_not_there_is_named(tmp_path: Path, source: list[Path]) -> None:
    with pytest.raises(DataError, match=r"no/sft_chosen.jsonl: no such file; give the paths"):
        convert([*source, tmp_path / "no" / "sft_chosen.jsonl"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_orm_is_measured_on_problems_that_it_has_learnt_nothing_of(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n} + 1?", "reasoning": f"{ANSWER} {n + 1}."} for n in range(200)]
    convert(write(tmp_path, sft_chosen=rows, sft_rejected=rows), tmp_path / "out")
    parts = [list(read_jsonl(tmp_path / "out" / f"{name}.jsonl")) for name in ("orm_train", "orm_held")]
    learnt, held = ({row["path"]["problem_id"] for row in part} for part in parts)
    assert not learnt & held and len(learnt | held) == 200
    assert 8 <= len(held) <= 32
    assert [Counter(row["verdict"]["status"] for row in part) for part in parts] == [
        {"correct": len(part) // 2, "wrong": len(part) // 2} for part in parts
    ]


def test_a_choice_list_that_the_answer_is_not_among_stays_in_the_question(tmp_path: Path) -> None:
    row = {"prompt": "Find x.\n(A) 12\n(B) 13", "reasoning": f"{ANSWER} 14."}
    convert(write(tmp_path, sft_chosen=[row]), tmp_path / "out")
    assert set(problems(tmp_path / "out")) == {"Find x.\n(A) 12\n(B) 13"}


def test_pictures_of_one_name_in_two_folders_are_two_problems(tmp_path: Path) -> None:
    row = {"prompt": "<image>Find x.", "media": ["images/1.png"]}
    here = write(tmp_path / "here", sft_chosen=[{**row, "reasoning": f"{ANSWER} 1."}])
    there = write(tmp_path / "there", sft_chosen=[{**row, "reasoning": f"{ANSWER} 2."}])
    picture(84, 56, seed=9).save(tmp_path / "there" / "images" / "1.png")
    assert convert([*here, *there], tmp_path / "out")["problems"] == 2
    answers = {
        problem.answer
        for problem in build(JsonlDataConfig(path=str(tmp_path / "out" / "problems.jsonl"))).distillable()
    }
    assert answers == {"1", "2"}


def test_ids_do_not_depend_on_where_the_files_lie(tmp_path: Path) -> None:
    for place in ("here", "there"):
        convert(write(tmp_path / place), tmp_path / place / "out")
    one, other = ((tmp_path / place / "out" / "train.jsonl").read_bytes() for place in ("here", "there"))
    assert one == other


def test_compressed_files_are_read_and_pictures_may_lie_elsewhere(tmp_path: Path, source: list[Path]) -> None:
    packed = tmp_path / "packed" / "sft_chosen_2026.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(source[0].read_bytes()))
    assert convert([packed], tmp_path / "out")["bad_rows"] == 4
    assert convert([packed], tmp_path / "out", tmp_path / "authors")["bad_rows"] == 0
    assert len(problems(tmp_path / "out")) == 4


# --- hostile rows -----------------------------------------------------------------------------------------------------

HOSTILE: list[tuple[object, str]] = [
    ("{broken", "broken JSON"),
    ([1, 2], "a row is a JSON object"),
    ({"reasoning": "x"}, '"prompt" is missing'),
    ({"prompt": "", "reasoning": "x"}, '"prompt" is empty'),
    ({"prompt": "<image>", "media": ["images/1.png"], "reasoning": f"{ANSWER} 1."}, "no question but pictures"),
    ({"prompt": "Find x."}, '"reasoning" is missing'),
    ({"prompt": "Find x.", "reasoning": ["Step 1"]}, '"reasoning" is text, got a list'),
    ({"prompt": "Find x.", "reasoning": f"{ANSWER} 1.", "media": {"a": 1}}, '"media" is paths of pictures'),
    ({"prompt": "Find x.", "reasoning": f"{ANSWER} 1.", "media": ["images/none.png"]}, "images/none.png"),
    ({"prompt": "Find x.", "reasoning": f"{ANSWER} 1.", "media": ["../secret.png"]}, "only paths inside"),
    ({"prompt": "Find x.", "reasoning": f"{ANSWER} 1.", "media": ["/etc/passwd"]}, "not below"),
    ({"prompt": "Find x.", "reasoning": f"{ANSWER} 1.", "media": ["images/link.png"]}, "a link that leads out"),
    ({"prompt": "Find x.", "reasoning": f"{ANSWER} 1.", "media": ["images/cut.png"]}, "cut.png"),
    ({"prompt": "Why is that so?", "reasoning": "Because I say so"}, "no reference answer"),
]


def test_each_hostile_record_is_listed_with_its_reason_and_ends_nothing(tmp_path: Path) -> None:
    (file,) = write(tmp_path / "authors", sft_chosen=CHOSEN[:1])
    images = tmp_path / "authors" / "images"
    picture(84, 56, seed=3).save(tmp_path / "secret.png")
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    (images / "cut.png").write_bytes((images / "1.png").read_bytes()[:200])
    with file.open("a", encoding="utf-8") as more:
        for row, _ in HOSTILE:
            more.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    out = tmp_path / "out"
    counts = convert([file], out)
    assert (counts["problems"], counts["train"], counts["bad_rows"]) == (1, 1, len(HOSTILE))
    listed = {row["line"]: row for row in bad(out)}
    for line, (_, reason) in enumerate(HOSTILE, start=2):
        assert reason in listed[line]["reason"] and listed[line]["file"] == str(file)
    assert len([f for f in (out / "images").rglob("*") if f.is_file()]) == 1  # of no bad record


def test_a_problem_without_an_answer_is_left_out_with_all_its_paths(tmp_path: Path) -> None:
    rows = [{"prompt": "Why is that so?", "reasoning": "Because"}] * 2
    files = write(tmp_path, sft_chosen=CHOSEN[3:4], hard_problems=rows)
    assert convert(files, tmp_path / "out")["orm_train"] + len(list(read_jsonl(tmp_path / "out/orm_held.jsonl"))) == 1
    assert [row["line"] for row in bad(tmp_path / "out")] == [1, 2]


def test_files_that_make_no_problem_leave_nothing_behind(tmp_path: Path) -> None:
    (file,) = write(tmp_path / "authors", sft_chosen=[{"prompt": "Find x."}])
    with pytest.raises(DataError, match=r"sft_chosen\.jsonl: no record makes a problem: \"reasoning\" is missing"):
        convert([file], tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["authors"]


def test_a_file_of_another_name_and_a_missing_one_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["convert-data", "official", str(tmp_path / "rows.jsonl"), "--out", out]) == 1
    assert "must begin with one of sft_chosen, sft_rejected" in capsys.readouterr().err
    assert main(["convert-data", "official", str(tmp_path / "sft_chosen.jsonl"), "--out", out]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_of_ones_own_is_not_overwritten_and_a_converted_one_is(
    tmp_path: Path, source: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "official.json").write_text('{"homework": 1}', encoding="utf-8")
    assert main(["convert-data", "official", *map(str, source), "--out", str(mine)]) == 1
    assert "was not made by this command" in capsys.readouterr().err
    assert [file.name for file in mine.iterdir()] == ["official.json"]
    convert(source, tmp_path / "out")
    convert(source[:1], tmp_path / "out")
    assert len(problems(tmp_path / "out")) == read_json(tmp_path / "out" / "official.json")["problems"] == 4


def test_a_kill_leaves_no_half_folder(tmp_path: Path, source: list[Path]) -> None:
    out, at = tmp_path / "out", 1
    while killed(lambda: convert(source, out), at):
        assert not out.exists() or (out / "official.json").is_file()
        at += 4
    assert at > 5
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["authors", "out"]


# --- a run trains on it -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty problems with a right and a wrong path each, and a test file of their own."""
    place = tmp_path_factory.mktemp("converted")
    rows = [
        {"prompt": f"<image>How much is {n} + 1?", "media": ["images/1.png"], "reasoning": f"{ANSWER} {n + 1}."}
        for n in range(30)
    ]
    drafts = [
        {
            "instruction": r["prompt"],
            "media": r["media"],
            "draft": "Nine.",
            "reflection": "No.",
            "output": r["reasoning"],
        }
        for r in rows[:15]
    ]
    convert(write(place, sft_chosen=rows, sft_rejected=rows, reflection_sft=drafts), place / "out")
    test = {"id": "t", "question": "How much is 99 + 1?", "images": [], "answer": "100"}
    (place / "test.jsonl").write_text(json.dumps(test) + "\n", encoding="utf-8")
    return place


def settings(place: Path) -> list[str]:
    files = {"path": place / "out" / "problems.jsonl", "test_path": place / "test.jsonl"}
    return ["data=jsonl", *(f"data.{name}={file}" for name, file in files.items()), "data.dev_share=0"]


def test_a_student_is_fitted_on_all_converted_paths(tmp_path: Path, converted: Path) -> None:
    rows = converted / "out" / "train.jsonl"
    summary = run(tmp_path, *SIZES, *settings(converted), "teacher=replay", "task=sft", f"sft.train={rows}")
    assert summary["status"] == "finished"
    assert (tmp_path / "sft" / "train.jsonl").read_bytes() == rows.read_bytes()
    assert summary["stages"][-1]["train_rows"] == 45
    assert main(["export", str(tmp_path), "--format", "llamafactory"]) == 0
    exported = list(read_jsonl(tmp_path / "exports" / "sft-sft-llamafactory" / "train.jsonl"))
    assert [row["messages"][-1]["content"] for row in exported] == [row["text"] for row in read_jsonl(rows)]


def test_an_orm_learns_from_all_converted_paths(tmp_path: Path, converted: Path) -> None:
    files = [f"orm.{part}={converted / 'out' / f'orm_{part}.jsonl'}" for part in ("train", "held")]
    summary = run(tmp_path, *SIZES, *settings(converted), "teacher=replay", "task=orm", *files)
    assert summary["status"] == "finished"
    learnt = list(read_jsonl(tmp_path / "orm" / "feedback.jsonl"))
    assert len(learnt) == len(list(read_jsonl(converted / "out" / "orm_train.jsonl")))
    assert main(["export", str(tmp_path), "--format", "swift", "--what", "orm"]) == 0
    assert len(list(read_jsonl(tmp_path / "exports" / "orm-swift" / "train.jsonl"))) == len(learnt)
