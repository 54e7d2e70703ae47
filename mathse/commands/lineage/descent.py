"""What descends from a problem: what would have to go, had it never been there. Nothing is removed.

A row descends from a problem if it is about the problem; if a checkpoint that descends from it wrote or judged it; or
if it rewrites a row that does. A checkpoint descends from a problem if it was fitted on a row that does, or started
from a checkpoint that does. Stages of this run are looked through: copies in exports, in reports and in a teacher's
cache are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mathse.commands.lineage.lines import Line, rows_of
from mathse.commands.lineage.story import tell
from mathse.errors import DataError
from mathse.reporting.progress.wording import clean
from mathse.runs.checkpoints import Checkpoint, list_checkpoints
from mathse.runs.layout import (
    CHECKPOINT,
    FEEDBACK,
    FEEDBACK_VERDICTS,
    HELD_PATHS,
    HELD_VERDICTS,
    INCORRECT,
    ORM_HELD,
    PATHS,
    PREDICTION_FILES,
    REFLECTIONS,
    SOURCES,
    TRAIN,
    VERDICTS,
)
from mathse.runs.reader import FinishedStage, Run

OWN = "about the problem"
# A stage's files in the order in which they are made: what its fit learns from, then what the fitted model says.
BEFORE = (PATHS, FEEDBACK_VERDICTS, REFLECTIONS, VERDICTS, INCORRECT, FEEDBACK, TRAIN)
AFTER = (HELD_PATHS, ORM_HELD, HELD_VERDICTS, *PREDICTION_FILES)
ORM = f"orm/{CHECKPOINT}"


def descendants(run: Run, problem_id: str) -> Iterator[dict[str, Any]]:
    """{"kind": "row" | "checkpoint", "place", "id", "because"}, in the order in which they were made.

    Raises DataError for a problem that the run does not have.
    """
    story = tell(run, problem_id)
    if story.problem.problem_id != problem_id:
        raise DataError(f"{problem_id} is the id of a path, and its problem is {story.problem.problem_id!r}: name that")
    return Descent(run, problem_id, story.problem.split).all()


class Descent:
    """One pass over the run's files, stage after stage. Ids of descending paths are kept, their rows are not."""

    def __init__(self, run: Run, problem_id: str, split: str | None) -> None:
        self.run, self.problem_id, self.split = run, problem_id, split
        self.checkpoints = list_checkpoints(run)
        self.paths: dict[str, str] = {}  # id -> why it descends
        self.models: dict[str, str] = {}  # checkpoint -> why it descends
        self.fits: Counter[str] = Counter()  # file of rows -> how many of those fitted on descend

    def all(self) -> Iterator[dict[str, Any]]:
        for stage in self.run.stages:
            if stage.name == "base":
                for line in rows_of(stage, SOURCES):
                    if line.row["problem_id"] == self.problem_id:
                        yield {"kind": "row", "place": line.location, "id": self.problem_id, "because": OWN}
            fitted_first = stage.name.startswith("orm/student_")  # a weak student writes its paths once it is fitted
            if not fitted_first:
                yield from self._rows(stage, BEFORE)
            model = self.checkpoints.get(f"{stage.name}/{CHECKPOINT}")
            if model is not None and (why := self._why_model(model)) is not None:
                self.models[model.name] = why
                yield {"kind": "checkpoint", "place": model.name, "id": model.name, "because": why}
            yield from self._rows(stage, (*BEFORE, *AFTER) if fitted_first else AFTER)

    def _rows(self, stage: FinishedStage, files: Sequence[str]) -> Iterator[dict[str, Any]]:
        for file in files:
            for line in rows_of(stage, file):
                if (why := self._why_row(line)) is not None:
                    yield {"kind": "row", "place": line.location, "id": line.id, "because": why}

    def _why_row(self, line: Line) -> str | None:
        """Why a row descends from the problem; None if it does not."""
        model = f"{line.stage}/{CHECKPOINT}"
        if line.file in PREDICTION_FILES:
            if line.row["id"] == self.problem_id:
                return OWN
            return f"written by {model}" if model in self.models else None

        # What an ORM that descends from the problem has judged does so too.
        by_orm = line.verdict is not None and str(line.verdict["judge"]).startswith("orm")
        judged = f"judged by {ORM}" if by_orm and ORM in self.models else None
        path = line.path
        if path is None:  # a verdict's row
            path_id = line.row["path_id"]
            why = self.paths.get(path_id) or judged
        else:
            path_id, lineage = path["id"], path["lineage"]
            if (why := self.paths.get(path_id)) is not None:
                pass  # known from an earlier file
            elif path["problem_id"] == self.problem_id:
                why = OWN
            elif lineage["model"] in self.models:
                why = f"written by {lineage['model']}"
            elif lineage.get("parent") in self.paths:
                why = f"rewrites {lineage['parent']}"
            else:
                why = judged
        if why is not None:
            self.paths.setdefault(path_id, why)
            if path is not None and model in self.checkpoints and self.checkpoints[model].fitted_on(path_id):
                self.fits[f"{line.stage}/{line.file}"] += 1
        return why

    def _why_model(self, model: Checkpoint) -> str | None:
        """Why a checkpoint descends from the problem; None if it does not."""
        if model.rows is not None and (rows := self.fits[model.rows]):
            return f"fitted on {rows:,} such rows of {model.rows}"

        # The ORM's stages learn from the solutions of a split of their own, or of orm.train.
        settings, stage = self.run.settings, model.stage
        solves = stage == "orm/solver" and settings.get("orm.solver_steps", 0) > 0
        if (file := settings.get("orm.train")) is not None:
            orm = self.run.stage("orm")
            if solves and orm is not None and any(r.problem_id == self.problem_id for r in rows_of(orm, FEEDBACK)):
                return f"fitted on solutions of {file}, which holds the problem"
        elif self.split == "orm_train" and stage.startswith("orm"):
            made_up = stage == "orm" and settings.get("orm.augment", 0) > 0
            size = int(stage.rpartition("_")[2]) if stage.startswith("orm/student_") else 0
            if made_up or solves or self._rank() < size:
                return "fitted on solutions of the split orm_train, which holds the problem"

        if model.start in self.models:
            return f"{'the same as' if model.carried_on else 'started from'} {model.start}"
        return None

    def _rank(self) -> int:
        """How many problems stand before this one in its split."""
        base = self.run.stage("base")
        split = (line for line in rows_of(base, SOURCES) if line.row["split"] == self.split) if base else iter(())
        for rank, line in enumerate(split):
            if line.row["problem_id"] == self.problem_id:
                return rank
        return 0  # not recorded: it may be among the first


def descent_as_text(descent: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The problem's own rows and all checkpoints one by one, further rows as a count a file."""
    further: Counter[tuple[str, str]] = Counter()
    rows = models = 0
    for one in descent:
        if one["kind"] == "checkpoint":
            models += 1
            yield clean(f"checkpoint  {one['place']}: {one['because']}")
            continue
        rows += 1
        if one["because"] == OWN:
            yield clean(f"row         {one['place']}  {one['id']}")
        else:
            rewrite = one["because"].startswith("rewrites ")
            why = "rewrites of such drafts" if rewrite else one["because"]
            further[one["place"].rpartition(":")[0], why] += 1
    for (file, why), count in further.items():
        yield clean(f"rows        {file}: {count:,} further rows, {why}")
    yield f"{rows:,} rows and {models} checkpoints descend from it; nothing was removed. --json names every row."
