"""Benchmark files as they are published are read; each mistake is one sentence with file, line and remedy."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmarks import NAMES, make
from tests.benchmarks.cases import verse_row, vision_row, vista_row, write

VISTA = [vista_row(pid="1"), vista_row(pid="2", answer="4")]


def ids(file, name="mathvista"):
    return [item.problem.id for item in make(name).load(file)]


def test_lists_objects_lines_and_their_gzips_are_read(tmp_path):
    lines = write(tmp_path / "a.jsonl", VISTA)
    unnamed = [{key: value for key, value in row.items() if key != "pid"} for row in VISTA]
    (tmp_path / "b.json").write_text(json.dumps(VISTA))
    (tmp_path / "c.json").write_text(json.dumps(dict(zip("12", unnamed, strict=True))))
    (tmp_path / "d.json").write_text("\ufeff" + lines.read_text())  # JSON lines under the other name, with a mark
    with gzip.open(tmp_path / "e.jsonl.gz", "wt") as file:
        file.write(lines.read_text())
    (tmp_path / "f.json").write_text(json.dumps(VISTA[0]))  # a single line
    for name in "abcde":
        (file,) = tmp_path.glob(f"{name}.*")
        assert ids(file) == ["1", "2"], file
    assert ids(tmp_path / "f.json") == ["1"]


def test_rows_in_our_own_format_are_the_benchmarks_own(tmp_path):
    row = {"id": "mathvision/7", "question": "Which?", "images": ["images/7.png"], "answer": "B", "level": 1}
    file = write(tmp_path / "ours.jsonl", [row | {"choices": ["1", "2"], "subject": "logic", "image": "images/7.png"}])
    (item,) = make("mathvision").load(file)
    assert (item.problem.id, item.problem.choices, len(item.problem.images)) == ("7", ("1", "2"), 1)


def test_images_are_found_below_another_folder_with_or_without_their_first_one(tmp_path):
    file = write(tmp_path / "a.jsonl", VISTA[:1])
    for folder in (tmp_path, tmp_path / "images"):
        (item,) = make("mathvista").load(file, folder)
        assert item.problem.images == (str((tmp_path / "images" / "1.png").resolve()),)


def test_half_a_character_in_a_problem_is_replaced(tmp_path):
    row = vista_row(pid="1", question="How many \ud83d are there?")
    for name, text in (("a.jsonl", json.dumps(row)), ("b.json", json.dumps([row]))):
        (tmp_path / name).write_text(text)
        (item,) = make("mathvista").load(tmp_path / name, need_images=False)
        assert "How many \ufffd are there?" in item.problem.question


def test_numbers_for_ids_are_taken_as_text(tmp_path):
    assert ids(write(tmp_path / "a.jsonl", [vista_row(pid=7)])) == ["7"]


BROKEN = [
    ('{"pid": "1",\n', r"a\.jsonl:1: broken JSON: .* at column \d+; write one JSON object a line"),
    ("\n\n[1, 2]\n", r"a\.jsonl:3: a row is a JSON object, got a list"),
    ("  \n", r"a\.jsonl: the file is empty; give the benchmark's problems"),
    ("[" * 100_000, r"a\.jsonl:1: JSON beyond all bounds"),
    (json.dumps(vision_row()), r'a\.jsonl:1: no row of mathvista \(it has no "pid"\); .*pass benchmark=mathvision'),
    (json.dumps(verse_row()), r'a\.jsonl:1: no row of mathvista \(it has no "pid"\); .*pass benchmark=mathverse'),
    (json.dumps({"a": 1}), r'a\.jsonl:1: no row of mathvista \(it has no "pid"\); give mathvista\'s own problems file'),
    (f"{json.dumps(VISTA[0])}\n" * 2, r'a\.jsonl:2: "pid" \'1\' is already at .*a\.jsonl:1; ids are unique'),
    (json.dumps(vista_row(image="images/9.png")), r"a\.jsonl:1: no image 'images/9\.png' in .*; give the folder"),
    (json.dumps(vista_row(image="9" * 5000)), r"a\.jsonl:1: no image '9{79} in .*; give the folder"),
    (json.dumps(vista_row(image="../1.png")), r"a\.jsonl:1: image '\.\./1\.png' is no path below"),
    (json.dumps(vista_row(image="/etc/passwd")), r"a\.jsonl:1: image '/etc/passwd' is no path below"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), BROKEN)
def test_a_broken_file_is_one_sentence_with_file_line_and_remedy(content, sentence, tmp_path):
    write(tmp_path / "a.jsonl", VISTA)
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError) as error:
        ids(tmp_path / "a.jsonl")
    assert re.search(sentence, str(error.value))
    assert "\n" not in str(error.value)


def test_a_broken_json_file_names_its_line(tmp_path):
    write(tmp_path / "b.jsonl", VISTA)
    (tmp_path / "a.json").write_text(f'[\n{json.dumps(VISTA[0])},\n{{"pid" 2}}\n]')
    with pytest.raises(DataError, match=r"a\.json:3: broken JSON"):
        ids(tmp_path / "a.json")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file \(looked for /"):
        ids(tmp_path / "gone.jsonl")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-4])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: not a whole gzip file"):
        ids(tmp_path / "a.jsonl.gz")
    good = write(tmp_path / "b.jsonl", VISTA[:1])
    good.write_bytes(good.read_bytes() + b'{"pid": "\xff"}\n')
    with pytest.raises(DataError, match=r"b\.jsonl:2: not UTF-8"):
        ids(tmp_path / "b.jsonl")


def test_images_that_nobody_looks_at_may_be_missing(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(vista_row()))
    (item,) = make("mathvista").load(tmp_path / "a.jsonl", need_images=False)
    assert item.problem.images == ()


def test_benchmarks_and_splits_are_chosen_by_name():
    assert [make(name).name for name in NAMES] == list(NAMES)
    with pytest.raises(ConfigError, match="benchmark = 'mathvist', allowed: mathvista, mathverse"):
        make("mathvist")
    with pytest.raises(ConfigError, match="benchmark.mathvista.split = 'train', allowed: testmini, test"):
        make("mathvista").load(None, split="train")
