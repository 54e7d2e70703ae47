"""The state of Algorithm 1 between two stages: D_SFT, D_remain and R_incorrect. Pure; its files are the stage's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mathse.store import read_jsonl, write_jsonl
from mathse.types import ReasoningPath, Record, Verdict

TRAIN, INCORRECT = "train.jsonl", "incorrect.jsonl"


@dataclass(frozen=True)
class Judged(Record):
    """A path and what the judge said of it: an entry of R_incorrect, or a row of the ORM's own data."""

    NESTED: ClassVar[dict[str, type[Record]]] = {"path": ReasoningPath, "verdict": Verdict}

    path: ReasoningPath
    verdict: Verdict


@dataclass(frozen=True)
class EvolutionState:
    """``problems``: ids of D. D_SFT and D_remain are disjoint, and together D (by problem)."""

    problems: tuple[str, ...]
    train: tuple[ReasoningPath, ...] = ()  # D_SFT
    incorrect: tuple[Judged, ...] = ()  # R_incorrect: every rejected draft of a student, newest last

    @property
    def remaining(self) -> list[str]:
        """D_remain: the problems that no accepted path covers, in the order of D."""
        solved = {path.problem_id for path in self.train}
        return [p for p in self.problems if p not in solved]

    def absorb(
        self, judged: Iterable[Judged], accept: Callable[[Verdict], bool], keep_all: bool = False
    ) -> EvolutionState:
        """Alg. 1 lines 9-11: accepted paths join D_SFT and their problems leave D_remain; rejected drafts of students
        join R_incorrect with their feedback. One accepted path a problem is kept, or all."""
        right: list[Judged] = []
        wrong: list[Judged] = []
        for item in judged:
            (right if accept(item.verdict) else wrong).append(item)
        solved = {path.problem_id for path in self.train}
        kept = right if keep_all else [i for i in _first_of_each_problem(right) if i.path.problem_id not in solved]
        known = {path.id for path in self.train}
        new = [item.path for item in kept if item.path.id not in known]
        drafts = [item for item in wrong if item.path.lineage.origin == "student"]
        return replace(self, train=(*self.train, *new), incorrect=(*self.incorrect, *drafts))

    def to_reflect(self, all_drafts: bool) -> list[Judged]:
        """The drafts to rewrite: the newest one of each unsolved problem, or (``all_drafts``) every one there is."""
        if all_drafts:
            return list(self.incorrect)
        newest = {item.path.problem_id: item for item in self.incorrect}
        return [newest[p] for p in self.remaining if p in newest]

    def save(self, folder: Path) -> None:
        write_jsonl(folder / TRAIN, self.train)
        write_jsonl(folder / INCORRECT, self.incorrect)

    @classmethod
    def load(cls, folder: Path, problems: Sequence[str]) -> EvolutionState:
        train: Any = read_jsonl(folder / TRAIN, ReasoningPath)
        incorrect: Any = read_jsonl(folder / INCORRECT, Judged)
        return cls(tuple(problems), tuple(train), tuple(incorrect))


def _first_of_each_problem(items: Sequence[Judged]) -> list[Judged]:
    first: dict[str, Judged] = {}
    for item in items:
        first.setdefault(item.path.problem_id, item)
    return list(first.values())
