"""Questions are taken out of the wrapping that conversations put around them."""

from __future__ import annotations

import pytest

from mathse.data.json_records import BadRow
from mathse.data.readers.llava import make_exchange_row, question_of

HINT = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("<image>\nFind x.", "Find x.", []),
        (f"<image>\n{HINT}\nQuestion: Find x.\nChoices:\n(A) 12\n(B) 13", "Find x.", ["12", "13"]),
        ("Find x. choice: (A) Yes (B) No", "Find x.", ["Yes", "No"]),
        ("Find x.\nChoices:\nA:24°\nB:30°\nC:36°", "Find x.", ["24°", "30°", "36°"]),
        ("如图,求 x。选项:A. 12 B. 13 C. 14 D. 15", "如图,求 x。", ["12", "13", "14", "15"]),
        ("如图,求 x。\nA、12\nB、13", "如图,求 x。", ["12", "13"]),
        ("Point A. B is on the line.", "Point A. B is on the line.", []),
        ("In triangle ABC, A is 30. Find B.", "In triangle ABC, A is 30. Find B.", []),
        ("Is A) before B) here?", "Is", ["before", "here?"]),  # a list is a list, whatever it means
        ("Choices: (A) only one", "Choices: (A) only one", []),
        (
            "<image>\nAccording to the question shown in the image, please first perform reasoning, then finally "
            "select the right answer from the choices, e.g., Answer: xxx.\nQuestion: Find AB.\nChoices:\nA:1\nB:2",
            "Find AB.",
            ["1", "2"],
        ),
    ],
)
def test_a_question_and_its_choices_are_told_apart(text: str, question: str, choices: list[str]) -> None:
    assert question_of(text) == (question, choices)


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("<image>\nFind x.", "Find x.", []),
        ("Find x.\n<image>", "Find x.", []),
        ("Here is A: <image>\nIs x 3?", "Here is A: <image>\nIs x 3?", []),
        ("Which?\nChoices:\n(A) <image>\n(B) none", "Which?", ["<image>", "none"]),
        (f"{HINT}\n<image>\nQuestion: Find x.", "Find x.", []),  # the wrapping took the tag along
        ("As in <image2>, find x.", "As in\n, find x.", []),  # the first picture is not named
    ],
)
def test_a_tag_amid_the_words_stays_where_it_is(text: str, question: str, choices: list[str]) -> None:
    assert question_of(text, 1) == (question, choices)


def test_tags_stay_in_their_order_or_are_left_to_the_front_together() -> None:
    assert question_of("<image>\nHint: Look.\nQuestion: Is it <image>?", 2)[0].count("<image>") in (0, 2)
    assert question_of(f"<image>\n{HINT}\nQuestion: Is it as in <ImageHere>?", 2)[0] == "<image>\nIs it as in <image>?"
    assert question_of("Is <image1> as <image 2>?", 2)[0] == "Is <image> as <image>?"
    assert "<image" not in question_of("Is <image2> as <image 1>?", 2)[0]
    assert question_of("<image><image>Which is larger?", 2)[0] == "Which is larger?"


def test_a_reply_that_says_more_than_the_answer_is_a_solution() -> None:
    asked = "Find x.\nChoices:\n(A) 12\n(B) 13"
    bare = make_exchange_row("set", asked, "The answer is B", [])
    assert (bare["answer"], bare["choices"], bare.get("solution")) == ("B", ["12", "13"], None)
    reasoned = make_exchange_row("set", asked, "Step 1: the sides are equal, so x is 6 + 7 = 13.\nAnswer: B", [])
    assert reasoned["answer"] == "B" and reasoned["solution"].startswith("Step 1")
    named = make_exchange_row("set", asked, "The answer is 13.", [])
    assert named["answer"] == "B"


def test_long_thoughts_in_front_of_the_answer_are_a_solution() -> None:
    """As MMR1-SFT has them; written in its published shape."""
    reply = "<think>Is it 5? No: the sides are equal, so x is 6 + 6.</think>\n\nBoth are 6. \\boxed{12}"
    row = make_exchange_row("set", "<image>Find x.", reply, [])
    assert (row["question"], row["answer"], row["solution"]) == ("Find x.", "12", reply)


def test_a_reply_without_an_answer_is_a_bad_row() -> None:
    with pytest.raises(BadRow, match="no final answer"):
        make_exchange_row("set", "Find x.", "I cannot see the picture", [])
