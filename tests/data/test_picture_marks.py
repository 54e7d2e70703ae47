"""``<image>`` in a question: rows, prompts and requests show a picture at its mark, and models' texts hold no marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small import picture

from mathse.config.data import JsonlDataConfig, PublicDataConfig
from mathse.data.decontamination.question_text import normalised
from mathse.data.language import language
from mathse.data.problems import JsonlData
from mathse.data.readers.source import PublicData
from mathse.errors import DataError
from mathse.inference.llm.images import content_of
from mathse.inference.prompts import annotation_prompt
from mathse.inference.rows import judge_row, reflect_row, solve_row
from mathse.inference.serving.dialect import make_messages
from mathse.models.row import Row, with_pictures_first
from mathse.types import Problem, PromptStyle, Verdict

ASKED = "Is <image> larger than <image>?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "ab":
        picture(28, 28, seed=ord(name)).save(tmp_path / f"{name}.png")
    return tmp_path


def opened(folder: Path, **row: Any) -> Problem:
    values = {"id": "p", "question": ASKED, "images": ["a.png", "b.png"], "answer": "1", **row}
    (folder / "own.jsonl").write_text(json.dumps(values), encoding="utf-8")
    return JsonlData(JsonlDataConfig(path=str(folder / "own.jsonl"))).get("p")


def shown(content: Any, url: str = "url") -> list[str]:
    """Texts as they are, pictures by the last letter of their file's stem."""
    return [part.get("text") or Path(part["image_url"][url]).stem for part in content]


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "reason"), [
    ({"images": ["a.png"]}, '"<image>" stands 2 times in the question and its choices, and "images" names 1; write'),
    ({"images": []}, '"images" names 0; write one mark for each picture, or none'),
    ({"question": "Which?", "choices": ["<image>", "none"], "answer": "A"}, "stands 1 times"),
])  # fmt: skip
def test_another_number_of_marks_than_pictures_is_a_bad_row(folder: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as error:
        opened(folder, **row)
    assert "own.jsonl:1: " in str(error.value) and reason in str(error.value)


def test_marks_in_front_of_the_words_say_what_holds_without_them(folder: Path) -> None:
    assert opened(folder, question="<image>\n<image>\nWhich is larger?").question == "Which is larger?"
    assert opened(folder, question=ASKED).question == ASKED
    assert opened(folder, question=f"<image>\n{ASKED[9:]}").question.startswith("<image>")
    both = opened(folder, question="<image>Which?", choices=["<image>", "none"], answer="B")
    assert (both.question, both.choices) == ("<image>Which?", ("<image>", "none"))


def test_a_conversation_keeps_tags_amid_its_words_and_another_number_is_a_bad_row(folder: Path) -> None:
    def read(images: list[str]) -> PublicData:
        turns = [{"from": "human", "value": ASKED}, {"from": "gpt", "value": "The answer is 5."}]
        (folder / "train.json").write_text(json.dumps([{"id": "1", "images": images, "conversations": turns}]))
        return PublicData(PublicDataConfig(name="conversations", root=str(folder)))

    [problem] = [p for split in read(["a.png", "b.png"]).splits().values() for p in split]
    assert problem.question == ASKED and [Path(image).name for image in problem.images] == ["a.png", "b.png"]
    with pytest.raises(DataError, match='stands 2 times in the question and its choices, and "images" names 1'):
        read(["a.png"])


def test_a_mark_changes_neither_what_is_compared_nor_the_language() -> None:
    assert normalised("In <image>, find x = 5.").text == normalised("In, find x = 5.").text
    assert language("如图 <image>,求") == "zh" == language("如图,求")


# --- prompts ----------------------------------------------------------------------------------------------------------

PLACED = Problem("p", ASKED, ("a.png", "b.png"), "<image>")
FEEDBACK = Verdict("p/0", "wrong", "Step <image>", "It is <image>.")


@pytest.mark.parametrize("style", ["full", "compact"])
def test_every_prompt_shows_the_pictures_at_the_questions_marks_and_nowhere_else(style: PromptStyle) -> None:
    path = "Step 1: <image> is larger."
    rows = [
        solve_row(style, PLACED),
        reflect_row(style, PLACED, path, FEEDBACK),
        judge_row(style, PLACED, path, see_answer=True, see_image=True),
    ]
    for row in rows:
        turns = make_messages(row, str)
        texts = shown(turns[0]["content"])
        assert texts[0].endswith("Is ") and texts[1:4] == ["a", " larger than ", "b"] and texts[4].startswith("?")
        assert not any("<image>" in text for text in texts)
        first = make_messages(with_pictures_first(row), str)[0]["content"]
        assert shown(first)[:2] == ["a", "b"] and "Is  larger than ?" in shown(first)[2]


def test_without_marks_pictures_stand_first_and_a_models_text_is_left_as_it_is() -> None:
    plain = Problem("p", "Which is larger?", ("a.png", "b.png"), "5")
    row = judge_row("full", plain, "Step 1: <image> and <image>.", see_answer=False, see_image=True)
    assert "marked" not in row
    texts = shown(make_messages(row, str)[0]["content"])
    assert texts[:2] == ["a", "b"] and "Step 1: <image> and <image>." in texts[2]


def test_a_judge_without_pictures_reads_no_mark() -> None:
    row: Row = judge_row("full", PLACED, "5", see_answer=False, see_image=False)
    assert (list(row["images"]), "marked" in row, "<image>" in row["question"]) == ([], False, False)


def test_a_teacher_is_sent_text_and_pictures_in_order(folder: Path) -> None:
    problem = opened(folder)
    content = content_of(problem, annotation_prompt(problem, "5 <image>"), 512)
    assert [part["type"] for part in content] == ["text", "image_url", "text", "image_url", "text"]
    assert content[1] != content[3] and "5 < image>" in content[4]["text"]
