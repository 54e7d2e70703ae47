"""The marker, the edit distance, math-verify's opinion and the hub."""

from __future__ import annotations

import io
import random
import re
import time

import pytest
from PIL import Image

from mathse.errors import DataError
from mathse.evaluation.benchmark import Item
from mathse.evaluation.benchmarks import make, math_verifier, mathvista, rows
from mathse.evaluation.benchmarks.bounded import Workers
from mathse.evaluation.benchmarks.marker import mapped_response, marked_answer
from mathse.evaluation.benchmarks.math_verifier import second_opinions
from mathse.evaluation.benchmarks.mathvision_answer import find_answer
from mathse.types import Problem
from tests.benchmarks.cases import vista_row

MARKED = [
    ("Step 1: 2.\nThe answer to this problem is 5.", "5"), ("The answer to this problem is (B) 12 cm.", "B"),
    ("†Answer: 60", "60"), ("so\nAnswer: C. 12", "C"), ("**Answer:** $\\frac{1}{2}$", "\\frac{1}{2}"),
    ("<answer>60</answer> bye", "60"), ("<answer>\\boxed{\\frac{1}{2}}</answer>", "\\frac{1}{2}"),
    ("<answer>\nB\n</answer>", "B"), ("Final Answer: \\boxed{7}", "7"), ("因此,本题的答案是 12。", "12"),
    ("答案:B、5", "B"), ("故选C", "C"), ("\\boxed{3}\n†Answer: 4", "4"), ("Answer: 1\nNo.\nAnswer: 2", "2"),
    # no marker of the student's, or nothing behind it
    ("The answer is 5.", None), ("I would answer: maybe", None), ("\\boxed{5}", None), ("†Answer:", None), ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("response", "answer"), MARKED)
def test_the_students_marked_answer_is_found(response, answer):
    assert marked_answer(response) == answer
    assert mapped_response(response) == (response if answer is None else f"\\boxed{{{answer}}}")


REPEATED = ["\n", "\r\n", " ", "*", "(", "\\frac{", "oxed{", "7", "†\n", "\n> ", "answer:", 'The answer is "']


@pytest.mark.parametrize("part", REPEATED)
def test_a_long_text_of_one_kind_is_read_in_no_time(part):
    text, start = part * (100_000 // len(part)), time.process_time()
    marked_answer(text)
    find_answer(text)
    vista = make("mathvista", quick_extract=True)
    row = vista_row(answer_type="float")
    vista.extract([Item(Problem("1", ""), row, "")], [text], None)
    vista.normalized(text, row)
    assert time.process_time() - start < 1


def test_only_the_end_of_a_long_text_is_looked_through_for_the_marker():
    marked = "The answer to this problem is 5."
    assert marked_answer("x" * 100_000 + marked) == "5"
    assert marked_answer(marked + "x" * 100_000) is None


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ('The answer is "B".', "B"),
        ('So. The answer is "a "B". or". Or', 'a "B". or'),
        ('The answer is "\nThe answer is "C".\n', "C"),
        ('The answer is "The answer is "D".', 'The answer is "D'),
        ('The answer is "B"', None),
        ('".The answer is "', None),
    ],
)
def test_the_quick_rule_reads_what_the_official_pattern_does(response, found):
    item = Item(Problem("1", ""), vista_row(answer_type="text"), "")
    match, whole = (find(r'The answer is "(.*)"\.', response) for find in (re.search, re.fullmatch))
    within = make("mathvista", quick_extract=True).extract([item], [response], None)[0].text
    assert within == found == (match[1] if match else None)
    assert make("mathvista").extract([item], [response], None)[0].text == (whole[1] if whole else None)


def plain_distance(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for k, a in enumerate(left, start=1):
        above, row = row, [k]
        for j, b in enumerate(right, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def test_the_edit_distance_is_levenshteins():
    draw = random.Random(0)
    for _ in range(2_000):
        left, right = ("".join(draw.choices("abcé中", k=draw.randrange(9))) for _ in range(2))
        assert mathvista.edit_distance(left, right) == plain_distance(left, right)
    long = "".join(draw.choices("ab", k=300))
    assert mathvista.edit_distance(long, long[::-1]) == plain_distance(long, long[::-1])


def test_the_first_of_several_nearest_options_is_chosen():
    assert mathvista.nearest("", ["yes", "no", "so"]) == "no"
    assert mathvista.nearest("cat", ["bat", "rat"]) == "bat"


OPINIONS = [
    (["\\frac{1}{2}"], "The answer is $0.5$.", False, True), (["5"], "So \\boxed{5}", False, True),
    (["B", "$4 \\mathrm{~kg}$"], "The answer is (B).", True, True), (["B", "12"], "B", True, True),
    (["B", "12"], "It is 12.", True, True), (["B", "12"], "C", True, False), (["5"], "6", False, False),
    (["5"], "", False, False), ([""], "5", False, None),
]  # fmt: skip


@pytest.mark.parametrize(("references", "response", "letter", "opinion"), OPINIONS)
def test_math_verify_gives_a_second_opinion(references, response, letter, opinion):
    assert second_opinions([(references, response, letter)]) == [opinion]


def test_an_opinion_that_takes_too_long_is_none(monkeypatch):
    quick = Workers("verify", limit=0.3)
    monkeypatch.setattr(math_verifier, "_workers", lambda: quick)
    questions = [(["5"], "$\\binom{100000000}{50000000}$", False), (["5"], "$5$", False)]
    assert second_opinions(questions) == [None, True]
    quick.close()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "white").save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_data_set_from_the_hub_lays_its_pictures_out_as_files(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="reading from the hub needs datasets")
    table = datasets.Dataset.from_list([vista_row(decoded_image={"bytes": png(), "path": None})])
    table = table.cast_column("decoded_image", datasets.Image())
    table.to_parquet(tmp_path / "set" / "data" / "testmini-00000-of-00001.parquet")
    monkeypatch.setattr(mathvista.MathVista, "hub", str(tmp_path / "set"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (item,) = make("mathvista").load(None, tmp_path / "pictures")
    assert item.problem.images == (str((tmp_path / "pictures" / "images" / "1.png").resolve()),)
    assert "decoded_image" not in item.raw
    assert Image.open(item.problem.images[0]).size == (4, 4)


def test_a_data_set_that_cannot_be_loaded_names_the_way_around(tmp_path):
    pytest.importorskip("datasets", reason="reading from the hub needs datasets")
    with pytest.raises(DataError, match="cannot be loaded from the hub or its cache.*benchmark.NAME.problems=FILE"):
        list(rows.read_hub(str(tmp_path / "gone"), None, "test", "id", tmp_path, True))


def test_a_picture_that_leads_out_of_its_folder_is_refused(tmp_path):
    row = {"pid": "1", "image": "../1.png", "decoded_image": {"bytes": png()}}
    with pytest.raises(DataError, match="leads out of"):
        rows.picture_to_file(row, "pid", tmp_path, True)
