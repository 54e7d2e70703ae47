"""Sequences whose rows lie on the disk: indexed, cut and compared as lists are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from small import path

from mathse.errors import DataError
from mathse.runs.rows import Chained, Chosen, JsonlRows, Mapped, match_rows
from mathse.runs.store import write_jsonl
from mathse.types import ReasoningPath


@pytest.fixture
def paths() -> list[ReasoningPath]:
    return [path(f"p{k}", text="x" * k + "\u2028é\n") for k in range(20)]


@pytest.fixture
def file(tmp_path: Path, paths: list[ReasoningPath]) -> Path:
    write_jsonl(tmp_path / "paths.jsonl", paths)
    return tmp_path / "paths.jsonl"


def test_a_file_is_the_list_of_its_rows(file, paths):
    rows = JsonlRows(file, ReasoningPath)
    assert len(rows) == 20 and rows == paths and list(rows) == paths
    assert rows[3] == paths[3] and rows[-1] == paths[-1] and rows[5:9] == paths[5:9] and rows[::-3] == paths[::-3]
    assert [rows[k] for k in random.Random(0).sample(range(20), 20)] != paths
    with pytest.raises(IndexError):
        rows[20]


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    assert list(JsonlRows(tmp_path / "none.jsonl", ReasoningPath)) == []


def test_a_file_stays_what_it_was_when_another_takes_its_name(file, paths):
    rows = JsonlRows(file, ReasoningPath)
    write_jsonl(file, paths[:2])
    assert rows == paths and JsonlRows(file, ReasoningPath) == paths[:2]


def test_blank_lines_are_no_rows_and_a_bad_one_is_told_by_its_number(file):
    first, second, *_ = file.read_text().split("\n")  # the rows hold another kind of line break too
    file.write_text(f'{first}\n\n  \n{second}\n{{"id": 1}}\n')
    rows = JsonlRows(file, ReasoningPath)
    assert len(rows) == 3 and rows[1].problem_id == "p1"
    with pytest.raises(DataError, match=r"paths\.jsonl.*5"):
        rows[2]


def test_chosen_rows_are_read_in_the_order_asked(paths):
    assert Chosen(paths, [5, 0, 5]) == [paths[5], paths[0], paths[5]]
    assert Chosen(paths, range(0)) == []


def test_chained_rows_follow_one_another(paths):
    both = Chained(Chained(paths[:3], []), paths[3:7], paths[7:])
    assert both == paths and [both[k] for k in range(20)] == paths and both[2:4] == paths[2:4]
    assert Chained() == [] and len(Chained([], [])) == 0


def test_mapped_rows_are_made_when_read():
    made: list[int] = []
    rows = Mapped(lambda a, b: made.append(a) or a * b, [1, 2, 3], [4, 5, 6])
    assert len(rows) == 3 and made == []
    assert rows[1] == 10 and made == [2] and list(rows) == [4, 10, 18]
    with pytest.raises(ValueError, match="different lengths"):
        Mapped(lambda a, b: a, [1], [])


def test_joining_finds_each_rows_partner_and_misses_none(paths):
    others = [{"path": p.id, "n": n} for n, p in enumerate(reversed(paths))]
    places = match_rows(paths, others, key=lambda p: p.id, of=lambda o: o["path"])
    assert [others[k]["path"] for k in places] == [p.id for p in paths]
    with pytest.raises(KeyError):
        match_rows(paths, others[1:], key=lambda p: p.id, of=lambda o: o["path"])
