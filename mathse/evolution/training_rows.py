"""The rows that a student is fitted on: D_SFT's paths as question and answer. Exports use it too; it loads no torch.

PAPER: Algorithm 1 adds a rewrite as an answer to its question; the authors' README shows draft and critique in the
prompt; switch: ``evolution.reflect.row``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mathse.evolution.state import Judged
from mathse.inference.rows import reflect_row, solve_row
from mathse.models.row import Row
from mathse.runs.layout import REFLECTIONS
from mathse.runs.reader import read_stage
from mathse.types import Problem, PromptStyle, ReasoningPath, Record, Reflection


def solution_rows(style: PromptStyle, problems: Iterable[Problem]) -> list[Row]:
    """Rows that train on the reference solutions, where there are some."""
    return [solve_row(style, p, p.solution) for p in problems if p.solution]


def training_rows(
    run: Path, problems: Mapping[str, Problem], style: PromptStyle, paths: Sequence[ReasoningPath], row: str
) -> list[Row]:
    """One row a path, in their order. ``row``: ``evolution.reflect.row``."""
    rewritten = rewrites(run, paths) if row == "draft" else {}
    return [training_row(style, problems[path.problem_id], path, rewritten.get(path.id)) for path in paths]


def training_row(style: PromptStyle, problem: Problem, path: ReasoningPath, rewritten: Reflection | None) -> Row:
    """The row of a path, with its id. With ``rewritten``, the prompt has the draft and the feedback on it."""
    if rewritten is None:
        row = solve_row(style, problem, path.text)
    else:
        row = reflect_row(style, problem, rewritten.draft.text, rewritten.feedback, path.text)
    return Row(**row, id=path.id)


def rewrites(run: Path, paths: Iterable[ReasoningPath]) -> Mapping[str, Reflection]:
    """The reflections of a run that ``paths`` come from, by the rewrite's id."""
    stages = {path.id: path.lineage.stage for path in paths if path.lineage.origin == "reflection"}
    return {
        reflection.revised.id: reflection
        for stage in sorted(set(stages.values()))
        for reflection in read_stage(run / stage).rows(REFLECTIONS, Reflection)
        if reflection.revised.id in stages
    }


# --- pairs ------------------------------------------------------------------------------------------------------------


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


# --- exposure ---------------------------------------------------------------------------------------------------------

OWN_SHARE = 0.1  # of the rows seen: below it the student's own paths change little
STEEP = 0.25  # fall of the mean loss from the third quarter of the logged steps to the last
QUARTER = 3  # logged losses in a quarter, at least, before their means are compared


@dataclass(frozen=True)
class Exposure:
    """``rows`` of a training run, of which a student wrote ``own``, and ``seen`` presentations of a row in all."""

    rows: int
    own: int
    seen: int

    @property
    def epochs(self) -> float:
        """How often a row is seen, on average."""
        return self.seen / self.rows

    @property
    def own_share(self) -> float:
        """The student's own rows among the rows seen, each being seen equally often."""
        return self.own / self.rows

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "own": self.own, "seen": self.seen, "epochs": round(self.epochs, 4)}

    def __str__(self) -> str:
        own = f", {self.own:,} of them the student's own" if self.own else ""
        return f"{self.rows:,} rows{own}; each is seen {self.epochs:.2f} times"


def warnings(exposure: Exposure, section: str, has_own: bool) -> Iterator[str]:
    """Sentences on a training run of less than an epoch, and on one whose own rows are few.

    Args:
        section: the key path of the run's length, such as "sft.round".
        has_own: whether rows of the student itself belong to this stage.
    """
    if exposure.epochs < 1:
        yield (
            f"each of {exposure.rows:,} rows is seen {exposure.epochs:.2f} times on average, less than one epoch; "
            f"raise {section}.epochs (or {section}.max_steps)"
        )
    if has_own and exposure.own_share < OWN_SHARE:
        yield (
            f"{exposure.own:,} of {exposure.rows:,} rows ({100 * exposure.own_share:.0f} %) are the student's own, "
            f"less than {100 * OWN_SHARE:.0f} %, so this round can change little; raise evolution.round.sample_size or "
            "evolution.samples_per_problem"
        )


def falling_loss(log: Iterable[Mapping[str, Any]], section: str) -> Iterator[str]:
    """A sentence where the loss of a training log still falls steeply at its end; none where it has too few lines."""
    losses = [float(line["loss"]) for line in log if "loss" in line]
    quarter = len(losses) // 4
    if quarter < QUARTER:
        return
    before, last = fmean(losses[-2 * quarter : -quarter]), fmean(losses[-quarter:])
    if before - last > STEEP * before:
        yield (
            f"the loss still falls steeply: {before:.3g} in the third quarter of the steps and {last:.3g} in the last; "
            f"the student is not trained to its end, raise {section}.epochs (or {section}.max_steps)"
        )
