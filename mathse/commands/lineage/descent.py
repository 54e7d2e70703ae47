"""Find all rows and checkpoints that descend from a problem. Nothing is removed.

A row descends from a problem if it is about the problem, if a checkpoint that descends from the problem wrote or judged
it, or if it rewrites such a row. A checkpoint descends from a problem if it was trained on such a row, or started from
such a checkpoint. The search covers the stages of this run, not copies in exports, reports or a teacher's cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mathse.commands.lineage.lines import Line, read_lines
from mathse.commands.lineage.story import trace_path
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
# The files of a stage in the order of their writing: input of its training, then output of the trained model.
BEFORE_TRAINING = (PATHS, FEEDBACK_VERDICTS, REFLECTIONS, VERDICTS, INCORRECT, FEEDBACK, TRAIN)
AFTER_TRAINING = (HELD_PATHS, ORM_HELD, HELD_VERDICTS, *PREDICTION_FILES)
ORM_CHECKPOINT = f"orm/{CHECKPOINT}"


def find_descendants(run: Run, problem_id: str) -> Iterator[dict[str, Any]]:
    """Yield {"kind": "row" | "checkpoint", "place", "id", "because"}, in the order of their making.

    Raises DataError for an unknown problem.
    """
    story = trace_path(run, problem_id)
    if story.problem.problem_id != problem_id:
        raise DataError(
            f"{problem_id} is the id of a path, and its problem is {story.problem.problem_id!r}: pass that id"
        )
    return Descent(run, problem_id, story.problem.split).find_all()


class Descent:
    """One pass over the run's files, stage after stage. Memory has the ids of descending paths, not their rows."""

    def __init__(self, run: Run, problem_id: str, split: str | None) -> None:
        self.run, self.problem_id, self.split = run, problem_id, split
        self.checkpoints = list_checkpoints(run)
        self.paths: dict[str, str] = {}  # id -> reason
        self.models: dict[str, str] = {}  # checkpoint -> reason
        self.trained_rows: Counter[str] = Counter()  # file -> number of descending rows in the training

    def find_all(self) -> Iterator[dict[str, Any]]:
        for stage in self.run.stages:
            if stage.name == "base":
                for line in read_lines(stage, SOURCES):
                    if line.row["problem_id"] == self.problem_id:
                        yield {"kind": "row", "place": line.location, "id": self.problem_id, "because": OWN}
            trained_first = stage.name.startswith("orm/student_")  # a weak student writes its paths after its training
            if not trained_first:
                yield from self._find_rows(stage, BEFORE_TRAINING)
            model = self.checkpoints.get(f"{stage.name}/{CHECKPOINT}")
            if model is not None and (reason := self._explain_model(model)) is not None:
                self.models[model.name] = reason
                yield {"kind": "checkpoint", "place": model.name, "id": model.name, "because": reason}
            yield from self._find_rows(stage, (*BEFORE_TRAINING, *AFTER_TRAINING) if trained_first else AFTER_TRAINING)

    def _find_rows(self, stage: FinishedStage, files: Sequence[str]) -> Iterator[dict[str, Any]]:
        for file in files:
            for line in read_lines(stage, file):
                if (reason := self._explain_row(line)) is not None:
                    yield {"kind": "row", "place": line.location, "id": line.id, "because": reason}

    def _explain_row(self, line: Line) -> str | None:
        """Return the reason why a row descends from the problem; None if it does not."""
        # A prediction answers a test problem with the checkpoint of its stage.
        model = f"{line.stage}/{CHECKPOINT}"
        if line.file in PREDICTION_FILES:
            if line.row["id"] == self.problem_id:
                return OWN
            return f"written by {model}" if model in self.models else None

        # A verdict of an ORM that descends from the problem descends from it too.
        by_orm = line.verdict is not None and str(line.verdict["judge"]).startswith("orm")
        judged = f"judged by {ORM_CHECKPOINT}" if by_orm and ORM_CHECKPOINT in self.models else None
        path = line.path
        if path is None:  # a verdict's row
            path_id = line.row["path_id"]
            reason = self.paths.get(path_id) or judged
        else:
            path_id, lineage = path["id"], path["lineage"]
            if (reason := self.paths.get(path_id)) is not None:
                pass  # known from an earlier file
            elif path["problem_id"] == self.problem_id:
                reason = OWN
            elif lineage["model"] in self.models:
                reason = f"written by {lineage['model']}"
            elif lineage.get("parent") in self.paths:
                reason = f"rewrites {lineage['parent']}"
            else:
                reason = judged
        if reason is not None:
            self.paths.setdefault(path_id, reason)
            if path is not None and model in self.checkpoints and self.checkpoints[model].fitted_on(path_id):
                self.trained_rows[f"{line.stage}/{line.file}"] += 1
        return reason

    def _explain_model(self, model: Checkpoint) -> str | None:
        """Return the reason why a checkpoint descends from the problem; None if it does not."""
        # Trained on descending rows of a file of this run.
        if model.rows is not None and (rows := self.trained_rows[model.rows]):
            return f"trained on {rows:,} such rows of {model.rows}"

        # The ORM's stages train on solutions of their own split, or of orm.train.
        settings, stage = self.run.settings, model.stage
        solves = stage == "orm/solver" and settings.get("orm.solver_steps", 0) > 0
        if (file := settings.get("orm.train")) is not None:
            orm = self.run.stage("orm")
            if solves and orm is not None and any(r.problem_id == self.problem_id for r in read_lines(orm, FEEDBACK)):
                return f"trained on solutions of {file}, which has the problem"
        elif self.split == "orm_train" and stage.startswith("orm"):
            augmented = stage == "orm" and settings.get("orm.augment", 0) > 0
            size = int(stage.rpartition("_")[2]) if stage.startswith("orm/student_") else 0
            if augmented or solves or self._position() < size:
                return "trained on solutions of the split orm_train, which has the problem"

        # Started from a descending checkpoint.
        if model.start in self.models:
            return f"{'the same as' if model.carried_on else 'started from'} {model.start}"
        return None

    def _position(self) -> int:
        """Return the number of problems before this problem in its split; 0 if the run did not record it."""
        base = self.run.stage("base")
        split = (line for line in read_lines(base, SOURCES) if line.row["split"] == self.split) if base else iter(())
        for position, line in enumerate(split):
            if line.row["problem_id"] == self.problem_id:
                return position
        return 0  # the problem may be among the first


def format_descent(descent: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield one line for each of the problem's own rows and each checkpoint, and the counts of further rows by file."""
    further: Counter[tuple[str, str]] = Counter()
    rows = models = 0
    for item in descent:
        if item["kind"] == "checkpoint":
            models += 1
            yield clean(f"checkpoint  {item['place']}: {item['because']}")
            continue
        rows += 1
        if item["because"] == OWN:
            yield clean(f"row         {item['place']}  {item['id']}")
        else:
            is_rewrite = item["because"].startswith("rewrites ")
            reason = "rewrites of such drafts" if is_rewrite else item["because"]
            further[item["place"].rpartition(":")[0], reason] += 1
    for (file, reason), count in further.items():
        yield clean(f"rows        {file}: {count:,} further rows, {reason}")
    yield f"{rows:,} rows and {models} checkpoints descend from it; nothing was removed. --json lists every row."
