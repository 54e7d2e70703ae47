"""The problems of a run: its splits, each problem by id, and which of them are left out."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import cached_property
from typing import Any

from mathse.config.schema import TrainConfig, needs_orm
from mathse.data.problem_table import ProblemsById, ids_of, without
from mathse.data.problems import FileData
from mathse.errors import DataError
from mathse.types import Problem


class RunProblems:
    """``source``: the run's data. ``limit``: the number of test problems that students answer; None: all."""

    def __init__(self, source: Any, limit: int | None = None) -> None:
        self.source, self.limit = source, limit
        self.left_out: set[str] = set()

    @cached_property
    def splits(self) -> dict[str, Sequence[Problem]]:
        """Of sources that read files, each problem is read when it is asked for."""
        return dict(self.source.splits())

    @cached_property
    def by_id(self) -> MutableMapping[str, Problem]:
        """Every problem that a path may be about, those that are left out too."""
        if isinstance(self.source, FileData):
            return ProblemsById(self.source.table)
        return {p.id: p for problems in self.splits.values() for p in problems}

    def require(self, config: TrainConfig) -> str:
        """How many problems each split has, in a sentence. Raises DataError where a split that the run needs has none.

        A few rows of a file may leave a split without any: a run on them would train, judge or measure nothing.
        """
        sizes = {name: len(problems) for name, problems in self.splits.items()}
        counted = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        trains_orm = needs_orm(config) and config.judge.checkpoint is None and config.orm.train is None
        needed = {
            "test": ("students are measured on it", config.task in ("evolve", "sft")),
            "seed": ("the teacher solves it", config.task == "evolve"),
            "pool": ("the rounds sample it", config.task == "evolve" and config.evolution.rounds > 0),
            "orm_train": ("the ORM is trained on it", trains_orm),
            "orm_held": ("the ORM is measured on it", trains_orm),
        }
        for name, (purpose, is_needed) in needed.items():
            if is_needed and not sizes.get(name):
                raise DataError(
                    f"data: the split {name} has no problem, and {purpose} ({counted}); give more problems, or other "
                    "sizes or shares of the splits"
                )
        return f"problems by split: {counted}"

    def leave_out(self, ids: set[str], but: Sequence[str] = ()) -> None:
        """Take problems out of every split but these; they stay known by id."""
        self.left_out |= ids
        for name, problems in self.splits.items():
            if name not in but:
                self.splits[name] = without(problems, ids)

    def add(self, problem_id: str) -> Problem:
        """A problem of the source, whatever split it is in; it is known from now on."""
        if problem_id not in self.by_id:
            self.by_id[problem_id] = self.source.get(problem_id)
        return self.by_id[problem_id]

    @property
    def distillable(self) -> Sequence[Problem]:
        """The problems that task=distill solves."""
        return without(self.source.distillable(), self.left_out)

    @property
    def ids_of_d(self) -> list[str]:
        """D, which the rounds try to solve."""
        return [*ids_of(self.splits["seed"]), *ids_of(self.splits["pool"])]

    @property
    def test(self) -> Sequence[Problem]:
        return self.splits["test"][: self.limit]
