"""The state of Algorithm 1 between two stages: D_SFT, D_remain and R_incorrect, kept in two files of each stage.

Rows stay on the disk (``mathse.runs.rows``): 280,000 paths are held as positions in files and ids of problems.
Loads no torch, so that ``mathse plan`` and ``mathse replay`` merge with the same code.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import ClassVar

from mathse.runs.layout import INCORRECT, TRAIN
from mathse.runs.rows import Chained, Chosen, JsonlRows, Mapped, matching_rows
from mathse.runs.store import write_jsonl
from mathse.types import ReasoningPath, Record, Verdict


@dataclass(frozen=True)
class Judged(Record):
    """A path and the verdict on it: an entry of R_incorrect, or a row of the ORM's own data."""

    NESTED: ClassVar[dict[str, type[Record]]] = {"path": ReasoningPath, "verdict": Verdict}

    path: ReasoningPath
    verdict: Verdict


def judged_rows(paths: Sequence[ReasoningPath], verdicts: Sequence[Verdict]) -> Sequence[Judged]:
    """Each path with the verdict on it, in the order of the paths. Raises KeyError for a path without one."""
    positions = matching_rows(paths, verdicts, attrgetter("id"), attrgetter("path_id"))
    return Mapped(Judged, paths, Chosen(verdicts, positions))


def not_rewritten(
    drafts: Sequence[Judged], judged: Sequence[Judged], accept: Callable[[Verdict], bool]
) -> Sequence[Judged]:
    """The drafts that the next try of a reflection rewrites: those without an accepted rewrite among ``judged``."""
    rewritten = {item.path.lineage.parent for item in judged if accept(item.verdict)}
    return Chosen(drafts, (k for k, draft in enumerate(drafts) if draft.path.id not in rewritten))


@dataclass(frozen=True)
class EvolutionState:
    """``problems``: ids of D. D_SFT and D_remain are disjoint, and together D (by problem)."""

    problems: Sequence[str]
    train: Sequence[ReasoningPath] = ()  # D_SFT
    incorrect: Sequence[Judged] = ()  # R_incorrect: every rejected draft of a student, newest last

    @property
    def remaining(self) -> list[str]:
        """D_remain: the problems that no accepted path covers, in the order of D."""
        solved = {path.problem_id for path in self.train}
        return [p for p in self.problems if p not in solved]

    def absorb(
        self, judged: Sequence[Judged], accept: Callable[[Verdict], bool], keep_all: bool = False
    ) -> EvolutionState:
        """Alg. 1 lines 9-11: accepted paths join D_SFT and their problems leave D_remain; rejected drafts of students
        join R_incorrect with their feedback. One accepted path a problem is kept, or all."""
        path_ids: set[str] = set()
        solved: set[str] = set()  # ids of problems
        for path in self.train:
            path_ids.add(path.id)
            solved.add(path.problem_id)
        accepted, rejected = array("L"), array("L")  # positions in judged
        for position, item in enumerate(judged):
            path = item.path
            if not accept(item.verdict):
                if path.lineage.origin == "student":  # a rejected solution or rewrite is nobody's mistake to reflect on
                    rejected.append(position)
            elif keep_all or path.problem_id not in solved:
                solved.add(path.problem_id)
                if path.id not in path_ids:
                    accepted.append(position)
        paths: Sequence[ReasoningPath] = Mapped(attrgetter("path"), Chosen(judged, accepted))
        return replace(
            self, train=Chained(self.train, paths), incorrect=Chained(self.incorrect, Chosen(judged, rejected))
        )

    def to_reflect(self, all_drafts: bool) -> Sequence[Judged]:
        """The drafts to rewrite: the newest one of each unsolved problem, or (``all_drafts``) every one there is."""
        if all_drafts:
            return self.incorrect
        newest = {item.path.problem_id: position for position, item in enumerate(self.incorrect)}
        return Chosen(self.incorrect, (newest[p] for p in self.remaining if p in newest))

    def save(self, folder: Path) -> None:
        write_jsonl(folder / TRAIN, self.train)
        write_jsonl(folder / INCORRECT, self.incorrect)

    @classmethod
    def load(cls, folder: Path, problems: Sequence[str]) -> EvolutionState:
        return cls(problems, JsonlRows(folder / TRAIN, ReasoningPath), JsonlRows(folder / INCORRECT, Judged))
