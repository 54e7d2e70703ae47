"""Which questions are the same: normal form, numbers, MinHash."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mathse.data.decontamination.minhash import BANDS, ROWS, Buckets, bands, signature
from mathse.data.decontamination.question_text import MAX_TEXT, jaccard, normalised

SAME = [
    ("Find x.", "  FIND   $x$ "),
    ("<image>\nFind x.", "Find x. <image1>"),
    ("Hint: Please answer.\nQuestion: Find x.\nChoices:\n(A) 12\n(B) 13", "Find x."),
    ("Find x. choice: (A) Yes (B) No", "Find x."),
    ("如图,求 x 的值。A. 12 B. 13", "如图，求x的值"),
    ("Which is it? A. It is red. B. It is blue.", "which is it"),
    ("In $\\odot X, A B=30$, find $m\\widehat{A B}$", "In \\odot X, AB = 30, find m \\widehat AB."),
    ("Six teams and 3.50 points", "6 teams and 3.5 points"),
    ("1,000 apples", "1000 apples"),
    ("A $3 \\times 4$ grid", "a 3 × 4 grid"),
    ("an angle of $30^{\\circ}$", "an angle of 30^°"),
]
OTHER = [
    ("Find x if y = 12", "Find x if y = 13"),
    ("1 2 apples", "12 apples"),
    ("the intercept is -6", "the intercept is 6"),
    ("3.5 m", "35 m"),
    ("five apples", "six apples"),
    ("Find AB.", "Find AC."),
    ("South of (street A) are 5 houses. How many in (street B)?", "South of (street A) are 6 houses. How many in B?"),
    ("Do this: a) find x. b) find y.", "Do this: a) find x. b) find z."),
]
LONG = (
    "In a tournament each of the six teams plays one match against every other team. In each round of matches, three "
    "take place simultaneously. A TV station has already decided which match it will broadcast for each round, as "
    "shown in the diagram. In which round will team S play against team U?"
)


@pytest.mark.parametrize(("left", "right"), SAME)
def test_dress_does_not_make_another_question(left: str, right: str) -> None:
    assert normalised(left) == normalised(right)
    assert normalised(left).text


@pytest.mark.parametrize(("left", "right"), OTHER)
def test_another_number_or_name_makes_another_question(left: str, right: str) -> None:
    assert normalised(left) != normalised(right)


def test_numbers_keep_their_order_and_sign() -> None:
    assert normalised("from -3 to 5, not 5 - 3").numbers == ("-3", "5", "5", "3")


@pytest.mark.parametrize(
    ("question", "tells"),
    [
        ("Find x.", False),
        ("What is the perimeter of the shape?", False),
        ("How many people in the image were born after the end of World War II?", False),
        ("In circle X, AB = 30 and CD = 40. Find the arc.", True),
        (LONG, True),
        ("如图,AB是⊙O的直径,CD是弦,∠BDC=25°,则∠BOC的度数是多少度?其中点C在圆上,请写出完整的推理过程", True),
    ],
)
def test_a_question_tells_which_problem_it_is_by_its_length_or_its_numbers(question: str, tells: bool) -> None:
    assert normalised(question).is_distinctive is tells


def test_a_hostile_text_takes_no_time_and_any_text_has_a_form() -> None:
    for text in ("A. " * 50_000, "(A" * 50_000, "\ud800" * 10, "", " ", "😀" * 3, "\\frac{" * 9_000):
        found = normalised(text)
        assert len(found.text) <= 2 * MAX_TEXT
        assert found.grams.size >= 1 and found.grams.dtype == np.uint64


def test_grams_are_the_same_on_every_machine() -> None:
    assert normalised("Find x if y = 12").grams[:2].tolist() == [630123117066951769, 2929024833195187030]


def varied(text: str, changes: int, seed: int) -> str:
    """A text with so many of its letters changed."""
    draw, letters = random.Random(seed), list(text)
    for place in draw.sample([k for k, c in enumerate(letters) if c.isalpha()], changes):
        letters[place] = draw.choice("abcdefghijklmnopqrstuvwxyz")
    return "".join(letters)


def test_signatures_estimate_the_share_of_grams_in_common() -> None:
    original = normalised(LONG).grams
    for changes in (2, 6, 15):
        other = normalised(varied(LONG, changes, changes)).grams
        agree = float((signature(original) == signature(other)).mean())
        assert agree == pytest.approx(jaccard(original, other), abs=3 / (BANDS * ROWS) ** 0.5 / 2)


def test_alike_questions_meet_in_a_band_and_unlike_ones_seldom_do() -> None:
    buckets = Buckets()
    buckets.add(0, normalised(LONG).grams)
    alike = [normalised(varied(LONG, 3, seed)).grams for seed in range(40)]
    assert min(jaccard(normalised(LONG).grams, grams) for grams in alike) > 0.8
    assert all(buckets.near(grams) == {0} for grams in alike)
    unlike = [normalised(varied(LONG, 120, seed)).grams for seed in range(40)]
    assert sum(bool(buckets.near(grams)) for grams in unlike) <= 1
    assert len(set(bands(signature(alike[0])))) == BANDS


def test_an_empty_index_finds_nothing() -> None:
    assert Buckets().near(normalised(LONG).grams) == set()
