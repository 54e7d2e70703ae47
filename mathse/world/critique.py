"""What the ORM learns to write in the embedded world: a check of every step, number by number.

Each step's numbers are compared digit by digit: the digit written, the digit that is right, a mark. An arithmetic
step is first worked out again: ``Step 2: 7 * 7 = 47.`` is checked by ``2: 7 * 7 = 49: 77 ok 77 ok 44 ok 79 no |``.
A mark compares two neighbouring tokens, which a small model learns where one mark for a whole step stays at chance
(and where a sign between the two digits made it learn markedly slower).
It is the ORM that writes this at judging time, token by token; these functions only label its training paths.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mathse.world.solution import KINDS, Numbers, expected, first_error, parse, write


@dataclass(frozen=True)
class Check:
    """The checker's word on one path: the first wrong step (None: all right) and the check of its steps."""

    error_step: int | None
    analysis: str


def check(kind: str, digits: Numbers, text: str) -> Check:
    """Check a path's text against the picture's true digits."""
    steps = parse(kind, text)
    parts = [_check_step(kind, k, steps[k], expected(kind, digits, steps[:k])) for k in range(len(steps))]
    if len(steps) < 4:
        parts.append(f"{len(steps) + 1}: form no")
    return Check(first_error(kind, digits, steps), " | ".join(parts) + " .")


def _check_step(kind: str, index: int, written: Numbers, right: Numbers) -> str:
    template = KINDS[kind].templates[index]
    marks = " ".join(m for w, r in zip(written, right, strict=True) for m in _compare(str(w), str(r)))
    again = template.removesuffix(".").format(*right) + ": " if "=" in template else ""
    return f"{index + 1}: {again}{marks}"


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
    """A path with dense made-up errors, later steps consistent with the wrong values; 30 % are left clean.

    Every number is wrong often, so "right" is no copy of "written" and the ORM has to look and compute (rates:
    a digit of step 1 .5, a result .6, an operand .1, the answer .4).
    """
    dirty = rng.random() >= 0.3
    steps: list[Numbers] = []
    while len(steps) < 4:
        numbers, template = list(expected(kind, digits, steps)), KINDS[kind].templates[len(steps)]
        if dirty:
            for i, rate in enumerate(_rates(kind, len(steps), len(numbers))):
                if rng.random() < rate:
                    numbers[i] = near_miss(numbers[i], rng, digit=len(steps) < 2 and "=" not in template)
        steps.append(tuple(numbers))
    return write(kind, steps)


def _rates(kind: str, step: int, count: int) -> Sequence[float]:
    if step == 0:
        return [0.5] * count
    if step == 3:
        return [0.4]
    return [0.1, 0.1, 0.6] if "=" in KINDS[kind].templates[step] else [0.6] * count


def near_miss(number: int, rng: random.Random, *, digit: bool = False) -> int:
    """Another number near this one: one more or less, ten more or less, or any of the same size."""
    top = 9 if digit or number < 10 and rng.random() < 0.5 else 99
    candidates = [number + 1, number - 1, number + 10, number - 10, rng.randint(0, top), rng.randint(0, top)]
    options = [n for n in candidates if n != number and 0 <= n <= top]
    return rng.choice(options) if options else (number + 1) % (top + 1)
