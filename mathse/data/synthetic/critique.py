"""What the ORM learns to write on synthetic problems: a check of every step, number by number.

Each step's numbers are compared digit by digit: the digit written, the digit that is right, a mark. An arithmetic
step is first worked out again: ``Step 2: 7 * 7 = 47.`` is checked by ``2: 7 * 7 = 49: 77 ok 77 ok 44 ok 79 no |``.
A mark compares two neighbouring tokens, which a small model learns where one mark for a whole step stays at chance
(and where a sign between the two digits made it learn markedly slower).
It is the ORM that writes this at judging time, token by token; these functions only label its training paths.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mathse.data.synthetic.solution import KINDS, Numbers, expected, first_error, parse, write


@dataclass(frozen=True)
class StepCheck:
    """The result of checking one path: the first wrong step (None: all right), and the check of each step as text."""

    error_step: int | None
    analysis: str


def check(kind: str, digits: Numbers, text: str) -> StepCheck:
    """Check a path's text against the picture's true digits."""
    steps = parse(kind, text)
    parts = []
    for k, written in enumerate(steps):
        right = expected(kind, digits, steps[:k])
        marks = " ".join(m for w, r in zip(written, right, strict=True) for m in _compare(str(w), str(r)))
        template = KINDS[kind].templates[k]
        worked_out = template.removesuffix(".").format(*right) + ": " if "=" in template else ""
        parts.append(f"{k + 1}: {worked_out}{marks}")
    if len(steps) < 4:
        parts.append(f"{len(steps) + 1}: form no")
    return StepCheck(first_error(kind, digits, steps), " | ".join(parts) + " .")


def _compare(written: str, right: str) -> list[str]:
    """ "79 no" for each digit; a number's comparison ends at its first difference, and ``_`` stands for no digit."""
    marks = []
    for k in range(max(len(written), len(right))):
        w, r = written[k : k + 1] or "_", right[k : k + 1] or "_"
        marks.append(f"{w}{r} {'ok' if w == r else 'no'}")
        if w != r:
            break
    return marks


# --- made-up errors: augmentation of the ORM's training rows ----------------------------------------------------------


def corrupt(kind: str, digits: Numbers, rng: random.Random) -> str:
    """A path with made-up errors, later steps consistent with the wrong values.

    A quarter are clean. Half are wrong all over, so that "right" is no copy of "written" and the ORM has to look and
    compute. The rest hold a single error, mostly a miscalculation, as students make them.
    """
    mode = rng.choices(("clean", "dense", "single"), (0.25, 0.5, 0.25))[0]
    wrong_step = rng.choices(range(4), (0.2, 0.2, 0.5, 0.1))[0] if mode == "single" else None
    steps: list[Numbers] = []
    while len(steps) < 4:
        numbers, step = list(expected(kind, digits, steps)), len(steps)
        computes = "=" in KINDS[kind].templates[step]  # a computation has three numbers, its result is the last

        wrong: list[int] = []  # positions of the numbers that are to be wrong
        if mode == "dense":
            if step == 0:
                rates = [0.5] * len(numbers)
            elif step == 3:
                rates = [0.4]
            else:
                rates = [0.1, 0.1, 0.6] if computes else [0.6] * len(numbers)
            wrong = [i for i, rate in enumerate(rates) if rng.random() < rate]
        elif step == wrong_step:  # any digit that is read, any extreme, or the result
            wrong = [2] if computes else [rng.randrange({0: 3, 1: 2, 3: 1}[step])]

        for i in wrong:
            numbers[i] = near_miss(numbers[i], rng, digit=step < 2 and not computes)
        steps.append(tuple(numbers))
    return write(kind, steps)


def near_miss(number: int, rng: random.Random, *, digit: bool = False) -> int:
    """Another number that a student might write for this one: mostly the last digit is wrong, else the tens or all.

    Where only the tens were wrong as often, the ORM worked out the first digit and copied the last.
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
