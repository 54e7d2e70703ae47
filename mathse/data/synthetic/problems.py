"""The embedded world's problems: any number of them, seeded, with ids that say all there is to know.

``digits/muladd/0012-0345-0678`` asks the question ``muladd`` about digit images 12, 345 and 678.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mathse.config.data import SyntheticData as Settings
from mathse.data.synthetic import digits
from mathse.data.synthetic.critique import check, corrupt
from mathse.data.synthetic.solution import KINDS, Numbers, solve, write
from mathse.errors import DataError
from mathse.seeds import rng
from mathse.types import Problem, Verdict

# split -> the split of digit images it draws from; seed and pool are both parts of D
DIGITS_OF = {
    "seed": "train",
    "pool": "train",
    "orm_train": "train",
    "test": "test",
    "dev": "dev",
    "orm_held": "orm_held",
}


class SyntheticData:
    """Splits of the embedded world. Sizes are numbers of problems; no problem is in two splits."""

    notes = (
        "The digit images of the students' pool are among those the ORM was trained on (in other problems), so its "
        "acceptance precision in the rounds is measured on known handwriting; its held-out figures, dev and test are "
        "on digit images that no fit has seen.",
    )

    def __init__(self, settings: Settings) -> None:
        self.seed = settings.seed
        self.sizes = {
            "seed": settings.seed_size,
            "pool": settings.pool,
            "test": settings.test,
            "dev": settings.dev,
            "orm_train": settings.orm_train,
            "orm_held": settings.orm_held,
        }
        self.bad_rows: list[dict[str, object]] = []

    def splits(self) -> Mapping[str, Sequence[Problem]]:
        taken: set[str] = set()
        return {split: self._draw(split, size, taken) for split, size in self.sizes.items()}

    def distillable(self) -> list[Problem]:
        """What task=distill solves: all of D."""
        splits = self.splits()
        return [*splits["seed"], *splits["pool"]]

    def get(self, problem_id: str) -> Problem:
        world, _, rest = problem_id.partition("/")
        kind, _, indices = rest.partition("/")
        if world != "digits" or kind not in KINDS:
            raise DataError(f"problem {problem_id[:80]!r} is not of the embedded world; choose its data=...")
        return problem(kind, digits.parse_reference(indices))

    def check(self, problem: Problem, text: str) -> Verdict:
        """The exact step checker: labels ORM training paths and measures judges; it never judges in a judge=orm run."""
        kind, truth = facts(problem)
        word = check(kind, truth, text)
        if word.error_step is None:
            return Verdict("", "correct", None, word.analysis, judge="checker")
        return Verdict("", "wrong", f"Step {word.error_step}", word.analysis, judge="checker")

    def corrupt(self, problem: Problem, draw: random.Random) -> str:
        """A path for ``problem`` with made-up errors (augmentation of the ORM's training rows)."""
        kind, truth = facts(problem)
        return corrupt(kind, truth, draw)

    def _draw(self, split: str, size: int, taken: set[str]) -> list[Problem]:
        draw = rng(self.seed, "world", split)
        found: list[Problem] = []
        indices = [int(i) for i in digits.split_indices()[DIGITS_OF[split]]]
        while len(found) < size:
            candidate = _draw_problem(draw, indices)
            if candidate.id not in taken:
                taken.add(candidate.id)
                found.append(candidate)
        return found


def _draw_problem(draw: random.Random, indices: Sequence[int]) -> Problem:
    return problem(draw.choice(list(KINDS)), (draw.choice(indices), draw.choice(indices), draw.choice(indices)))


def problem(kind: str, indices: tuple[int, int, int]) -> Problem:
    """The problem that asks ``kind`` of these three digit images, with its right solution."""
    truth = tuple(digits.label(i) for i in indices)
    steps = solve(kind, truth)
    ref = digits.reference(indices)
    return Problem(
        id=f"digits/{kind}/{ref.removeprefix('digits:')}",
        question=KINDS[kind].question,
        images=(ref,),
        answer=str(steps[-1][0]),
        solution=write(kind, steps),
        source="synthetic",
        metadata={"kind": kind, "digits": truth},
    )


def facts(problem: Problem) -> tuple[str, Numbers]:
    """The kind of question and the three true digits of a problem of this world."""
    try:
        return problem.metadata["kind"], tuple(problem.metadata["digits"])
    except KeyError:
        raise DataError(f"problem {problem.id!r} is not of the embedded world (data=synthetic)") from None
