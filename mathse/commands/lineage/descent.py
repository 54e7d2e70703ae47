"""What descends from a problem: what would have to go, had it never been there. Nothing is removed.

A row descends from a problem if it is about the problem; if a checkpoint that descends from it wrote or judged it; or
if it rewrites a row that does. A checkpoint descends from a problem if it was fitted on a row that does, or started
from a checkpoint that does. Stages of this run are looked through: copies in exports, in reports and in a teacher's
cache are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mathse.commands.lineage.checkpoints import CHECKPOINT, Checkpoint, checkpoints
from mathse.commands.lineage.lines import DEV_PREDICTIONS, PREDICTIONS, REFLECTIONS, TRAIN, Line, in_order, rows_of
from mathse.commands.lineage.story import tell
from mathse.errors import DataError
from mathse.evolution.sources import SOURCES
from mathse.reporting.progress.wording import clean
from mathse.reporting.report.runs import Run, Stage
from mathse.runs.flat import flatten

OWN = "about the problem"
# A stage's files in the order in which they are made: what its fit learns from, then what the fitted model says.
BEFORE = ("paths.jsonl", "feedback_verdicts.jsonl", REFLECTIONS, "verdicts.jsonl", "incorrect.jsonl", "feedback.jsonl",
          TRAIN)  # fmt: skip
AFTER = ("held_paths.jsonl", "orm_held.jsonl", "held_verdicts.jsonl", PREDICTIONS, DEV_PREDICTIONS)
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
        self.settings = flatten(run.config)
        self.known = checkpoints(run)
        self.paths: dict[str, str] = {}  # id -> why
        self.models: dict[str, str] = {}  # checkpoint -> why
        self.fits: Counter[str] = Counter()  # file of rows -> how many of those fitted on descend

    def all(self) -> Iterator[dict[str, Any]]:
        for stage in in_order(self.run):
            if stage.name == "base":
                yield from self._source(stage)
            fitted_first = stage.name.startswith("orm/student_")  # a weak student writes its paths once it is fitted
            if not fitted_first:
                yield from self._rows(stage, BEFORE)
            one = self.known.get(f"{stage.name}/{CHECKPOINT}")
            if one is not None and (why := self._fit(one)) is not None:
                self.models[one.name] = why
                yield {"kind": "checkpoint", "place": one.name, "id": one.name, "because": why}
            yield from self._rows(stage, (*BEFORE, *AFTER) if fitted_first else AFTER)

    def _rows(self, stage: Stage, files: Sequence[str]) -> Iterator[dict[str, Any]]:
        for file in files:
            for line in rows_of(stage, file):
                if (why := self._row(line)) is not None:
                    yield {"kind": "row", "place": line.place, "id": _id(line), "because": why}

    def _source(self, base: Stage) -> Iterator[dict[str, Any]]:
        for line in rows_of(base, SOURCES):
            if line.row["problem_id"] == self.problem_id:
                yield {"kind": "row", "place": line.place, "id": self.problem_id, "because": OWN}

    def _row(self, line: Line) -> str | None:
        """Why a row descends from the problem; None if it does not."""
        if line.file in (PREDICTIONS, DEV_PREDICTIONS):
            return self._prediction(line)
        path = line.path
        if path is None:  # a verdict's row
            if (why := self.paths.get(line.row["path_id"]) or self._judging(line.row)) is not None:
                self.paths.setdefault(line.row["path_id"], why)
            return why
        why = self.paths.get(path["id"]) or self._writing(path) or self._judging(line.verdict)
        if why is not None:
            self.paths.setdefault(path["id"], why)
            if (one := self.known.get(f"{line.stage}/{CHECKPOINT}")) and one.fitted_on(path["id"]):
                self.fits[f"{line.stage}/{line.file}"] += 1
        return why

    def _writing(self, path: Any) -> str | None:
        lineage = path["lineage"]
        if path["problem_id"] == self.problem_id:
            return OWN
        if lineage["model"] in self.models:
            return f"written by {lineage['model']}"
        return f"rewrites {lineage['parent']}" if lineage.get("parent") in self.paths else None

    def _prediction(self, line: Line) -> str | None:
        writer = f"{line.stage}/{CHECKPOINT}"
        if line.row["id"] == self.problem_id:
            return OWN
        return f"written by {writer}" if writer in self.models else None

    def _judging(self, verdict: Mapping[str, Any] | None) -> str | None:
        """What an ORM that descends from the problem has judged does so too."""
        by_orm = verdict is not None and str(verdict["judge"]).startswith("orm")
        return f"judged by {ORM}" if by_orm and ORM in self.models else None

    def _fit(self, one: Checkpoint) -> str | None:
        if one.rows is not None and (rows := self.fits[one.rows]):
            return f"fitted on {rows:,} such rows of {one.rows}"
        if (why := self._solutions(one)) is not None:
            return why
        if one.start in self.models:
            return f"{'the same as' if one.carried_on else 'started from'} {one.start}"
        return None

    def _solutions(self, one: Checkpoint) -> str | None:
        """Of the ORM's stages, which learn from the solutions of a split of their own, or of ``orm.train``."""
        solves = one.stage == "orm/solver" and self.settings.get("orm.solver_steps", 0) > 0
        if (own := self.settings.get("orm.train")) is not None:
            return f"fitted on solutions of {own}, which holds the problem" if solves and self._labelled() else None
        if self.split != "orm_train" or not one.stage.startswith("orm"):
            return None
        made_up = one.stage == "orm" and self.settings.get("orm.augment", 0) > 0
        size = int(one.stage.rpartition("_")[2]) if one.stage.startswith("orm/student_") else None
        if made_up or solves or (size is not None and self._rank() < size):
            return "fitted on solutions of the split orm_train, which holds the problem"
        return None

    def _labelled(self) -> bool:
        """Whether the ORM's own rows are about the problem."""
        orm = self.run.stage("orm")
        return orm is not None and any(line.problem_id == self.problem_id for line in rows_of(orm, "feedback.jsonl"))

    def _rank(self) -> int:
        """How many problems stand before this one in its split."""
        base = self.run.stage("base")
        split = (line for line in rows_of(base, SOURCES) if line.row["split"] == self.split) if base else iter(())
        for rank, line in enumerate(split):
            if line.row["problem_id"] == self.problem_id:
                return rank
        return 0  # not recorded: it may be among the first


def _id(line: Line) -> str:
    return str(line.path["id"] if line.path is not None else line.row.get("path_id", line.row.get("id")))


def descent_in_words(found: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The problem's own rows and all checkpoints one by one, further rows as a count a file."""
    further: Counter[tuple[str, str]] = Counter()
    rows = models = 0
    for one in found:
        if one["kind"] == "checkpoint":
            models += 1
            yield clean(f"checkpoint  {one['place']}: {one['because']}")
            continue
        rows += 1
        if one["because"] == OWN:
            yield clean(f"row         {one['place']}  {one['id']}")
        else:
            further[one["place"].rpartition(":")[0], _kind(one["because"])] += 1
    for (file, why), count in further.items():
        yield clean(f"rows        {file}: {count:,} further rows, {why}")
    yield f"{rows:,} rows and {models} checkpoints descend from it; nothing was removed. --json names every row."


def _kind(because: str) -> str:
    return "rewrites of such drafts" if because.startswith("rewrites ") else because
