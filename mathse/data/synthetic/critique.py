"""The analysis that the ORM learns to write on synthetic problems: a check of every step, number by number.

Each step's numbers are compared digit by digit: the written digit, the right digit, a mark. An arithmetic step is first
computed again: ``Step 2: 7 * 7 = 47.`` is checked by ``2: 7 * 7 = 49: 77 ok 77 ok 44 ok 79 no |``. A mark compares two
neighbouring tokens, which a small model learns. With a single mark for a whole step it stayed at chance, and with a
sign between the two digits it learned markedly slower.

These functions only label the ORM's training paths. At judging time the ORM writes the analysis token by token.
"""

from __future__ import annotations

import random

from mathse.data.step_check import StepCheck
from mathse.data.synthetic.solution import KINDS, Numbers, compute_step, first_error, parse, write


def check(kind: str, digits: Numbers, text: str) -> StepCheck:
    """Check a path's text against the picture's true digits."""
    steps = parse(kind, text)
    parts = []
    for k, written in enumerate(steps):
        right = compute_step(kind, digits, steps[:k])
        marks: list[str] = []
        for written_number, right_number in zip(written, right, strict=True):
            marks += _compare_digits(str(written_number), str(right_number))
        # Before the marks of an arithmetic step comes its right computation.
        template = KINDS[kind].templates[k]
        computation = template.removesuffix(".").format(*right) + ": " if "=" in template else ""
        parts.append(f"{k + 1}: {computation}{' '.join(marks)}")
    if len(steps) < 4:
        parts.append(f"{len(steps) + 1}: form no")
    return StepCheck(first_error(kind, digits, steps), " | ".join(parts) + " .")


def _compare_digits(written: str, right: str) -> list[str]:
    """Make a mark such as "79 no" for each digit, up to the first difference; ``_`` is a missing digit."""
    marks = []
    for k in range(max(len(written), len(right))):
        w, r = written[k : k + 1] or "_", right[k : k + 1] or "_"
        marks.append(f"{w}{r} {'ok' if w == r else 'no'}")
        if w != r:
            break
    return marks


# --- made-up errors: augmentation of the ORM's training rows ----------------------------------------------------------


def corrupt(kind: str, digits: Numbers, rng: random.Random) -> str:
    """Write a path with made-up errors, and later steps consistent with the wrong values.

    A quarter of the paths are right. Half have errors in many steps, so that the right numbers are no copy of the
    written numbers and the ORM must look and compute. The rest have a single error, mostly a miscalculation, like the
    errors of students.
    """
    mode = rng.choices(("clean", "dense", "single"), (0.25, 0.5, 0.25))[0]
    wrong_step = rng.choices(range(4), (0.2, 0.2, 0.5, 0.1))[0] if mode == "single" else None
    steps: list[Numbers] = []
    while len(steps) < 4:
        numbers, step = list(compute_step(kind, digits, steps)), len(steps)
        computes = "=" in KINDS[kind].templates[step]  # a computation has three numbers; the last is its result

        wrong: list[int] = []  # positions of the numbers to change
        if mode == "dense":
            if step == 0:
                rates = [0.5] * len(numbers)
            elif step == 3:
                rates = [0.4]
            else:
                rates = [0.1, 0.1, 0.6] if computes else [0.6] * len(numbers)
            wrong = [i for i, rate in enumerate(rates) if rng.random() < rate]
        elif step == wrong_step:
            # The result of a computation, else any digit, either extreme, or the answer.
            wrong = [2] if computes else [rng.randrange({0: 3, 1: 2, 3: 1}[step])]

        for i in wrong:
            numbers[i] = near_miss(numbers[i], rng, digit=step < 2 and not computes)
        steps.append(tuple(numbers))
    return write(kind, steps)


def near_miss(number: int, rng: random.Random, *, digit: bool = False) -> int:
    """Change a number as a student's slip would: mostly the last digit, else the tens or the whole number.

    With errors in the tens as often as in the last digit, the ORM computed the first digit and copied the last.
    """
    top = 9 if digit or (number < 10 and rng.random() < 0.7) else 99
    draw = rng.random()
    if draw < 0.65:  # the last digit
        options = [number - number % 10 + d for d in range(10)]
    elif draw < 0.8:  # the tens
        options = [number - 10, number + 10]
    else:
        options = [rng.randint(0, top), rng.randint(0, top)]
    options = [n for n in options if n != number and 0 <= n <= top]
    return rng.choice(options) if options else (number + 1) % (top + 1)
