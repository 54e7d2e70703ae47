"""The state of Algorithm 1 between two stages: D_SFT, D_remain and R_incorrect, kept in two files of each stage.

Rows stay on the disk (``mathse.runs.rows``): 280,000 paths are held as positions in files and ids of problems.
Loads no torch, so that ``mathse plan`` and ``mathse replay`` merge with the same code.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Literal

from mathse.runs.layout import INCORRECT, TRAIN
from mathse.runs.rows import Chained, Chosen, JsonlRows, Mapped, match_rows
from mathse.runs.store import write_jsonl
from mathse.types import ReasoningPath, Record, Verdict


@dataclass(frozen=True)
class Judged(Record):
    """A path and the verdict on it: an entry of R_incorrect, or a row of the ORM's own data."""

    path: ReasoningPath
    verdict: Verdict


def judged_rows(paths: Sequence[ReasoningPath], verdicts: Sequence[Verdict]) -> Sequence[Judged]:
    """Each path with the verdict on it, in the order of the paths. Raises KeyError for a path without one."""
    positions = match_rows(paths, verdicts, attrgetter("id"), attrgetter("path_id"))
    return Mapped(Judged, paths, Chosen(verdicts, positions))


Keep = int | Literal["one", "all", "balanced"]  # evolution.keep


def _row_key(path: ReasoningPath) -> tuple[str, str, str | None]:
    """The row that a path makes: its text without blanks, and of a rewrite its draft."""
    draft = path.lineage.parent if path.lineage.origin == "reflection" else None
    return path.problem_id, "".join(path.text.split()), draft


def _mean_of_right_paths(judged: Sequence[Judged], accepted: Sequence[int]) -> int:
    """The mean number of different accepted texts of a solved problem, rounded down: as a cap it takes the surplus of
    easy problems, which most accepted paths belong to (head-tail balance, arXiv 2510.26474)."""
    texts = {_row_key(judged[k].path) for k in accepted}
    problems = {problem_id for problem_id, *_ in texts}
    return max(1, len(texts) // max(1, len(problems)))


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
        self, judged: Sequence[Judged], accept: Callable[[Verdict], bool], keep: Keep = "one", renew: bool = False
    ) -> EvolutionState:
        """Alg. 1 lines 9-11: accepted paths join D_SFT and their problems leave D_remain; rejected drafts of students
        join R_incorrect with their feedback.

        Args:
            keep: accepted paths a problem has in D_SFT, at most; where more than one may stay, their texts differ.
            renew: whether a solved problem was sampled again, so that its new paths replace the student's older ones.
        """
        accepted, rejected = array("L"), array("L")  # positions in judged
        for position, item in enumerate(judged):
            if accept(item.verdict):
                accepted.append(position)
            elif item.path.lineage.origin == "student":  # nobody reflects on a rejected solution or rewrite
                rejected.append(position)

        train = self.train
        if renew:
            renewed = {judged[k].path.problem_id for k in accepted}
            older = {k for k, p in enumerate(train) if p.lineage.origin == "student" and p.problem_id in renewed}
            train = Chosen(train, (k for k in range(len(train)) if k not in older))
        most: int | None  # rows of a problem; None: any number
        if isinstance(keep, int):
            most = keep
        else:
            most = _mean_of_right_paths(judged, accepted) if keep == "balanced" else {"one": 1, "all": None}[keep]

        # A repeated text teaches nothing new. Rewrites of two drafts are two rows, even where they agree.
        count: Counter[str] = Counter()  # rows of D_SFT, by problem
        ids: set[str] = set()
        texts: set[int] = set()  # hashes: 280,000 texts would fill the memory
        for path in train:
            count[path.problem_id] += 1
            ids.add(path.id)
            texts.add(hash(_row_key(path)))
        joining = array("L")
        for position in accepted:
            path = judged[position].path
            if path.id in ids or (most is not None and count[path.problem_id] >= most):
                continue
            if hash(_row_key(path)) not in texts:
                count[path.problem_id] += 1
                texts.add(hash(_row_key(path)))
                joining.append(position)
        paths: Sequence[ReasoningPath] = Mapped(attrgetter("path"), Chosen(judged, joining))
        return replace(self, train=Chained(train, paths), incorrect=Chained(self.incorrect, Chosen(judged, rejected)))

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
