"""What the ORM learns to write about a path, and the made-up errors it learns from."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from mathse.data.synthetic.critique import check, corrupt, near_miss
from mathse.data.synthetic.solution import KINDS, first_error, parse, solve, write


def draws(kind: str, count: int) -> list[tuple[tuple[int, int, int], str]]:
    draw = random.Random(kind)
    found = []
    for _ in range(count):
        digits = (draw.randrange(10), draw.randrange(10), draw.randrange(10))
        found.append((digits, corrupt(kind, digits, draw)))
    return found


def test_the_check_of_the_documented_example_reads_as_documented() -> None:
    text = write("muladd", [(7, 7, 5), (7, 7, 47), (47, 5, 52), (52,)])
    word = check("muladd", (7, 7, 5), text)
    assert word.error_step == 2
    assert word.analysis.split(" | ")[1] == "2: 7 * 7 = 49: 77 ok 77 ok 44 ok 79 no"


def test_a_right_path_has_no_mark_against_it() -> None:
    for kind in KINDS:
        word = check(kind, (4, 0, 9), write(kind, solve(kind, (4, 0, 9))))
        assert word.error_step is None and " no" not in word.analysis


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_part_with_a_mark_against_it_is_the_step_that_the_checker_names(kind: str) -> None:
    for digits, text in draws(kind, 500):
        word = check(kind, digits, text)
        marked = [part for part in word.analysis.split("|") if " no" in part]
        assert word.error_step == first_error(kind, digits, parse(kind, text))
        assert (int(marked[0].split(":")[0]) if marked else None) == word.error_step, word.analysis


def test_a_malformed_step_is_marked_and_nothing_after_it_is_checked() -> None:
    text = write("sum", solve("sum", (1, 2, 3))).replace("Step 3: ", "Step three: ")
    word = check("sum", (1, 2, 3), text)
    assert word.error_step == 3
    assert word.analysis.endswith("| 3: form no .")


def test_a_number_of_another_length_differs_where_one_has_no_digit() -> None:
    text = write("sum", [(1, 2, 3), (1, 2, 13), (13, 3, 16), (16,)])
    assert check("sum", (1, 2, 3), text).analysis.split(" | ")[1] == "2: 1 + 2 = 3: 11 ok 22 ok 13 no"
    text = write("sum", [(5, 9, 3), (5, 9, 1), (1, 3, 4), (4,)])
    assert check("sum", (5, 9, 3), text).analysis.split(" | ")[1] == "2: 5 + 9 = 14: 55 ok 99 ok 11 ok _4 no"


@pytest.mark.parametrize("kind", KINDS)
def test_made_up_errors_are_well_formed_strike_every_step_and_leave_some_paths_clean(kind: str) -> None:
    words = [check(kind, digits, text) for digits, text in draws(kind, 4000)]
    assert all(len(parse(kind, text)) == 4 for _, text in draws(kind, 200))
    assert 0.15 < mean(w.error_step is None for w in words) < 0.45
    assert {w.error_step for w in words} == {None, 1, 2, 3, 4}
    wrong_numbers = {w.analysis.count(" no") for w in words if w.error_step}
    assert min(wrong_numbers) == 1 and max(wrong_numbers) > 3, "errors that stand alone, and dense ones"


def test_made_up_errors_are_the_same_for_the_same_draw() -> None:
    assert draws("prod", 50) == draws("prod", 50)


def test_a_near_miss_is_another_number_of_the_same_size() -> None:
    draw = random.Random(0)
    for number in range(100):
        found = {near_miss(number, draw) for _ in range(50)}
        assert number not in found and found <= set(range(100))
        assert len(found) > 1
    for digit in range(10):
        found = {near_miss(digit, draw, digit=True) for _ in range(50)}
        assert digit not in found and found <= set(range(10))
