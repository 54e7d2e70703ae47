"""Questions, solutions and the first wrong step."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from mathse.data.synthetic.critique import corrupt
from mathse.data.synthetic.solution import KINDS, MAX_CHARS, Numbers, compute_step, first_error, parse, solve, write
from mathse.scoring.answers import extract_answer

TRIPLES = list(itertools.product(range(10), repeat=3))
ANSWERS = {
    "sum": lambda a, b, c: a + b + c,
    "muladd": lambda a, b, c: a * b + c,
    "range": lambda a, b, c: max(a, b, c) - min(a, b, c),
    "prod": lambda a, b, c: max(a, b, c) * min(a, b, c),
}


def first_difference(kind: str, digits: Numbers, steps: list[Numbers]) -> int | None:
    """The first step that is not the one of THE solution: the check from outside, which knows no step's own rule."""
    pairs = itertools.zip_longest(steps, solve(kind, digits))
    return next((k for k, (written, right) in enumerate(pairs, 1) if written != right), None)


def mutations(kind: str, digits: Numbers) -> Iterator[tuple[int, list[Numbers]]]:
    """Every solution in which one number of one step is off, the rest as it stood."""
    right = solve(kind, digits)
    for k, position in [(k, i) for k, step in enumerate(right) for i in range(len(step))]:
        for off in (-10, -1, 1, 7):
            steps = [list(step) for step in right]
            steps[k][position] += off
            yield k + 1, [tuple(step) for step in steps]


@pytest.mark.parametrize("kind", KINDS)
def test_the_solver_answers_every_question_about_every_three_digits(kind: str) -> None:
    for digits in TRIPLES:
        text = write(kind, solve(kind, digits))
        assert extract_answer(text) == str(ANSWERS[kind](*digits)), (digits, text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_solution_reads_back_and_has_no_error(kind: str) -> None:
    for digits in TRIPLES:
        steps = solve(kind, digits)
        assert parse(kind, write(kind, steps)) == steps
        assert first_error(kind, digits, steps) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_error_is_exactly_the_step_that_was_changed(kind: str) -> None:
    for digits in TRIPLES[::7]:
        for changed, steps in mutations(kind, digits):
            assert first_error(kind, digits, parse(kind, write(kind, steps))) == changed, (digits, steps)


@pytest.mark.parametrize("kind", KINDS)
def test_later_steps_that_follow_from_a_wrong_one_do_not_move_the_first_error(kind: str) -> None:
    for digits in TRIPLES[::7]:
        for changed, steps in mutations(kind, digits):
            consistent = steps[:changed]
            while len(consistent) < 4:
                consistent.append(compute_step(kind, digits, consistent))
            assert first_error(kind, digits, consistent) == changed


@pytest.mark.parametrize("kind", KINDS)
def test_checking_step_by_step_equals_comparing_with_the_only_solution(kind: str) -> None:
    draw = random.Random(kind)
    found = set()
    for _ in range(2000):
        digits = draw.choice(TRIPLES)
        steps = parse(kind, corrupt(kind, digits, draw))[: draw.choice([4, 4, 4, 3, 2, 0])]
        assert first_error(kind, digits, steps) == first_difference(kind, digits, steps), (digits, steps)
        found.add(first_error(kind, digits, steps))
    assert found == {None, 1, 2, 3, 4}


def test_the_right_answer_on_a_wrong_way_is_still_an_error() -> None:
    lucky = write("muladd", solve("muladd", (0, 7, 3)))  # of a picture that shows 0, 5, 3
    assert extract_answer(lucky) == extract_answer(write("muladd", solve("muladd", (0, 5, 3))))
    assert first_error("muladd", (0, 5, 3), parse("muladd", lucky)) == 1


GARBAGE = ["", "\n", "9", "-", "\x00", "步", "{}", "\u2028", "Step 1: "]
GOOD = write("sum", solve("sum", (1, 2, 3)))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", 1),
        ("I do not know.", 1),
        ("\n".join(GOOD.split("\n")[:3]), 4),
        ("\n".join(GOOD.split("\n")[1:]), 1),
        (GOOD.replace("\n", " "), 1),
        (GOOD.replace("\n", "\n\n"), 2),
        (GOOD.replace("Step 2: ", ""), 2),
        (GOOD.replace("Step 2: ", "Step 3: "), 2),
        (GOOD.replace("Step 2: ", "Step 2: Step 2: "), 2),
        (GOOD.replace("1 + 2 = 3", "1 + 2 = 3 = 3"), 2),
        (GOOD.replace("1 + 2 = 3", "1 * 2 = 3"), 2),
        (GOOD.replace("3 + 3 = 6", "3 + 3 ="), 3),
        (GOOD.replace("3 + 3 = 6", "3 + 3 = " + "6" * 500), 3),
        (GOOD.replace("The digits are 1, 2, 3.", "The digits are 1, 2."), 1),
        (GOOD.replace("The digits are 1, 2, 3.", "The digits are ١, 2, 3."), 1),
        (GOOD + " Or 7.", 4),
        (GOOD + "\nStep 5: The answer to this problem is 7.", 4),
        (GOOD + "\n" * (MAX_CHARS + 1) + "Step 5: The answer to this problem is 7.", 1),
    ],
)
def test_a_malformed_path_is_wrong_at_its_first_malformed_step(text: str, wrong: int) -> None:
    assert first_error("sum", (1, 2, 3), parse("sum", text)) == wrong


def test_space_around_a_path_is_no_error() -> None:
    assert first_error("sum", (1, 2, 3), parse("sum", f"\n {GOOD} \n")) is None


def test_no_garbage_breaks_the_parser() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        text = list(GOOD)
        for _ in range(draw.randrange(1, 6)):
            text[draw.randrange(len(text))] = draw.choice(GARBAGE)
        steps = parse("sum", "".join(text))
        assert first_error("sum", (1, 2, 3), steps) == first_difference("sum", (1, 2, 3), steps)
