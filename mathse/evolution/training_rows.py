"""The rows of a student's training: paths as question and answer, pairs for DPO, and how often training sees a row.

Exports and ``mathse plan`` use this file too; it loads no torch.

PAPER: in Algorithm 1 a rewrite is an answer to its question; in the authors' README the prompt has the draft and the
critique; switch: ``evolution.reflect.row``.
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

# --- rows of SFT ------------------------------------------------------------------------------------------------------


def make_solution_rows(style: PromptStyle, problems: Iterable[Problem]) -> list[Row]:
    """Return a row per problem with a reference solution."""
    return [solve_row(style, problem, problem.solution) for problem in problems if problem.solution]


def make_training_rows(
    run: Path, problems: Mapping[str, Problem], style: PromptStyle, paths: Sequence[ReasoningPath], row: str
) -> list[Row]:
    """Return a row per path, in the order of the paths.

    Args:
        run: folder of the run that wrote the paths.
        problems: by id.
        row: ``evolution.reflect.row``. "draft" puts the draft and its feedback into the prompt of a rewrite.
    """
    reflection_of = read_reflections(run, paths) if row == "draft" else {}
    return [make_training_row(style, problems[path.problem_id], path, reflection_of.get(path.id)) for path in paths]


def make_training_row(style: PromptStyle, problem: Problem, path: ReasoningPath, reflection: Reflection | None) -> Row:
    """Return the row of a path, with the id of the path.

    Args:
        reflection: the origin of a rewrite, to put its draft and feedback into the prompt. None: the prompt has only
            the question.
    """
    if reflection is None:
        row = solve_row(style, problem, path.text)
    else:
        row = reflect_row(style, problem, reflection.draft.text, reflection.feedback, path.text)
    return Row(**row, id=path.id)


def read_reflections(run: Path, paths: Iterable[ReasoningPath]) -> Mapping[str, Reflection]:
    """Return the reflections that wrote ``paths``, by the id of the rewrite."""
    stage_of = {path.id: path.lineage.stage for path in paths if path.lineage.origin == "reflection"}
    reflections = {}
    for stage in sorted(set(stage_of.values())):
        for reflection in read_stage(run / stage).rows(REFLECTIONS, Reflection):
            if reflection.revised.id in stage_of:
                reflections[reflection.revised.id] = reflection
    return reflections


# --- pairs of DPO -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preference(Record):
    """An accepted path and a rejected path of the same problem."""

    chosen: ReasoningPath
    rejected: ReasoningPath

    @property
    def id(self) -> str:
        return f"{self.chosen.id} > {self.rejected.id}"


def pair_paths(
    train: Sequence[ReasoningPath], incorrect: Sequence[Judged], most: int | None = None
) -> Iterator[Preference]:
    """Pair the paths of D_SFT with the rejected paths of R_incorrect, problem by problem in the order of D_SFT.

    A path of a student or teacher is paired with each rejected path of its problem, a rewrite only with its own draft.
    The newest rejected paths come first, because they are nearest to the current student. If a problem has several
    accepted paths, they take turns. Pairs with an empty path or with equal texts are left out: they teach nothing.

    Args:
        most: pairs per problem. None: all.
    """
    # Positions instead of paths: 280,000 paths stay on the disk.
    accepted: dict[str, list[int]] = {}  # problem -> positions in train
    for position, path in enumerate(train):
        accepted.setdefault(path.problem_id, []).append(position)
    rejected: dict[str, list[int]] = {}  # problem -> positions in incorrect, newest first
    for position in range(len(incorrect) - 1, -1, -1):
        problem = incorrect[position].path.problem_id
        if problem in accepted:
            rejected.setdefault(problem, []).append(position)

    for problem, positions in accepted.items():
        drafts = [incorrect[k].path for k in rejected.get(problem, ())]
        count = 0
        for pair in _pair_in_turns([train[k] for k in positions], drafts):
            texts = pair.chosen.text.strip(), pair.rejected.text.strip()
            if all(texts) and texts[0] != texts[1]:
                yield pair
                count += 1
            if count == most:
                break


def _pair_in_turns(accepted: Sequence[ReasoningPath], drafts: Sequence[ReasoningPath]) -> Iterator[Preference]:
    """Yield all pairs of a problem. In each turn, every accepted path gets another draft."""
    for turn in range(len(drafts)):
        for k, chosen in enumerate(accepted):
            draft = drafts[(turn + k) % len(drafts)]
            if chosen.lineage.origin != "reflection" or chosen.lineage.parent == draft.id:
                yield Preference(chosen, draft)


def make_preference_row(style: PromptStyle, problem: Problem, pair: Preference) -> Row:
    """Return the row of a pair. Both paths answer the question, for every ``evolution.reflect.row``."""
    return Row(**solve_row(style, problem, pair.chosen.text), rejected=pair.rejected.text, id=pair.id)


# --- exposure ---------------------------------------------------------------------------------------------------------
# A student that has seen only a part of its rows is not trained yet, and the next round cannot improve it: measured on
# SmolLM2-135M, where trainings of 0.4 to 0.7 epochs hid a gain of 7 points (experiments/words).

MIN_OWN_SHARE = 0.1  # of the rows; below it the student's own paths change little
STEEP_FALL = 0.25  # relative fall of the mean loss, from the third quarter of the logged steps to the last
MIN_LOSSES_PER_QUARTER = 3  # fewer logged losses give no mean to compare


@dataclass(frozen=True)
class Exposure:
    """How often a training shows its rows to the student.

    Attributes:
        rows: rows of the training.
        own: rows that the student itself wrote.
        seen: rows in all batches together; a row counts each time that it is seen.
    """

    rows: int
    own: int
    seen: int

    @property
    def epochs(self) -> float:
        return self.seen / self.rows

    @property
    def own_share(self) -> float:
        """The student's share of the rows; all rows are seen equally often."""
        return self.own / self.rows

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "own": self.own, "seen": self.seen, "epochs": round(self.epochs, 4)}

    def __str__(self) -> str:
        own = f", {self.own:,} of them the student's own" if self.own else ""
        return f"{self.rows:,} rows{own}; each is seen {self.epochs:.2f} times"


def warn_about_exposure(exposure: Exposure, section: str, has_own: bool) -> Iterator[str]:
    """Yield a warning if a training has less than one epoch, and one if few of its rows are the student's own.

    Args:
        section: the settings of the training, such as "sft.round".
        has_own: whether this stage trains on rows of the student itself.
    """
    if exposure.epochs < 1:
        yield (
            f"each of {exposure.rows:,} rows is seen {exposure.epochs:.2f} times on average, less than one epoch; "
            f"raise {section}.epochs (or {section}.max_steps)"
        )
    if has_own and exposure.own_share < MIN_OWN_SHARE:
        yield (
            f"{exposure.own:,} of {exposure.rows:,} rows ({100 * exposure.own_share:.0f} %) are the student's own, "
            f"less than {100 * MIN_OWN_SHARE:.0f} %, so this round can change little; raise "
            "evolution.round.sample_size or evolution.samples_per_problem"
        )


def warn_about_loss(log: Iterable[Mapping[str, Any]], section: str) -> Iterator[str]:
    """Yield a warning if the loss of a training log still falls steeply at the end.

    Args:
        log: rows of ``train_log.jsonl``. A log with few losses gives no warning.
        section: the settings of the training.
    """
    losses = [float(line["loss"]) for line in log if "loss" in line]
    quarter = len(losses) // 4
    if quarter < MIN_LOSSES_PER_QUARTER:
        return
    before, last = fmean(losses[-2 * quarter : -quarter]), fmean(losses[-quarter:])
    if before - last > STEEP_FALL * before:
        yield (
            f"the loss still falls steeply: {before:.3g} in the third quarter of the steps and {last:.3g} in the last; "
            f"the student is not trained to its end, raise {section}.epochs (or {section}.max_steps)"
        )
