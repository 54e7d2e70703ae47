"""Public records become rows that ``data=jsonl`` reads."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mathse.commands.convert_data import convert, main
from mathse.config import build
from mathse.config.data import JsonlDataConfig
from mathse.errors import DataError

SETS = [("geometry3k", "geometry3k_samples", 10), ("mathvision", "mathvision", 30)]


@pytest.fixture
def records(tmp_path: Path, fixtures: Path) -> Path:
    """A copy of the Geometry3K samples that a test may damage."""
    return Path(shutil.copytree(fixtures / "datasets" / "geometry3k_samples", tmp_path / "source"))


@pytest.mark.parametrize(("format", "folder", "rows"), SETS)
def test_every_record_becomes_a_usable_row(
    tmp_path: Path, fixtures: Path, format: str, folder: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "own" / f"{format}.jsonl"
    assert main([str(fixtures / "datasets" / folder), str(target), "--format", format]) == 0
    assert f"{rows} rows" in capsys.readouterr().out
    source = build(JsonlDataConfig(path=str(target)))
    problems = [problem for split in source.splits().values() for problem in split]
    assert len(problems) == rows
    assert not source.bad_rows
    assert all(problem.id.startswith(f"{format}/") and problem.images for problem in problems)
    assert all("<image" not in problem.question for problem in problems)


PUBLISHED = [
    ("geometry3k", 10, 10),
    ("mathvision", 10, 10),
    ("mathverse", 20, 0),
    ("dynamath", 14, 14),
    ("wemath", 14, 14),
]


@pytest.mark.parametrize(("format", "rows", "pictures"), PUBLISHED)
def test_sets_are_read_as_they_are_published(
    tmp_path: Path, fixtures: Path, format: str, rows: int, pictures: int
) -> None:
    target = tmp_path / f"{format}.jsonl"
    assert convert(fixtures / "real" / format, target, format) == rows
    source = build(JsonlDataConfig(path=str(target)))
    problems = [problem for split in source.splits().values() for problem in split]
    assert len(problems) == rows and not source.bad_rows
    assert sum(bool(problem.images) for problem in problems) == pictures
    assert all(problem.answer in "ABCDE"[: len(problem.choices)] for problem in problems if problem.choices)
    assert not any("Choices" in problem.question or " A B = " in problem.question for problem in problems)


@pytest.mark.parametrize(("format", "rows", "pictures"), PUBLISHED)
def test_the_page_says_how_many_of_them_there_were(root: Path, format: str, rows: int, pictures: int) -> None:
    lines = (root / "docs" / "own-data.md").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(f"| `{format}` |") and re.search(rf"\| {rows}\b", line) for line in lines)


def test_one_file_of_a_set_is_read_as_the_folder_is(tmp_path: Path, fixtures: Path) -> None:
    root = fixtures / "real" / "mathvision"
    convert(root, tmp_path / "folder.jsonl", "mathvision")
    convert(next(root.glob("data/*.jsonl")), tmp_path / "file.jsonl", "mathvision")
    assert (tmp_path / "folder.jsonl").read_bytes() == (tmp_path / "file.jsonl").read_bytes()


def test_geometry_keeps_the_answer_letter_and_its_choices(tmp_path: Path, records: Path) -> None:
    convert(records, tmp_path / "own.jsonl", "geometry3k")
    problem = build(JsonlDataConfig(path=str(tmp_path / "own.jsonl"))).get("geometry3k/11")
    assert (problem.answer, problem.choices) == ("D", ("30", "40", "60", "80"))
    assert problem.solution is None  # the record's is a blank


def test_converted_files_can_be_joined(tmp_path: Path, fixtures: Path) -> None:
    for format, folder, _ in SETS:
        convert(fixtures / "datasets" / folder, tmp_path / f"{format}.jsonl", format)
    joined = "".join((tmp_path / f"{format}.jsonl").read_text(encoding="utf-8") for format, _, _ in SETS)
    (tmp_path / "all.jsonl").write_text(joined, encoding="utf-8")
    assert all(build(JsonlDataConfig(path=str(tmp_path / "all.jsonl"))).splits().values())


def test_converting_again_changes_nothing(tmp_path: Path, records: Path) -> None:
    target = tmp_path / "own.jsonl"
    convert(records, target, "geometry3k")
    before = target.read_bytes()
    assert convert(records, target, "geometry3k") == 10
    assert target.read_bytes() == before


def test_file_with_other_content_is_left_alone(tmp_path: Path, records: Path) -> None:
    (tmp_path / "own.jsonl").write_text("mine\n")
    with pytest.raises(DataError, match="other content"):
        convert(records, tmp_path / "own.jsonl", "geometry3k")
    assert (tmp_path / "own.jsonl").read_text() == "mine\n"


def test_target_that_is_no_jsonl_file_is_refused(tmp_path: Path, records: Path) -> None:
    with pytest.raises(DataError, match=r"\.jsonl file"):
        convert(records, tmp_path / "own", "geometry3k")


def test_records_of_another_format_are_refused_by_line(tmp_path: Path, records: Path) -> None:
    with pytest.raises(DataError, match=r"records\.jsonl:1: no mathvision record"):
        convert(records, tmp_path / "own.jsonl", "mathvision")
    assert not (tmp_path / "own.jsonl").exists()


def test_record_without_its_image_is_refused_by_line(tmp_path: Path, records: Path) -> None:
    (records / "images" / "12.png").unlink()
    with pytest.raises(DataError, match=r"records\.jsonl:2: no image 'images/12\.png'"):
        convert(records, tmp_path / "own.jsonl", "geometry3k")


def test_image_outside_the_source_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "source").mkdir()
    record = {"id": 1, "problem_text": "x", "answer": "A", "choices": ["1"], "image_file": "../secret.png"}
    (tmp_path / "source" / "records.jsonl").write_text(json.dumps(record))
    with pytest.raises(DataError, match="no image"):
        convert(tmp_path / "source", tmp_path / "own.jsonl", "geometry3k")


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*SRC is a folder"):
        convert(tmp_path / "nowhere", tmp_path / "own.jsonl", "geometry3k")
