"""The reasoning paths and test answers of a run with their verdicts, and a sample of them for the page itself.

A run has hundreds of thousands of paths: they are read one at a time, and few are in memory. The sample depends only on
the ids, so a report that is written again shows the same paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from operator import attrgetter
from typing import Generic, TypeVar

from mathse.data.domains import is_right
from mathse.runs.layout import ORM_HELD, PATHS, PREDICTIONS, REFLECTIONS, VERDICTS, title
from mathse.runs.reader import Run
from mathse.runs.rows import Chained
from mathse.scoring.metrics import Decision, decide
from mathse.seeds import derive
from mathse.types import Lineage, Problem, ReasoningPath, Record, Reflection, Verdict

R = TypeVar("R", bound=Record)

ProblemOf = Callable[[str], Problem | None]


@dataclass(frozen=True)
class GalleryItem:
    """A path with its problem, its verdict, its correctness and its rewrite. None: not known, or there is none."""

    group: str
    path: ReasoningPath
    problem: Problem | None
    verdict: Verdict | None
    decision: Decision | None  # None: no judge saw the path
    right: bool | None  # by the reference answer; for the ORM's held-out paths, by their label
    label: Verdict | None = None  # held-out paths: the true verdict, with the first wrong step
    reflection: Reflection | None = None  # a draft's rewrite, or a rewrite's draft
    reflection_decision: Decision | None = None
    student: str | None = None  # answers to test problems: the stage of the student that answered

    @property
    def judge_right(self) -> bool | None:
        """Whether the judge accepted a right path or rejected a wrong path; None if either is not known."""
        if self.right is None or self.decision in (None, "unparsed"):
            return None
        return (self.decision == "accepted") == self.right


def read_paths(run: Run, problem_of: ProblemOf) -> Iterator[GalleryItem]:
    """Yield the paths of each stage in the order of the stages, then the ORM's held-out paths."""
    return chain(_stage_paths(run, problem_of), _orm_paths(run, problem_of))


def read_test_answers(run: Run, problem_of: ProblemOf) -> Iterator[GalleryItem]:
    """Yield each student's answers to the test problems, right or wrong as in its accuracy."""
    for stage in run.stages:
        lineage = Lineage("student", stage.name, stage.name)
        for row in stage.rows(PREDICTIONS):
            path = ReasoningPath(f"{stage.name}/test/{row['id']}", row["id"], str(row.get("response") or ""), lineage)
            group = f"test answers, {title(stage.name)}"
            problem = problem_of(path.problem_id)
            yield GalleryItem(group, path, problem, None, None, bool(row["correct"]), student=stage.name)


def _stage_paths(run: Run, problem_of: ProblemOf) -> Iterator[GalleryItem]:
    """Yield the paths of every stage with their verdicts; drafts with their rewrites, rewrites with their drafts."""
    verdicts = RowsById(run, VERDICTS, Verdict, attrgetter("path_id"))
    by_draft = RowsById(run, REFLECTIONS, Reflection, attrgetter("draft.id"))
    reflections = chain.from_iterable(stage.rows(REFLECTIONS, Reflection) for stage in run.stages)
    rewrites = {reflection.revised.id for reflection in reflections}
    for stage in run.stages:
        for path in stage.rows(PATHS, ReasoningPath):
            if path.id in rewrites:  # the loop below yields it with its draft
                continue
            item = _item(title(stage.name), path, verdicts.get(path.id), problem_of, run.threshold)
            if (reflection := by_draft.get(path.id)) is not None:
                decision = decide(verdicts.get(reflection.revised.id), run.threshold)
                item = replace(item, reflection=reflection, reflection_decision=decision)
            yield item
        for reflection in stage.rows(REFLECTIONS, Reflection):
            group = "reflection" if stage.name == "reflection" else f"{title(stage.name)}, reflected"
            revised = reflection.revised
            item = _item(group, revised, verdicts.get(revised.id), problem_of, run.threshold)
            yield replace(item, reflection=reflection, reflection_decision=decide(reflection.feedback, run.threshold))


class RowsById(Generic[R]):
    """The rows of a file in all stages, by id; of several rows with an id, the last.

    Only ids are in memory. A row is read from the disk when it is needed.
    """

    def __init__(self, run: Run, file: str, kind: type[R], key: Callable[[R], str]) -> None:
        self._rows: Sequence[R] = Chained(*(stage.records(file, kind) for stage in run.stages))
        self._numbers = {key(row): number for number, row in enumerate(self._rows)}

    def get(self, row_id: str) -> R | None:
        number = self._numbers.get(row_id)
        return None if number is None else self._rows[number]


def _orm_paths(run: Run, problem_of: ProblemOf) -> Iterator[GalleryItem]:
    """Yield the ORM's held-out paths. Their label decides whether they are right, not their answer."""
    for stage in run.stages:
        group = f"ORM held-out, {'own' if stage.name == 'orm' else title(stage.name)}"
        for row in stage.rows(ORM_HELD):
            label, verdict = Verdict.from_json(row["label"]), Verdict.from_json(row["verdict"])
            item = _item(group, ReasoningPath.from_json(row["path"]), verdict, problem_of, run.threshold)
            yield replace(item, right=label.status == "correct", label=label)


def _item(
    group: str, path: ReasoningPath, verdict: Verdict | None, problem_of: ProblemOf, threshold: float
) -> GalleryItem:
    problem = problem_of(path.problem_id)
    right = None
    if problem is not None and problem.answer:
        right = is_right(problem, path.text)
    return GalleryItem(group, path, problem, verdict, decide(verdict, threshold), right)


class Choice:
    """Chooses at most ``per_group`` items of each group, spread evenly over true and false acceptances and rejections.

    Only the paths' ids decide, so the same run always gives the same choice.
    """

    def __init__(self, per_group: int = 60) -> None:
        self._per_group = per_group
        self._piles: dict[str, Piles] = {}

    def add(self, item: GalleryItem) -> None:
        self._piles.setdefault(item.group, Piles(self._per_group)).add(item)

    def groups(self) -> dict[str, list[GalleryItem]]:
        """Return the chosen items by group, in the order in which the groups appeared."""
        return {group: piles.deal() for group, piles in self._piles.items()}


class Piles:
    """A pile for each pair of decision and correctness, in an order by hashed ids.

    Each pile is cut to ``most`` items as it grows, so that few items of a run are in memory.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._piles: dict[tuple[str, str], list[tuple[int, str, GalleryItem]]] = {}

    def add(self, item: GalleryItem) -> None:
        pile = self._piles.setdefault((str(item.decision), str(item.right)), [])
        pile.append((derive(0, "gallery", item.path.id), item.path.id, item))
        if len(pile) > 2 * self.most:
            self._cut(pile)

    def deal(self) -> list[GalleryItem]:
        """Take at most ``most`` items, from each pile in turn."""
        for pile in self._piles.values():
            self._cut(pile)
        ordered = [[item for *_, item in self._piles[kind]] for kind in sorted(self._piles)]
        in_turn = (item for item in chain.from_iterable(zip_longest(*ordered)) if item is not None)
        return list(islice(in_turn, self.most))

    def _cut(self, pile: list[tuple[int, str, GalleryItem]]) -> None:
        pile.sort(key=lambda entry: entry[:2])
        del pile[self.most :]
