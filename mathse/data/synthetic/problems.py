"""Synthetic problems: any number, drawn from a seed; the id describes a problem fully.

``digits/muladd/0012-0345-0678`` asks the question ``muladd`` about digit images 12, 345 and 678.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mathse.config.data import SyntheticDataConfig
from mathse.data.synthetic import digits
from mathse.data.synthetic.critique import check, corrupt
from mathse.data.synthetic.solution import KINDS, Numbers, solve, write
from mathse.errors import DataError
from mathse.seeds import rng
from mathse.types import Problem, Verdict

# Split -> split of the digit images that it draws from. Seed and pool are both parts of D.
DIGITS_OF = {
    "seed": "train",
    "pool": "train",
    "orm_train": "train",
    "test": "test",
    "dev": "dev",
    "orm_held": "orm_held",
}


class SyntheticData:
    """Splits of synthetic problems, without a common problem. The sizes in the settings count problems."""

    notes = (
        "The digit images of the students' pool are among those the ORM was trained on (in other problems), so its "
        "acceptance precision in the rounds is measured on known handwriting; its held-out figures, dev and test are "
        "on digit images that no fit has seen.",
    )

    def __init__(self, settings: SyntheticDataConfig) -> None:
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
        """Draw the problems of each split."""
        taken: set[str] = set()
        splits: dict[str, list[Problem]] = {}
        for split, size in self.sizes.items():
            draw = rng(self.seed, "world", split)  # a change of the key "world" would change the problems of a seed
            indices = [int(i) for i in digits.split_indices()[DIGITS_OF[split]]]
            splits[split] = []
            while len(splits[split]) < size:
                kind = draw.choice(list(KINDS))
                candidate = problem(kind, (draw.choice(indices), draw.choice(indices), draw.choice(indices)))
                if candidate.id not in taken:
                    taken.add(candidate.id)
                    splits[split].append(candidate)
        return splits

    def distillable(self) -> list[Problem]:
        """Give the problems that task=distill solves: all of D."""
        splits = self.splits()
        return [*splits["seed"], *splits["pool"]]

    def get(self, problem_id: str) -> Problem:
        """Make the problem of an id. Raises DataError for an id of another source."""
        prefix, _, rest = problem_id.partition("/")
        kind, _, indices = rest.partition("/")
        if prefix != "digits" or kind not in KINDS:
            raise DataError(f"problem {problem_id[:80]!r} is not a synthetic one; choose its data=...")
        return problem(kind, digits.parse_reference(indices))

    def check(self, problem: Problem, text: str) -> Verdict:
        """Check a path exactly. The verdict labels the ORM's training paths and measures judges; it never judges in a
        judge=orm run."""
        kind, truth = facts(problem)
        return check(kind, truth, text).to_verdict(judge="checker")

    check_steps = check  # ``judge=checked``: the checker uses the digits of the problem, and not the reference answer

    def jittered(self, image: str, draw: random.Random) -> str:
        """Make a reference to an image with the same digits, slightly shifted, rotated and slanted."""
        return digits.jittered(image, draw)

    def corrupt(self, problem: Problem, draw: random.Random) -> str:
        """Write a path for ``problem`` with made-up errors, to augment the ORM's training rows."""
        kind, truth = facts(problem)
        return corrupt(kind, truth, draw)


def problem(kind: str, indices: tuple[int, int, int]) -> Problem:
    """Make the problem that asks the question ``kind`` about three digit images, with its right solution."""
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
    """Read the kind of question and the three true digits of a synthetic problem."""
    try:
        return problem.metadata["kind"], tuple(problem.metadata["digits"])
    except KeyError:
        raise DataError(f"problem {problem.id!r} is not a synthetic one (data=synthetic)") from None
