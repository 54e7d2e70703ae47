"""MMMU-Pro's official extraction and verdicts, on published responses of GPT-4o and rule by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mathse.errors import DataError
from mathse.evaluation.benchmarks import make
from mathse.evaluation.benchmarks.mmmu_pro import BY_CHANCE, find_option, read_options
from mathse.inference.rows import problem_row

TEN = [f"choice {k}" for k in range(10)]


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "test_Math_1", "question": "Which is larger, <image 2> or <image 1>?",
        "options": "['the first', 'the second', \"it's equal\"]", "answer": "B", "image_1": "1.png", "image_2": "2.png",
        "subject": "Math", "topic_difficulty": "Easy", "img_type": "['Plots and Charts']",
    } | changes  # fmt: skip


def items_of(folder: Path, *rows: dict[str, Any], **settings: Any) -> Any:
    (folder / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    for k in range(1, 4):
        Image.new("RGB", (8, 8), (0, 0, 80 * k)).save(folder / f"{k}.png")
    bench = make("mmmu_pro", **settings)
    return bench, bench.load(folder / "rows.jsonl")


# MMMU-Benchmark/MMMU, mmmu-pro/output/gpt-4o_standard(10 options)_direct.jsonl (Apache-2.0): options, response, the
# letter that the authors' script found.
HISTORY = [
    "The imperial interests of the United States",
    "The environmental conservation movement",
    "The rise of digital technology",
    "A stagnation in global trade",
    "The advancement of space exploration",
    "The burgeoning human rights movement",
    "The explosion in global population",
    "The decline in religious influence",
    "The shift towards renewable energy",
    "A dramatic increase in migration",
]
NUTRIENTS = ["Zinc", "Potassium", "Magnesium", "Molybdenum", "Calcium", "Sulfur", "Don't know and don't want to guess",
             "Iron", "Nitrogen", "Phosphate"]  # fmt: skip
FORCES = ["17940 N", "38750 N", "25150 N", "34560 N", "22530 N", "42075 N", "16540 N", "29800 N", "20100 N"]
PUBLISHED = [
    (HISTORY, "J. A dramatic increase in migration", "A"),  # the rule's own mistake
    (TEN, "B. The spread of pathogens across the Silk Road", "B"),
    (TEN, "H", "H"),
    (NUTRIENTS, "I. Nitrogen", "I"),
    (FORCES, "H. 29800 N", "H"),
    (["False", "True"], "A. False", "A"),
    (TEN, "I.", "I"),
    (TEN[:9], "D. 6.98%", "D"),
    (TEN, "C. Low-conflict", "C"),
]


@pytest.mark.parametrize(("options", "response", "letter"), PUBLISHED)
def test_published_responses_have_their_published_letters(options: list[str], response: str, letter: str) -> None:
    assert find_option(response, options) == letter


RULES = [
    ("Think. Answer: C", "C"), ("Answer: B. No. Answer: (D)", "D"), ("Answer: B or C, or (B)", "B"),
    ("It is (A), or rather (C). Or (B)", "B"), ("either A or C , surely C ", "C"), ("x=1. It's E.", "E"),
    ("It must be the one called choice 7 then", "H"), ("choice 7 then", ""), ("", ""), ("no idea", ""),
    ("first choice 1, then on reflection choice 3", "D"), ("answer: b", ""),
]  # fmt: skip


@pytest.mark.parametrize(("response", "letter"), RULES)
def test_the_letter_is_found_as_the_official_script_finds_it(response: str, letter: str) -> None:
    assert find_option(response, TEN) == letter


def test_pictures_stand_where_their_marks_are_in_question_and_options(tmp_path: Path) -> None:
    _, (item,) = items_of(tmp_path, row(options=["<image 3>", "neither"], image_3="3.png"))
    assert [Path(image).name for image in item.problem.images] == ["2.png", "1.png", "3.png"]
    assert item.problem.choices == ("<image>", "neither")
    # a picture without a mark comes last, and then none has a place
    _, (item,) = items_of(tmp_path, row(image_3="3.png"))
    assert [Path(image).name for image in item.problem.images] == ["2.png", "1.png", "3.png"]
    assert "marked" not in problem_row(item.prompt, item.problem)


def test_a_prompt_is_the_authors_and_shows_pictures_in_their_places(tmp_path: Path) -> None:
    bench, (item,) = items_of(tmp_path, row())
    assert item.prompt.startswith(
        "Which is larger, <image> or <image>?\nA. the first\nB. the second\nC. it's equal\nAnswer the preceding "
    )
    assert item.prompt.endswith("Think step by step before answering.")
    assert [Path(image).name for image in item.problem.images] == ["2.png", "1.png"]
    assert problem_row(item.prompt, item.problem)["marked"] is True
    _, (direct,) = items_of(tmp_path, row(), prompt="direct")
    assert direct.prompt.endswith("C. it's equal\nAnswer with the option letter from the given choices directly.")


def test_the_setting_vision_has_the_question_in_the_picture(tmp_path: Path) -> None:
    seen = {"id": "test_Math_2", "image": "3.png", "options": str(TEN), "answer": "J", "subject": "Math"}
    bench, (item,) = items_of(tmp_path, seen, setting="vision")
    assert item.prompt.startswith("Write out the multiple-choice question in the image and then solve it.")
    assert [Path(image).name for image in item.problem.images] == ["3.png"] and len(item.problem.choices) == 10
    assert bench.protocol()["setting"] == "vision"


def test_other_subjects_are_left_out_and_a_file_without_this_one_is_refused(tmp_path: Path) -> None:
    other = row(id="test_Art_1", subject="Art")
    _, items = items_of(tmp_path, other, row())
    assert [item.problem.id for item in items] == ["test_Math_1"]
    with pytest.raises(DataError, match="no row has the subject 'Math'"):
        items_of(tmp_path, other)


def test_verdicts_and_aggregates_count_draws_by_chance(tmp_path: Path) -> None:
    rows = [row(id=f"test_Math_{k}", topic_difficulty="Easy" if k < 2 else "Hard") for k in range(4)]
    bench, items = items_of(tmp_path, *rows)
    responses = ["Answer: B", "Answer: C", "...", "B"]
    scored = bench.score(items, responses, bench.extract(items, responses))
    assert [each.correct for each in scored][:2] == [True, False] and scored[3].correct is True
    assert scored[2].prediction in "ABC" and scored[2].note == BY_CHANCE
    assert scored == bench.score(items, responses, bench.extract(items, responses))  # the draw is the problem's own
    found = bench.buckets(items, scored)
    assert found["Math"]["total"] == 4 and found["by chance"] == "1"
    assert found["topic_difficulty"]["Easy"] == {"accuracy": 0.5, "correct": 1, "total": 2}


def test_a_students_own_sentence_is_mapped() -> None:
    bench = make("mmmu_pro")
    assert bench.mapped("Step 1: ...\nThe answer to this problem is B.") == "Answer: B"
    assert bench.mapped("no marker") == "no marker"


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for options in ("['a'", "[]", "['a']", "{}", str(list(range(11))), "[" * 5000, 7):
        with pytest.raises(DataError, match='"options" is a list of 2 to 10 texts'):
            read_options("a.jsonl:1", options)
    with pytest.raises(DataError, match=r'"answer" \'D\' is none of 3 options'):
        items_of(tmp_path, row(answer="D"))
    with pytest.raises(DataError, match="no image '9.png'"):
        items_of(tmp_path, row(image_2="9.png"))
