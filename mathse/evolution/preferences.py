"""Pairs of an accepted and a rejected path of one problem, from D_SFT and R_incorrect: what DPO learns from.

A student's or teacher's path is paired with the rejected ones of its problem, a rewrite with the draft that it
rewrites. Exports use it too; it loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mathse.evolution.state import Judged
from mathse.inference.rows import solve_row
from mathse.models.row import Row
from mathse.types import Problem, PromptStyle, ReasoningPath, Record


@dataclass(frozen=True)
class Preference(Record):
    """``chosen`` was accepted, ``rejected`` was not."""

    chosen: ReasoningPath
    rejected: ReasoningPath

    @property
    def id(self) -> str:
        return f"{self.chosen.id} > {self.rejected.id}"


def preferences(
    train: Sequence[ReasoningPath], incorrect: Sequence[Judged], most: int | None = None
) -> Iterator[Preference]:
    """The pairs of D_SFT and R_incorrect, problem by problem in the order of D_SFT.

    Newest rejected paths first, since they are nearest to what the student writes now; of a problem with several
    accepted paths these take turns. Empty paths and pairs of equal texts teach nothing, and are left out.

    Args:
        most: pairs of a problem; None: all.
    """
    accepted: dict[str, list[int]] = {}  # positions in train, by problem
    for position, path in enumerate(train):
        accepted.setdefault(path.problem_id, []).append(position)
    rejected: dict[str, list[int]] = {}  # positions in incorrect, newest first
    for position in range(len(incorrect) - 1, -1, -1):
        if (problem := incorrect[position].path.problem_id) in accepted:
            rejected.setdefault(problem, []).append(position)
    for problem, positions in accepted.items():
        drafts = [incorrect[k].path for k in rejected.get(problem, ())]
        count = 0
        for pair in _in_turn([train[k] for k in positions], drafts):
            texts = pair.chosen.text.strip(), pair.rejected.text.strip()
            if all(texts) and texts[0] != texts[1]:
                yield pair
                count += 1
            if count == most:
                break


def _in_turn(accepted: Sequence[ReasoningPath], drafts: Sequence[ReasoningPath]) -> Iterator[Preference]:
    """All pairs of a problem: each accepted path with one draft, then each with the next."""
    for turn in range(len(drafts)):
        for k, chosen in enumerate(accepted):
            draft = drafts[(turn + k) % len(drafts)]
            if chosen.lineage.origin != "reflection" or chosen.lineage.parent == draft.id:
                yield Preference(chosen, draft)


def preference_row(style: PromptStyle, problem: Problem, pair: Preference) -> Row:
    """A pair as a row of a fit; both paths answer the question, whatever ``evolution.reflect.row`` says."""
    return Row(**solve_row(style, problem, pair.chosen.text), rejected=pair.rejected.text, id=pair.id)
