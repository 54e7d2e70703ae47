"""Which reasoning paths the report shows, and all that is known of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Literal

from mathse.answers import extract_answer, same_answer
from mathse.metrics import accepted, first_step
from mathse.report.runs import Run, Stage, title
from mathse.seeds import derive
from mathse.types import Problem, ReasoningPath, Reflection, Verdict

Decision = Literal["accepted", "rejected", "unparsed"]
ProblemOf = Callable[[str], Problem | None]
PER_GROUP = 60
_STEP = re.compile(r"(?:^|(?<=\s))(?:\*\*)?(?:Step\s*\d{1,3}\s*[:.]|步骤\s*\d{1,3}\s*[::.])", re.IGNORECASE)
MAX_TEXT = 20_000  # characters of a path that are looked at


@dataclass(frozen=True)
class Item:
    """A path with its problem, its verdict, what is true of it (None: not known) and what became of it."""

    group: str
    path: ReasoningPath
    problem: Problem | None
    verdict: Verdict | None
    decision: Decision | None  # None: nobody judged it
    right: bool | None  # by the reference answer; of the ORM's held-out paths, by their label
    label: Verdict | None = None  # held-out paths: the truth, with its first wrong step
    reflection: Reflection | None = None  # of a draft: its rewrite; of a rewrite: its draft
    reflection_decision: Decision | None = None

    @property
    def judge_right(self) -> bool | None:
        """Whether the judge took a right path or refused a wrong one; None where it, or the truth, said nothing."""
        if self.right is None or self.decision in (None, "unparsed"):
            return None
        return (self.decision == "accepted") == self.right


def gallery(run: Run, problem_of: ProblemOf, per_group: int = PER_GROUP) -> dict[str, list[Item]]:
    """Items to show by group: paths of each stage, then the ORM's held-out paths, at most ``per_group`` each.

    The choice is the same for the same run: spread evenly over true and false acceptances and rejections.
    """
    groups: dict[str, list[Item]] = {}
    for item in chain(_judged(run, problem_of), _held(run, problem_of)):
        groups.setdefault(item.group, []).append(item)
    return {group: _choose(items, per_group) for group, items in groups.items()}


def steps(text: str) -> list[tuple[int | None, str]]:
    """A path by its steps, each with its number as written (None: before the first, or unnumbered lines)."""
    text = text[:MAX_TEXT]
    starts = [m.start() for m in _STEP.finditer(text)]
    if not starts:
        return [(None, line) for line in text.split("\n") if line.strip()]
    cuts = [0, *starts, len(text)]
    pieces = [text[a:b].strip() for a, b in zip(cuts, cuts[1:], strict=False)]
    return [(first_step(piece) if k else None, piece) for k, piece in enumerate(pieces) if piece]


def decide(verdict: Verdict | None, threshold: float) -> Decision | None:
    """What the verdict meant for the path."""
    if verdict is None:
        return None
    if verdict.status == "unparsed":
        return "unparsed"
    return "accepted" if accepted(verdict, threshold) else "rejected"


def _judged(run: Run, problem_of: ProblemOf) -> Iterator[Item]:
    reflections = [r for stage in run.stages for r in stage.rows("reflections.jsonl", Reflection)]
    by_draft = {r.draft.id: r for r in reflections}
    verdicts = {v.path_id: v for stage in run.stages for v in stage.rows("verdicts.jsonl", Verdict)}
    rewritten = {r.revised.id for r in reflections}
    for stage in run.stages:
        for path in stage.rows("paths.jsonl", ReasoningPath):
            if path.id not in rewritten:
                item = _item(title(stage.name), path, verdicts.get(path.id), problem_of, run.threshold)
                yield _with_reflection(item, by_draft.get(path.id), verdicts, run.threshold)
        for r in stage.rows("reflections.jsonl", Reflection):
            group = "reflection" if stage.name == "reflection" else f"{title(stage.name)}, reflected"
            item = _item(group, r.revised, verdicts.get(r.revised.id), problem_of, run.threshold)
            yield replace(item, reflection=r, reflection_decision=decide(r.feedback, run.threshold))


def _with_reflection(item: Item, reflection: Reflection | None, verdicts: dict[str, Verdict], threshold: float) -> Item:
    if reflection is None:
        return item
    return replace(
        item, reflection=reflection, reflection_decision=decide(verdicts.get(reflection.revised.id), threshold)
    )


def _held(run: Run, problem_of: ProblemOf) -> Iterator[Item]:
    for stage in run.stages:
        for row in stage.rows("orm_held.jsonl"):
            label = Verdict.from_json(row["label"])
            item = _item(
                _held_group(stage),
                ReasoningPath.from_json(row["path"]),
                Verdict.from_json(row["verdict"]),
                problem_of,
                run.threshold,
            )
            yield replace(item, right=label.status == "correct", label=label)


def _held_group(stage: Stage) -> str:
    return f"ORM held-out, {'own' if stage.name == 'orm' else title(stage.name)}"


def _item(group: str, path: ReasoningPath, verdict: Verdict | None, problem_of: ProblemOf, threshold: float) -> Item:
    problem = problem_of(path.problem_id)
    right = None
    if problem is not None and problem.answer:
        right = same_answer(extract_answer(path.text), problem.answer, problem.choices)
    return Item(group, path, problem, verdict, decide(verdict, threshold), right)


def _choose(items: Iterable[Item], most: int) -> list[Item]:
    """Deal from one pile a kind of outcome in turn, each pile in an order that only the paths' ids decide."""
    piles: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        piles.setdefault((str(item.decision), str(item.right)), []).append(item)
    ordered = [
        sorted(piles[kind], key=lambda item: (derive(0, "gallery", item.path.id), item.path.id))
        for kind in sorted(piles)
    ]
    dealt: Sequence[Item] = [item for turn in zip_longest(*ordered) for item in turn if item is not None]
    return list(dealt[:most])
