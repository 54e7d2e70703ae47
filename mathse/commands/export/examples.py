"""Read the training rows of a run, one at a time: the student's D_SFT, or the ORM's labelled paths.

The functions that made the rows of the run's own training make them here. No model library is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse import models
from mathse.config.fits import ORM
from mathse.data.domains import recorded_domain
from mathse.data.labelled_paths import read_labelled
from mathse.data.sources import problem_lookup, problem_named
from mathse.errors import DataError
from mathse.evolution.state import Judged
from mathse.evolution.training_rows import (
    Preference,
    make_preference_row,
    make_training_row,
    pair_paths,
    read_reflections,
)
from mathse.inference import prompts
from mathse.judges import orm_rows
from mathse.models.row import Row, with_pictures_first
from mathse.runs.layout import CHECKPOINT, FEEDBACK, INCORRECT, ORM_FILE, PREFERENCES, TRAIN
from mathse.runs.reader import FinishedStage, Run
from mathse.runs.rows import JsonlRows
from mathse.types import Problem, PromptStyle, ReasoningPath, Verdict

PICTURES_FIRST = ("cogvlm2",)  # families that read all pictures before the text (Backbone.pictures_first)


@dataclass(frozen=True)
class Example:
    """One training row.

    Attributes:
        prompt, images: the model's input in the last turn.
        response: the text to learn.
        version: the version of the prompt, as in a lineage.
        family: the backbone's family, for which the prompt was written.
        history: the earlier turns, as (question, answer).
        verdict: the label of an ORM's example.
        marked: whether the images are at the marks in the first turn; otherwise they are before it.
        rejected: the rejected response of a pair.
    """

    path: ReasoningPath
    problem: Problem
    prompt: str
    images: tuple[str, ...]
    response: str
    version: str
    family: str
    history: tuple[tuple[str, str], ...] = ()
    verdict: Verdict | None = None
    marked: bool = False
    rejected: str | None = None

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [*self.history, (self.prompt, self.response)]

    @property
    def lineage(self) -> dict[str, str]:
        """The columns of a row's origin, which every format has."""
        path = self.path
        return {
            "id": path.id,
            "problem_id": path.problem_id,
            "origin": path.lineage.origin,
            "round": path.lineage.stage,
            "source": self.problem.source,
        }


def read_sft_examples(run: Run, stage: str) -> Iterator[Example]:
    """Yield the rows of D_SFT on which the student of ``stage`` was trained. Raises DataError without a D_SFT."""
    source = _find_stage(run, stage, TRAIN)
    problem_of, family = problem_lookup(run.config), read_family(run.config["backbone"])
    style, with_draft = read_style(run.config["backbone"]), run.config["evolution"]["reflect"].get("row") == "draft"
    # With reflect.row=draft a rewrite is trained behind its draft and feedback.
    rewritten = read_reflections(run.folder, source.rows(TRAIN, ReasoningPath)) if with_draft else {}
    for number, path in source.lines(TRAIN, ReasoningPath):
        problem = problem_named(path.problem_id, problem_of, f"{source.folder / TRAIN}:{number}")
        reflection = rewritten.get(path.id)
        row = _order_pictures(make_training_row(style, problem, path, reflection), family)
        version = prompts.version("reflect" if reflection is not None else "generate", style, problem)
        yield Example(
            path,
            problem,
            row["question"],
            tuple(problem.images),
            row["response"],
            version,
            family,
            marked=row.get("marked", False),
        )


def read_preference_examples(run: Run, stage: str) -> Iterator[Example]:
    """Yield pairs of an accepted and a rejected path.

    These are the pairs on which the student of ``stage`` was trained. For a student that was trained on D_SFT only,
    they are all pairs of its D_SFT and R_incorrect. Raises DataError for a stage without D_SFT.
    """
    source = _find_stage(run, stage, TRAIN)
    problem_of, backbone = problem_lookup(run.config), run.config["backbone"]
    family, style = read_family(backbone), read_style(backbone)
    # Without recorded pairs, make them as a training on pairs would.
    if source.has(PREFERENCES):
        file, pairs = PREFERENCES, source.rows(PREFERENCES, Preference)
    else:
        train = JsonlRows(source.folder / TRAIN, ReasoningPath)
        incorrect = JsonlRows(source.folder / INCORRECT, Judged) if source.has(INCORRECT) else ()
        file, pairs = TRAIN, pair_paths(train, incorrect)
    for pair in pairs:
        problem = problem_named(pair.chosen.problem_id, problem_of, str(source.folder / file))
        row = _order_pictures(make_preference_row(style, problem, pair), family)
        yield Example(
            pair.chosen,
            problem,
            row["question"],
            tuple(problem.images),
            row["response"],
            prompts.version("generate", style, problem),
            family,
            marked=row.get("marked", False),
            rejected=row["rejected"],
        )


def read_orm_examples(run: Run) -> Iterator[Example]:
    """Yield the labelled paths on which the run's ORM was trained, with the JSON that it learns to write."""
    orm = _find_stage(run, "orm", FEEDBACK)
    section = run.config["orm"]
    # The run's problems, and with orm.train those of this file.
    problem_of, labelled = problem_lookup(run.config), dict[str, Problem]()
    if section.get("train") is not None:
        labelled_rows = read_labelled(Path(section["train"]), problem_of, recorded_domain(run.config))
        labelled = {row.problem.id: row.problem for row in labelled_rows}
    # The format of the ORM's input and output: from its checkpoint, or from the run's settings if that is deleted.
    file = f"{CHECKPOINT}/{ORM_FILE}"
    recorded = orm.json(file) if orm.is_here(file) else section
    settings = ORM(**{key: recorded[key] for key in orm_rows.FORM if key in recorded})

    backbone = section.get("backbone") or run.config["backbone"]
    family, style = read_family(backbone), read_style(backbone)
    for number, row in orm.lines(FEEDBACK, Judged):
        problem = labelled.get(row.path.problem_id) or problem_named(
            row.path.problem_id, problem_of, f"{orm.folder / FEEDBACK}:{number}"
        )
        trained = _order_pictures(orm_rows.training_row(style, problem, row.path.text, row.verdict, settings), family)
        yield Example(
            row.path,
            problem,
            trained["question"],
            tuple(problem.images) if trained["images"] else (),
            trained["response"],
            prompts.version("judge", style, problem),
            family,
            tuple(trained["history"]),
            row.verdict,
            trained.get("marked", False),
        )


def _order_pictures(row: Row, family: str) -> Row:
    """Return the row with its pictures in the order of the family's training."""
    return with_pictures_first(row) if row.get("marked") and family in PICTURES_FIRST else row


def read_family(backbone: Mapping[str, Any]) -> str:
    """Return the name of the backbone's family; for a user's own class, the name of its package."""
    target = str(backbone["_target_"])
    return models.find_family(target) or target.partition(".")[0]


def read_style(backbone: Mapping[str, Any]) -> PromptStyle:
    """Return ``Backbone.prompt_style`` from a backbone's settings, without importing its class, which loads torch."""
    default: PromptStyle = getattr(models.FAMILIES.get(read_family(backbone)), "prompt_style", "full")
    chosen: PromptStyle | None = backbone.get("prompt_style")
    return chosen or default


def _find_stage(run: Run, stage: str, name: str) -> FinishedStage:
    """Return a finished stage that has the file ``name``. Raises DataError with the stages that have it."""
    finished = run.stage(stage)
    if finished is not None and finished.has(name):
        return finished
    others = [s.name for s in run.stages if s.has(name)]
    if stage == "orm" and name == FEEDBACK:
        raise DataError(f"{run.folder / stage}: has no {name}; the run must have trained its ORM (judge=orm, task=orm)")
    if not others:
        hint = "pass --what orm, or export another run" if run.task == "orm" else "let the run finish a stage first"
        raise DataError(f"{run.folder}: no finished stage of this run has a {name}; {hint}")
    raise DataError(f"{run.folder / stage}: no finished stage with a {name}; choose --stage {' or '.join(others)}")
