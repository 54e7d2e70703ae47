"""What a run's fits learn from, one exchange at a time: the student's D_SFT, or the ORM's labelled paths.

The rows are made by the functions that made them for the run's own fit; no model library is loaded for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse import models
from mathse.config.fits import ORMConfig
from mathse.data.domains import recorded_domain
from mathse.data.labelled_paths import read_labelled
from mathse.data.sources import problem_lookup, problem_named
from mathse.errors import DataError
from mathse.evolution.preferences import Preference, preference_row, preferences
from mathse.evolution.state import Judged
from mathse.evolution.training_rows import rewrites, training_row
from mathse.inference import prompts
from mathse.judges import orm_rows
from mathse.models.row import Row, with_pictures_first
from mathse.runs.layout import CHECKPOINT, FEEDBACK, INCORRECT, ORM_FILE, PREFERENCES, TRAIN
from mathse.runs.reader import FinishedStage, Run
from mathse.runs.rows import JsonlRows
from mathse.types import Problem, PromptStyle, ReasoningPath, Verdict

PICTURES_FIRST = ("cogvlm2",)  # families that read pictures before all text (Backbone.pictures_first)


@dataclass(frozen=True)
class Example:
    """``prompt`` and ``images`` are what the model reads, ``history`` the turns before, ``response`` what it learns;
    ``marked``: the images stand at the marks of the first turn, and not before it.

    ``version`` names the prompt, as in a lineage, ``family`` the backbone that it is for; ``verdict`` is there in the
    ORM's examples, ``rejected`` in a pair, whose ``response`` is to be preferred to it.
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
        """What every format keeps of where a row came from."""
        path = self.path
        return {
            "id": path.id,
            "problem_id": path.problem_id,
            "origin": path.lineage.origin,
            "round": path.lineage.stage,
            "source": self.problem.source,
        }


def sft_examples(run: Run, stage: str) -> Iterator[Example]:
    """The rows of D_SFT that the student of ``stage`` was fitted on. Raises DataError where the stage has none."""
    source = _stage_with(run, stage, TRAIN)
    problem_of, family = problem_lookup(run.config), family_of(run.config["backbone"])
    style, with_draft = style_of(run.config["backbone"]), run.config["evolution"]["reflect"].get("row") == "draft"
    rewritten = rewrites(run.folder, source.rows(TRAIN, ReasoningPath)) if with_draft else {}
    for number, path in source.lines(TRAIN, ReasoningPath):
        problem = problem_named(path.problem_id, problem_of, f"{source.folder / TRAIN}:{number}")
        reflection = rewritten.get(path.id)
        row = _as_read(training_row(style, problem, path, reflection), family)
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


def preference_examples(run: Run, stage: str) -> Iterator[Example]:
    """Pairs of an accepted and a rejected path: those that the student of ``stage`` was fitted on, or, where it learnt
    from D_SFT alone, all that its D_SFT and R_incorrect make. Raises DataError where the stage has no D_SFT."""
    source = _stage_with(run, stage, TRAIN)
    problem_of, backbone = problem_lookup(run.config), run.config["backbone"]
    family, style = family_of(backbone), style_of(backbone)
    if source.has(PREFERENCES):
        file, pairs = PREFERENCES, source.rows(PREFERENCES, Preference)
    else:
        train = JsonlRows(source.folder / TRAIN, ReasoningPath)
        incorrect = JsonlRows(source.folder / INCORRECT, Judged) if source.has(INCORRECT) else ()
        file, pairs = TRAIN, preferences(train, incorrect)
    for pair in pairs:
        problem = problem_named(pair.chosen.problem_id, problem_of, str(source.folder / file))
        row = _as_read(preference_row(style, problem, pair), family)
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


def orm_examples(run: Run) -> Iterator[Example]:
    """The labelled paths that the run's ORM was fitted on, with the JSON it learns to write."""
    orm = _stage_with(run, "orm", FEEDBACK)
    section = run.config["orm"]
    # The run's problems, and those of the file that its ORM learnt from, where it did from one.
    problem_of, labelled = problem_lookup(run.config), dict[str, Problem]()
    if section.get("train") is not None:
        labelled_rows = read_labelled(Path(section["train"]), problem_of, recorded_domain(run.config))
        labelled = {row.problem.id: row.problem for row in labelled_rows}
    # How the ORM reads and writes: from its checkpoint; from the run's settings where the checkpoint is gone.
    file = f"{CHECKPOINT}/{ORM_FILE}"
    recorded = orm.json(file) if orm.is_here(file) else section
    settings = ORMConfig(**{key: recorded[key] for key in orm_rows.FORM if key in recorded})

    backbone = section.get("backbone") or run.config["backbone"]
    family, style = family_of(backbone), style_of(backbone)
    for number, row in orm.lines(FEEDBACK, Judged):
        problem = labelled.get(row.path.problem_id) or problem_named(
            row.path.problem_id, problem_of, f"{orm.folder / FEEDBACK}:{number}"
        )
        trained = _as_read(orm_rows.training_row(style, problem, row.path.text, row.verdict, settings), family)
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


def _as_read(row: Row, family: str) -> Row:
    """The row as the family's fit reads it."""
    return with_pictures_first(row) if row.get("marked") and family in PICTURES_FIRST else row


def family_of(backbone: Mapping[str, Any]) -> str:
    """The name of the backbone's family; for a class of the user's own, the name of its package."""
    target = str(backbone["_target_"])
    return models.family_of(target) or target.partition(".")[0]


def style_of(backbone: Mapping[str, Any]) -> PromptStyle:
    """The ``Backbone.prompt_style`` of a backbone's settings, without loading its class, which would load torch."""
    of_family: PromptStyle = getattr(models.FAMILIES.get(family_of(backbone)), "prompt_style", "full")
    chosen: PromptStyle | None = backbone.get("prompt_style")
    return chosen or of_family


def _stage_with(run: Run, stage: str, name: str) -> FinishedStage:
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
