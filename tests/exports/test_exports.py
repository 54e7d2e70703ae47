"""``python -m mathse export``: every row and picture, in the form that a tool reads, and a card that tells of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from exports.own_run import PROBLEMS, OwnRun, export, own_run
from mathse.data.images import load_image
from mathse.data.sources import problem_lookup
from mathse.runs.reader import read_run
from mathse.runs.store import read_json, read_jsonl

LINES = ("llamafactory", "swift")
TABLES = ("trl", "hf")


def opened(folder: Path, tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="needs the datasets library: pip install '.[hub]'")
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


def same_picture(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is None


# --- rows and pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", LINES)
def test_every_row_has_as_many_marks_as_pictures_and_they_show_what_the_fit_saw(
    own: OwnRun, tmp_path: Path, format: str
) -> None:
    out = export(own.folder, tmp_path / "out", "--format", format)
    rows = list(read_jsonl(out / "train.jsonl"))
    problem_of: Any = problem_lookup(read_run(own.folder).config)
    assert [row["problem_id"] for row in rows] == [problem["id"] for problem in PROBLEMS]
    for row in rows:
        asked, said = row["messages"]
        refs = problem_of(row["problem_id"]).images
        if row["problem_id"] != "mark":
            assert asked["content"].startswith("<image>" * len(refs))
        assert (asked["content"] + said["content"]).count("<image>") == len(refs) == len(row["images"])
        for name, ref in zip(row["images"], refs, strict=True):
            assert same_picture(Image.open(out / name), load_image(ref))
    assert {row["origin"] for row in rows} == {"teacher", "student", "reflection"}
    assert {row["round"] for row in rows} == {"distill", "round_01", "reflection"}


@pytest.mark.parametrize("format", TABLES)
@pytest.mark.parametrize("images", ["copy", "reference"])
def test_a_table_opens_with_the_librarys_own_loader(own: OwnRun, tmp_path: Path, format: str, images: str) -> None:
    out = export(own.folder, tmp_path / "out", "--format", format, "--images", images)
    rows = opened(out, tmp_path)
    problem_of: Any = problem_lookup(read_run(own.folder).config)
    assert rows["problem_id"][:] == [problem["id"] for problem in PROBLEMS]
    for row in rows:
        refs = problem_of(row["problem_id"]).images
        for shown, ref in zip(row["images"], refs, strict=True):
            assert same_picture(shown, load_image(ref))
        if format == "trl":
            parts = row["prompt"][0]["content"]
            inside = row["problem_id"] == "mark"
            assert [part["type"] for part in parts] == ["text"] * inside + ["image"] * len(refs) + ["text"]
            assert [turn["role"] for turn in (*row["prompt"], *row["completion"])] == ["user", "assistant"]


def test_the_plain_table_keeps_texts_as_they_are_and_the_labels_of_the_orm(own: OwnRun, tmp_path: Path) -> None:
    rows = list(opened(export(own.folder, tmp_path / "out", "--format", "hf", "--what", "orm"), tmp_path))
    assert "<image>" in rows[-1]["question"]
    assert Counter(row["status"] for row in rows) == {"correct": 5, "wrong": 2}
    assert rows[1]["error_step"] == "Step 2"
    assert json.loads(rows[1]["response"])["status"] == "WRONG"
    assert (rows[0]["choices"], rows[0]["answer"]) == (["12", "13"], "B")


def test_pictures_that_are_referenced_are_not_copied_unless_they_are_no_plain_files(
    own: OwnRun, tmp_path: Path
) -> None:
    out = export(own.folder, tmp_path / "out", "--format", "swift", "--images", "reference")
    shown = {row["problem_id"]: row["images"] for row in read_jsonl(out / "train.jsonl")}
    assert shown["two"] == [str(own.pictures / "a.png"), str(own.pictures / "b.jpg")]
    assert {Path(shown[name][0]).parts[0] for name in ("turned", "clear")} == {"images"}  # turned; white behind it
    assert len([file for file in (out / "images").rglob("*") if file.is_file()]) == 2


@pytest.mark.parametrize("images", ["copy", "reference"])
def test_drawn_pictures_become_files(digits: Path, tmp_path: Path, images: str) -> None:
    out = export(digits, tmp_path / "out", "--format", "llamafactory", "--images", images)
    rows = list(read_jsonl(out / "train.jsonl"))
    assert len(rows) == len(list(read_jsonl(digits / "final" / "train.jsonl")))
    for row in rows:
        ref = "digits:" + row["problem_id"].rpartition("/")[2]
        assert same_picture(Image.open(out / row["images"][0]), load_image(ref))


def test_marks_of_a_tool_in_a_text_are_taken_apart_and_said(
    own: OwnRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(own.folder, tmp_path / "out", "--format", "swift")
    assert "1 rows had marks" in capsys.readouterr().out
    asked = list(read_jsonl(out / "train.jsonl"))[-1]["messages"][0]["content"]
    assert "What stands for <image> and < |image_pad|>?" in asked  # its picture's place, and a token's name
    assert read_json(out / "export.json")["altered"] == {"rows": 1, "ids": ["round_01/mark/0"]}
    assert "`round_01/mark/0`" in (out / "README.md").read_text(encoding="utf-8")


def test_a_family_that_reads_pictures_first_is_exported_so(tmp_path: Path) -> None:
    out = export(own_run(tmp_path, "cogvlm2").folder, tmp_path / "out", "--format", "swift")
    asked = list(read_jsonl(out / "train.jsonl"))[-1]["messages"][0]["content"]
    assert asked.startswith("<image>You") and "What stands for  and < |image_pad|>?" in asked


def test_earlier_turns_are_read_and_not_learnt(digits: Path, tmp_path: Path) -> None:
    out = export(digits, tmp_path / "out", "--format", "swift", "--what", "orm")
    for row in read_jsonl(out / "train.jsonl"):
        question, path, check, verdict = row["messages"]
        assert (path["loss"], "loss" in verdict) == (False, False)
        assert question["content"].startswith("<image>") and "<image>" not in check["content"]
        assert json.loads(verdict["content"])["status"] in ("CORRECT", "WRONG")


@pytest.mark.parametrize(("format", "family", "mark"), [
    ("llamafactory", "internvl2_5", "<image>\nYou"),
    ("swift", "internvl2_5", "<image>You"),
    ("llamafactory", "internvl3", "<image>\nYou"),
    ("llamafactory", "qwen3_vl", "<image>You"),
    ("llamafactory", "qwen2vl", "<image>You"),
])  # fmt: skip
def test_a_line_break_follows_a_picture_where_the_model_reads_one_and_the_tool_writes_none(
    tmp_path: Path, format: str, family: str, mark: str
) -> None:
    out = export(own_run(tmp_path, family).folder, tmp_path / "out", "--format", format)
    assert next(read_jsonl(out / "train.jsonl"))["messages"][0]["content"].startswith(mark)


def test_the_rows_of_another_stage_are_asked_for_by_its_name(digits: Path, tmp_path: Path) -> None:
    out = export(digits, tmp_path / "out", "--format", "llamafactory", "--stage", "round_01")
    assert {row["round"] for row in read_jsonl(out / "train.jsonl")} <= {"distill", "round_01"}


# --- the card ---------------------------------------------------------------------------------------------------------


def test_the_data_card_tells_what_the_runs_files_say(digits: Path, tmp_path: Path) -> None:
    card = (export(digits, tmp_path / "out", "--format", "hf") / "README.md").read_text(encoding="utf-8")
    paths = list(read_jsonl(digits / "final" / "train.jsonl"))
    for origin, rows in Counter(path["lineage"]["origin"] for path in paths).items():
        assert f"| written by | {origin} | {rows:,} |" in card
    for stage, rows in Counter(path["lineage"]["stage"] for path in paths).items():
        assert f"| stage | {stage} | {rows:,} |" in card
    for entry in read_json(digits / "summary.json")["stages"]:
        if entry["acceptance_precision"] is not None:
            assert f"| {100 * entry['acceptance_precision']:.1f} % |" in card
    assert "| synthetic | Synthetic problems" in card
    assert "No row was compared with the problems of a benchmark." in card


def test_the_data_cards_front_matter_is_yaml(own: OwnRun, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    text = (export(own.folder, tmp_path / "out", "--format", "hf") / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["language"] == ["en", "zh"]
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "| problems.jsonl | Own problems |  | that of your file |" in text
