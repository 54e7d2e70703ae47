"""The state of Algorithm 1 between two stages: D_SFT, D_remain and R_incorrect. Each stage keeps it in two files.

Rows stay on the disk (``mathse.runs.rows``): memory has only positions in files and ids of problems, so that 280,000
paths fit. This file loads no torch; ``mathse plan`` and ``mathse replay`` merge with the same code as a run.
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

Keep = int | Literal["one", "all", "balanced"]  # evolution.keep


@dataclass(frozen=True)
class Judged(Record):
    """A path and its verdict: a row of R_incorrect or of the ORM's training data."""

    path: ReasoningPath
    verdict: Verdict


def join_verdicts(paths: Sequence[ReasoningPath], verdicts: Sequence[Verdict]) -> Sequence[Judged]:
    """Return each path with its verdict, in the order of the paths. Raises KeyError for a path without a verdict."""
    positions = match_rows(paths, verdicts, attrgetter("id"), attrgetter("path_id"))
    return Mapped(Judged, paths, Chosen(verdicts, positions))


def select_pending(
    drafts: Sequence[Judged], rewrites: Sequence[Judged], accept: Callable[[Verdict], bool]
) -> Sequence[Judged]:
    """Return the drafts without an accepted rewrite: the next try of a reflection rewrites them."""
    rewritten = {item.path.lineage.parent for item in rewrites if accept(item.verdict)}
    return Chosen(drafts, (k for k, draft in enumerate(drafts) if draft.path.id not in rewritten))


@dataclass(frozen=True)
class EvolutionState:
    """D_SFT, D_remain and R_incorrect. By problem, D_SFT and D_remain are disjoint, and together they are D.

    Attributes:
        problems: ids of D.
        train: D_SFT, the rows of the next fit.
        incorrect: R_incorrect with the verdicts, all rejected drafts of students, newest last.
    """

    problems: Sequence[str]
    train: Sequence[ReasoningPath] = ()
    incorrect: Sequence[Judged] = ()

    @property
    def remaining(self) -> list[str]:
        """D_remain: the problems without a path in D_SFT, in the order of D."""
        solved = {path.problem_id for path in self.train}
        return [problem for problem in self.problems if problem not in solved]

    def absorb(
        self, judged: Sequence[Judged], accept: Callable[[Verdict], bool], keep: Keep = "one", renew: bool = False
    ) -> EvolutionState:
        """Alg. 1 lines 9-11: accepted paths join D_SFT, and their problems leave D_remain; rejected drafts of students
        join R_incorrect with their verdicts.

        Args:
            judged: new paths with their verdicts.
            accept: whether a verdict accepts its path.
            keep: paths of a problem in D_SFT, at most. Several paths of a problem have different texts.
            renew: whether solved problems were sampled again. Their new paths then replace older paths of students.
        """
        # 1) Split the new paths. Rejected solutions of teachers and rejected rewrites are never reflected on.
        accepted, rejected = array("L"), array("L")  # positions in judged
        for position, item in enumerate(judged):
            if accept(item.verdict):
                accepted.append(position)
            elif item.path.lineage.origin == "student":
                rejected.append(position)

        # 2) Remove the paths that new paths replace.
        train = self.train
        if renew:
            renewed = {judged[k].path.problem_id for k in accepted}
            older = {k for k, p in enumerate(train) if p.lineage.origin == "student" and p.problem_id in renewed}
            train = Chosen(train, (k for k in range(len(train)) if k not in older))

        # 3) Find the new rows. A repeated text teaches nothing new, but rewrites of two drafts are two rows.
        limit = _limit_rows(keep, judged, accepted)
        rows: Counter[str] = Counter()  # rows of D_SFT by problem
        ids: set[str] = set()
        texts: set[int] = set()  # hashes: 280,000 texts would fill the memory
        for path in train:
            rows[path.problem_id] += 1
            ids.add(path.id)
            texts.add(hash(_make_row_key(path)))
        joining = array("L")  # positions in judged
        for position in accepted:
            path = judged[position].path
            if path.id in ids or (limit is not None and rows[path.problem_id] >= limit):
                continue
            if hash(_make_row_key(path)) not in texts:
                rows[path.problem_id] += 1
                texts.add(hash(_make_row_key(path)))
                joining.append(position)
        paths: Sequence[ReasoningPath] = Mapped(attrgetter("path"), Chosen(judged, joining))
        return replace(self, train=Chained(train, paths), incorrect=Chained(self.incorrect, Chosen(judged, rejected)))

    def to_reflect(self, all_drafts: bool) -> Sequence[Judged]:
        """Return the drafts to rewrite.

        Args:
            all_drafts: all drafts of R_incorrect, instead of the newest draft of each unsolved problem.
        """
        if all_drafts:
            return self.incorrect
        newest = {item.path.problem_id: position for position, item in enumerate(self.incorrect)}
        return Chosen(self.incorrect, (newest[problem] for problem in self.remaining if problem in newest))

    def save(self, folder: Path) -> None:
        write_jsonl(folder / TRAIN, self.train)
        write_jsonl(folder / INCORRECT, self.incorrect)

    @classmethod
    def load(cls, folder: Path, problems: Sequence[str]) -> EvolutionState:
        return cls(problems, JsonlRows(folder / TRAIN, ReasoningPath), JsonlRows(folder / INCORRECT, Judged))


def _make_row_key(path: ReasoningPath) -> tuple[str, str, str | None]:
    """Paths with equal keys are the same row: the problem, the text without blanks, and the draft of a rewrite."""
    draft = path.lineage.parent if path.lineage.origin == "reflection" else None
    return path.problem_id, "".join(path.text.split()), draft


def _limit_rows(keep: Keep, judged: Sequence[Judged], accepted: Sequence[int]) -> int | None:
    """Return the number of rows that a problem may have in D_SFT; None: any number.

    "balanced" is the mean number of different accepted texts of a solved problem, rounded down. It removes the surplus
    of easy problems, which have most accepted paths (head-tail balance, arXiv 2510.26474).
    """
    if isinstance(keep, int):
        return keep
    if keep == "one":
        return 1
    if keep == "all":
        return None
    texts = {_make_row_key(judged[k].path) for k in accepted}
    problems = {problem_id for problem_id, *_ in texts}
    return max(1, len(texts) // max(1, len(problems)))
