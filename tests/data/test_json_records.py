"""JSON records of a file, one at a time, whatever form the file has."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mathse.data import json_records
from mathse.data.json_records import read_records
from mathse.errors import DataError

ROWS = [{"id": str(k), "question": f'求 x_{k} 的值。\n[{{"', "n": [k, {"deep": k}]} for k in range(40)]


def values(path: Path) -> list[object]:
    return [record.values for record in read_records(path)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_element_by_element_whatever_the_size_of_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    text = "\ufeff" + json.dumps(ROWS, ensure_ascii=False, indent=indent)
    assert values(write(tmp_path / "rows.json", text)) == ROWS


def test_lines_objects_and_gzip_give_the_same_records(tmp_path: Path) -> None:
    lines = "\n\n".join(json.dumps(row) for row in ROWS)
    named = json.dumps({row["id"]: {k: v for k, v in row.items() if k != "id"} for row in ROWS})
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    assert values(write(tmp_path / "rows.jsonl", lines)) == ROWS
    assert values(write(tmp_path / "lines.json", lines)) == ROWS
    assert values(write(tmp_path / "named.json", named)) == ROWS
    assert values(tmp_path / "rows.json.gz") == ROWS
    assert values(write(tmp_path / "one.json", json.dumps(ROWS[3], indent=1))) == [ROWS[3]]


def test_the_line_is_where_an_element_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", '[\n {"a":\n 1},\n\n {"b": 2}, {"c": 3}]')
    assert [record.line for record in read_records(path)] == [2, 5, 5]


def test_what_is_no_object_is_a_bad_record_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", '[{"a": 1}, 17, "text", null, {"b": 2}]')
    found = list(read_records(path))
    assert [record.values for record in found] == [{"a": 1}, None, None, None, {"b": 2}]
    assert "got a number 17" in found[1].reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1},\n {"b": }]', r"rows.json:2: broken JSON in a list"),
        ('[{"a": 1},\n {"b": 2}', r"rows.json:2: a JSON list that does not end"),
        ('[{"a": 1}\n {"b": 2}]', r"rows.json:2: '{' where ',' must be"),
        ("[", "does not end"),
        ('{"a": 1,\n "b": }', r"rows.json:2: broken JSON"),
        ("[" * 100_000, "bounds"),
    ],
)
def test_a_file_that_breaks_off_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(read_records(write(tmp_path / "rows.json", text)))


def test_bytes_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_records(tmp_path / "rows.json"))


def test_a_row_with_a_key_twice_is_listed_in_every_form_of_file(tmp_path: Path) -> None:
    twice, once = '{"id": "a", "answer": "1", "answer": "2"}', '{"id": "b", "answer": "1", "n": {"k": 1, "k": 1}}'
    for name, text in {"a.jsonl": f"{twice}\n{once}\n", "b.json": f"[{twice}, {once}]", "c.json": twice}.items():
        first, *others = read_records(write(tmp_path / name, text))
        assert (first.values, first.reason) == (None, "keys that stand twice in the row: 'answer'; keep one of each")
        assert all(record.values for record in others)  # what stands twice further in is not ours to judge
    named = '{"1": {"answer": "1"}, "2": {"answer": "1"}, "1": {"answer": "3"}, "3": {"a": 1, "a": 2}}'
    first, second, third = read_records(write(tmp_path / "d.json", named))
    assert first.reason == "two records are called '1'; ids are unique, rename one" and first.values is None
    assert second.values == {"id": "2", "answer": "1"}
    assert third.reason == "keys that stand twice in the row: 'a'; keep one of each"
