"""Readers of published sets: records in their published shape become problems with stable ids.

Of the sets in ``REAL`` real records are read. The records of the other sets are written by us, in the shape that their
authors publish; that our reading of that shape is right is not tested here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from mathse.config import data as data_settings
from mathse.config.data import READABLE
from mathse.data import readers
from mathse.data.images import load_image
from mathse.data.problems import SPLITS
from mathse.data.readers.source import PublicData
from mathse.errors import ConfigError, DataError
from mathse.scoring.answers import same_answer
from mathse.types import Problem

# set -> (its annotation file, a record of it, its picture, what becomes of it)
PUBLISHED: dict[str, tuple[str, Any, str, dict[str, Any]]] = {
    "geoqa_plus": (
        "GeoQA3/json/17.json",
        {"subject": "如图,AB∥CD,∠ABC=50°,则∠BCD等于()", "choices": ["40°", "50°", "60°", "130°"], "label": 1,
         "answer": "解:∵AB∥CD,∴∠BCD=∠ABC=50°", "id": 17},
        "GeoQA3/image/17.png",
        {"id": "geoqa_plus/17", "answer": "B", "language": "zh", "text": "50°",
         "solution": "解:∵AB∥CD,∴∠BCD=∠ABC=50°"},
    ),
    "geometry3k": (
        "geometry3k/train/5/data.json",
        {"problem_text": "Find x.", "choices": ["12", "13"], "answer": "B", "id": 5, "unit": "cm",
         "detailed_solution": " ", "problem_type_goal": ["Length"]},
        "geometry3k/train/5/img_diagram.png",
        {"id": "geometry3k/5", "answer": "B", "text": "13", "unit": "cm", "language": "en", "solution": None},
    ),
    "chartqa": (
        "ChartQA Dataset/train/train_human.json",
        [{"imgname": "7.png", "query": "How many items are shown?", "label": "14"}],
        "ChartQA Dataset/train/png/7.png",
        {"answer": "14", "kind": "number", "written_by": "human"},
    ),
    "unigeo": (
        "calculation_train.json",
        [{"id": 3, "English_problem": "As shown, find angle B.", "choices": ["20°", "30°"], "label": 1,
          "image": "calculation_images/3.png"}],
        "calculation_images/3.png",
        {"id": "unigeo/3", "answer": "B", "text": "30°"},
    ),
    "multimath": (
        "solution/train_zh.json",
        [{"id": "a_zh", "image": "a.png", "conversations": [
            {"from": "human", "value": "<image>\n如图,求 x。A. 12 B. 13"},
            {"from": "gpt", "value": "解:由图可知两边相等,所以 x 等于十三。\n故选 B。"}]}],
        "images/a.png",
        {"answer": "B", "text": "13", "language": "zh", "solution": "解:由图可知两边相等,所以 x 等于十三。\n故选 B。"},
    ),
    "mavis": (
        "Function_Caption_to_Question.json",
        [{"id": "f1", "image": "functions/1.png", "question_type": "multi-choice", "conversations": [
            {"from": "human", "value": "<image>\nAccording to the question shown in the image, please first perform "
                                       "reasoning, then finally select the right answer from the choices, e.g., "
                                       "Answer: xxx.\nQuestion: Find the zero.\nChoices:\nA:1\nB:2"},
            {"from": "gpt", "value": "The line meets the x-axis at two, which the figure shows.\nAnswer: B"}]}],
        "functions/1.png",
        {"answer": "B", "text": "2", "question": "Find the zero.", "question_type": "multi-choice"},
    ),
    "math_puma": (
        "Synthesis/train.json",
        [{"instruction": "Find the area.", "output": "The sides are 3 and 4, so the area is 12. The answer is 12.",
          "image_url": "images/1.png", "image_url_2": "images/2.png", "instruction_2": "?", "output_2": "!"}],
        "Synthesis/images/1.png",
        {"answer": "12", "kind": "number", "question": "Find the area."},
    ),
    "mathv360k": (
        "train_samples_all_tuning.json",
        [{"image": "TabMWP/images/1.png", "conversations": [
            {"from": "human", "value": "<image>\nHint: Please answer the question and provide the correct option "
                                       "letter, e.g., A, B, C, D, at the end.\nQuestion: Find x.\nChoices:\n(A) 12\n"
                                       "(B) 13"},
            {"from": "gpt", "value": "The answer is B"}]}],
        "data_images/TabMWP/images/1.png",
        {"answer": "B", "question": "Find x.", "subset": "TabMWP", "solution": None},
    ),
    "mathvl": (
        "mathvl.jsonl",
        {"id": "k12/1", "question": "如图,求 x。", "images": ["1a.png", "1b.png"], "choices": {"A": "12", "B": "13"},
         "answer": "13", "solution": "解:x=13", "grade": "junior"},
        "images/1a.png",
        {"id": "mathvl/k12/1", "answer": "B", "language": "zh", "grade": "junior", "pictures": 2},
    ),
    "tabmwp": (
        "problems_train.json",
        {"17": {"question": "Which dog's weight changed most?", "choices": ["Rex", "Champ"], "answer": "Champ",
                "unit": None, "table": "Dog | oz.", "solution": "Champ lost 6.", "grade": 6}},
        "tables/17.png",
        {"id": "tabmwp/17", "answer": "B", "text": "Champ", "solution": "Champ lost 6.", "grade": 6},
    ),
    "formalgeo": (
        "problems/3.json",
        {"problem_id": 3, "problem_text_en": "Find x.", "problem_text_cn": "求x。", "problem_img": "3.png",
         "problem_answer": "13/2", "source": "Geometry3k-1"},
        "diagrams/3.png",
        {"id": "formalgeo/3", "answer": "13/2", "question": "Find x.", "taken_from": "Geometry3k-1"},
    ),
    "conversations": (
        "train.json",
        [{"id": "9", "image": "images/9.png", "data_source": "geo", "conversations": [
            {"from": "human", "value": "<image>\nFind x."},
            {"from": "gpt", "value": "Both sides are equal, so x is 12. The answer is 12."}]}],
        "images/9.png",
        {"answer": "12", "question": "Find x.", "subset": "geo"},
    ),
    "scienceqa": (
        "data/scienceqa/problems.json",
        {"3": {"question": "Which of them is a solid?", "choices": ["wind", "the rock"], "answer": 1, "hint": "Look.",
               "image": "image.png", "grade": "grade2", "subject": "natural science", "topic": "physics",
               "category": "Matter", "skill": "Identify solids", "lecture": "A solid keeps its shape.",
               "solution": "Wind is moving air. The rock keeps its shape.", "task": "closed choice", "split": "train"}},
        "data/scienceqa/images/train/3/image.png",
        {"id": "scienceqa/3", "answer": "B", "text": "the rock", "question": "Look.\nWhich of them is a solid?",
         "topic": "physics", "solution": "Wind is moving air. The rock keeps its shape."},
    ),
    "ai2d": (
        "ai2d/questions/8.png.json",
        {"imageName": "8.png", "questions": {
            "What does the mouse eat?": {"abcLabel": False, "answerTexts": ["grass", "owl", "fox", "snake"],
                                         "correctAnswer": 0, "questionId": "8.png-0"}}},
        "ai2d/images/8.png",
        {"id": "ai2d/8.png-0", "answer": "A", "text": "grass"},
    ),
}  # fmt: skip


def unpacked(folder: Path, name: str, *more: Any) -> Path:
    """A folder with one published record of a set, and more of them."""
    file, record, picture, _ = PUBLISHED[name]
    for path in (folder / file, folder / picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    content = record if not more else [*record, *more]
    text = json.dumps(content, ensure_ascii=False)
    (folder / file).write_bytes(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair as JSON's escape
    Image.new("RGB", (6, 4), "red").save(folder / picture)
    if name == "mathvl":
        Image.new("RGB", (2, 2)).save(folder / "images/1b.png")
    return folder


def public(name: Any, root: str | None = None, **settings: Any) -> PublicData:
    return PublicData(data_settings.PublicDataConfig(name=name, root=root, **settings))


def only(source: PublicData) -> Problem:
    (problem,) = (p for split in source.splits().values() for p in split)
    return problem


@pytest.mark.parametrize("name", READABLE)
def test_a_published_record_becomes_a_problem(tmp_path: Path, name: str) -> None:
    problem = only(public(name, str(unpacked(tmp_path, name))))
    expected = PUBLISHED[name][3]
    form = problem.metadata["answer_form"]
    found = {**problem.metadata, **form, "id": problem.id, "answer": problem.answer, "question": problem.question,
             "solution": problem.solution, "pictures": len(problem.images)}  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert problem.id.startswith(f"{name}/") and problem.source == name
    assert problem.images[0] == str(tmp_path / PUBLISHED[name][2]) and load_image(problem.images[0]).size == (6, 4)


@pytest.mark.parametrize("name", READABLE)
def test_a_header_names_source_licence_and_a_record(name: str) -> None:
    published = readers.find_set(name)
    header = str(published.rows.__doc__)
    assert all(word in header for word in ("Source ", "Licence ", "A record ", "Files "))
    assert ("We hold no sample of it" in " ".join(header.split())) == (name not in REAL)
    assert published.name == name


@pytest.mark.parametrize("name", [n for n in READABLE if isinstance(PUBLISHED[n][1], list)])
def test_ids_do_not_depend_on_the_place_in_the_file(tmp_path: Path, name: str) -> None:
    alone = only(public(name, str(unpacked(tmp_path / "a", name)))).id
    file, (record,), *_ = PUBLISHED[name]
    folder = unpacked(tmp_path / "b", name)
    text = json.dumps(record, ensure_ascii=False).replace("Find", "Please find").replace("How", "So how")
    other = json.loads(text.replace("求", "请求"))
    other |= {"id": "other"} if "id" in record else {}
    other["English_problem"] = "Another one." if "English_problem" in record else None
    (folder / file).write_text(json.dumps([other, record], ensure_ascii=False), encoding="utf-8")
    source = public(name, str(folder))
    assert alone in source.table.ids() and len(source.table) == 2


def test_real_records_of_geometry3k_are_read_from_where_they_lie(fixtures: Path) -> None:
    root = fixtures / "datasets" / "geometry3k_samples"
    source = public("geometry3k", str(root))
    lines = [json.loads(line) for line in (root / "records.jsonl").read_text().splitlines()]
    assert sorted(source.table.ids()) == sorted(f"geometry3k/{line['id']}" for line in lines)
    assert not source.bad_rows
    for number, line in enumerate(lines, 1):
        problem = source.get(f"geometry3k/{line['id']}")
        assert (problem.question, problem.answer) == (line["annotat_text"].strip(), line["answer"])
        assert problem.images == (str(root / line["image_file"]),), "referenced, not copied"
        assert source.table.location(problem.id) == (str(root / "records.jsonl"), number)


def test_geometry3k_is_read_as_its_archive_unpacks(tmp_path: Path, fixtures: Path) -> None:
    samples = fixtures / "datasets" / "geometry3k_samples"
    for number, line in enumerate((samples / "records.jsonl").read_text().splitlines()):
        record = json.loads(line)
        folder = tmp_path / ("train" if number % 2 else "val") / str(record["id"])
        folder.mkdir(parents=True)
        shutil.copy(samples / record.pop("image_file"), folder / "img_diagram.png")
        (folder / "data.json").write_text(json.dumps(record))
    sizes = {split: len(public("geometry3k", str(tmp_path), split=split).table) for split in ("train", "val", "all")}
    total = number + 1
    assert sizes == {"train": total // 2, "val": total - total // 2, "all": total}


def test_our_splits_are_shares_of_the_set_s_own(tmp_path: Path) -> None:
    record = {"imgname": "7.png", "query": "", "label": "14"}
    rows = [{**record, "query": f"How many are {k}?"} for k in range(60)]
    folder = unpacked(tmp_path, "chartqa", *rows)
    splits = public("chartqa", str(folder), test_share=0.5).splits()
    assert set(splits) == set(SPLITS) and sum(map(len, splits.values())) == 61
    assert len(splits["test"]) > 15


def test_a_set_s_own_test_split_can_be_the_test_split(tmp_path: Path, fixtures: Path) -> None:
    test = fixtures / "real" / "chartqa" / "ChartQA Dataset" / "test"
    shutil.copytree(test, tmp_path / "test")
    shutil.copytree(test / "png", tmp_path / "train" / "png")
    records = [
        {**record, "query": f"And {record['query']}"} for record in json.loads((test / "test_human.json").read_text())
    ]
    (tmp_path / "train" / "train_human.json").write_text(json.dumps(records))
    root = str(tmp_path)
    source = public("chartqa", root, split={"train": "train", "test": "test"})
    own = {name: set(public("chartqa", root, split=name).table.ids()) for name in ("train", "test")}
    splits = {name: {problem.id for problem in part} for name, part in source.splits().items()}
    assert splits.pop("test") == own["test"]
    assert set().union(*splits.values()) == own["train"] and not own["test"] & own["train"]


def test_one_name_of_a_split_is_recorded_as_earlier_runs_did() -> None:
    assert data_settings.PublicDataConfig(split={"train": "all", "test": None}).split == "all"


BROKEN: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("unigeo", lambda r: {**r, "label": 9}, '"label" 9 is none of the 2 choices'),
    ("unigeo", lambda r: {**r, "label": "x"}, '"label" is the number of a choice'),
    ("unigeo", lambda r: {**r, "English_problem": " "}, '"English_problem" is empty'),
    ("unigeo", lambda r: {**r, "English_problem": ["?"]}, '"English_problem" is text, got a list'),
    ("unigeo", lambda r: {**r, "choices": "20"}, '"choices" is a list, got text'),
    ("unigeo", lambda r: {**r, "image": "../../etc/passwd"}, "only paths inside"),
    ("unigeo", lambda r: {**r, "image": "gone.png"}, "gone.png: no such file"),
    ("unigeo", lambda r: {**r, "image": "\ud800.png"}, "no usable path (half of a surrogate pair)"),
    ("unigeo", lambda r: {**r, "image": 7}, "an image is the path of a file"),
    ("chartqa", lambda r: {**r, "label": []}, '"label" holds 0 answers'),
    ("chartqa", lambda r: {"imgname": "7.png", "label": "1"}, '"query" is missing; is this file of another set?'),
    ("mathv360k", lambda r: {**r, "conversations": []}, '"conversations" is a list of turns'),
    ("mathv360k", lambda r: {**r, "conversations": r["conversations"][:1]}, "a question and no reply"),
    ("mathv360k", lambda r: {**r, "conversations": [{"from": "human"}, {}]}, "with text in it"),
    ("mathv360k", lambda r: "text", "a row is a JSON object"),
]


@pytest.mark.parametrize(("name", "change", "said"), BROKEN, ids=[f"{n}-{k}" for k, (n, *_) in enumerate(BROKEN)])
def test_a_record_that_makes_no_problem_is_listed_with_its_place_and_reason(
    tmp_path: Path, name: str, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    file, (record,), *_ = PUBLISHED[name]
    folder = unpacked(tmp_path, name, change(record))
    with pytest.raises(DataError, match=f"1 of 2 rows cannot be used\n.*{file}:1: "):
        public(name, str(folder))
    (bad,) = public(name, str(folder), on_bad_row="skip").bad_rows
    assert bad["file"] == str(folder / file) and bad["line"] == 1 and said in str(bad["reason"])
    assert bad["record"] == 2  # all records stand in one line


def test_a_record_that_is_there_twice_is_listed_once(tmp_path: Path) -> None:
    file, (record,), *_ = PUBLISHED["chartqa"]
    source = public("chartqa", str(unpacked(tmp_path, "chartqa", record)), on_bad_row="skip")
    (bad,) = source.bad_rows
    assert len(source.table) == 1 and bad["reason"] == "repeats the row at train_human.json:1"
    assert public("chartqa", str(tmp_path)).bad_rows == [bad]  # no mistake either


# set -> (its folder among the real records, the set's own split that they are of, problems, rows left out)
REAL = {
    "geometry3k": ("geometry3k", "train", 10, 0),
    "chartqa": ("chartqa", "test", 21, 1),
    "geoqa_plus": ("geoqa", "train", 8, 0),
    "tabmwp": ("tabmwp", "test", 16, 0),
    "formalgeo": ("formalgeo", "train", 10, 0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_records_become_problems(fixtures: Path, name: str) -> None:
    folder, split, problems, left_out = REAL[name]
    source = public(name, str(fixtures / "real" / folder), split=split)
    assert (len(source.table), len(source.bad_rows)) == (problems, left_out)
    for problem_id in source.table.ids():
        problem = source.get(problem_id)
        assert problem.question and problem.images and load_image(problem.images[0])
        assert same_answer(problem.answer, problem.answer, problem.choices)


@pytest.mark.parametrize("name", READABLE)
def test_the_page_says_how_many_real_records_of_a_set_were_read(root: Path, name: str) -> None:
    page = (root / "docs" / "own-data.md").read_text(encoding="utf-8")
    cells = next(line.split(" | ") for line in page.splitlines() if line.startswith("| `") and f"`{name}`" in line)
    if name in REAL:
        assert re.match(rf"{REAL[name][2] + REAL[name][3]}\b", cells[2])
    else:
        assert cells[2].startswith("none: ")


def test_ids_do_not_depend_on_the_folder_that_data_root_names(fixtures: Path) -> None:
    top = fixtures / "real" / "chartqa"
    roots = [top, top / "ChartQA Dataset", top / "ChartQA Dataset" / "test"]
    ids = [public("chartqa", str(root), split="test").table.ids() for root in roots]
    assert ids[0] == ids[1] == ids[2] and len(ids[0]) > 20


def test_a_real_repetition_is_listed_with_its_number_and_no_mistake(fixtures: Path) -> None:
    source = public("chartqa", str(fixtures / "real" / "chartqa"), split="test")
    assert ["repeats the row at" in str(row["reason"]) and row["record"] > 1 for row in source.bad_rows] == [True]


@pytest.mark.parametrize("root", ["/no/such/folder", "nosuch", "./no/such"])
def test_a_mistyped_root_is_no_hub_id(root: str) -> None:
    with pytest.raises(DataError, match="no such folder|no file of ChartQA"):
        public("chartqa", root)


def test_an_archive_that_has_the_name_of_a_file_is_skipped_and_said(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "mathv360k")
    (folder / "train_more.json.zip").write_bytes(b"PK")
    source = public("mathv360k", str(folder))
    assert len(source.table) == 1 and not source.bad_rows
    assert any("train_more.json.zip is not read: unpack it" in note for note in source.notes)


@pytest.mark.parametrize("ending", [".pk", ".pkl"])
def test_pickles_are_not_read(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"calculation_train{ending}").write_bytes(b"cos\nsystem\n(S'touch /tmp/hacked'\ntR.")
    for root in (tmp_path, tmp_path / f"calculation_train{ending}"):
        with pytest.raises(DataError, match="a pickle can run any program"):
            public("unigeo", str(root))


def test_a_folder_of_another_set_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of Geometry3K \(looked for .*train/\*/data.json.*InterGPS"):
        public("geometry3k", str(tmp_path))


def test_a_link_out_of_the_root_is_left_alone(tmp_path: Path) -> None:
    unpacked(tmp_path / "set", "chartqa")
    outside = tmp_path / "train_secret.json"
    outside.write_text('[{"imgname": "7.png", "query": "Secret?", "label": "1"}]')
    (tmp_path / "set" / "ChartQA Dataset" / "train" / "train_link.json").symlink_to(outside)
    assert len(public("chartqa", str(tmp_path / "set")).table) == 1


def test_two_records_with_one_id_and_other_contents_are_a_mistake(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "mathvl")
    file = folder / PUBLISHED["mathvl"][0]
    record = {"id": "k12/1", "question": "Find x.", "answer": "12"}
    lines = [record, record, record | {"answer": "13"}]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    reasons = [str(bad["reason"]) for bad in public("mathvl", str(folder), on_bad_row="skip", max_left_out=1).bad_rows]
    assert "repeats the row at" in reasons[0] and "ids are unique, rename one" in reasons[1]


def test_a_set_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="'geoqa_plus', 'geometry3k'"):
        public("mathvista", str(tmp_path))
    with pytest.raises(ConfigError, match="data.root is not set"):
        public("chartqa")


def test_names_in_the_schema_are_the_readers_there_are() -> None:
    assert sorted(READABLE) == sorted(readers.ALL_SETS)
