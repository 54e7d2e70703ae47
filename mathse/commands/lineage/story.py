"""The story of a path, back to its problem: each draft, its verdict, each rewrite, and what was fitted on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nlargest
from os.path import commonprefix
from typing import Any

from mathse.commands.lineage.lines import FILES, lines_about, location_of, rows_of
from mathse.commands.lineage.problem import TracedProblem, recorded_row, trace_problem
from mathse.errors import DataError
from mathse.runs.checkpoints import Checkpoint, list_checkpoints
from mathse.runs.layout import (
    FEEDBACK_VERDICTS,
    PATH_FILES,
    REFLECTIONS,
    SOURCES,
    TRAIN,
    VERDICT_FILES,
    number_of_round,
)
from mathse.runs.reader import Run
from mathse.types import ReasoningPath, Reflection, Verdict

COMPARED = 500  # ids of a run that a mistyped one is compared with


@dataclass(frozen=True)
class Step:
    """A path and all that is known of it.

    Attributes:
        config_hash: of the stage that made it.
        model: that wrote it, where this run made that model.
        feedback: what the writer of a rewrite read of its draft.
        judge: the ORM behind ``verdict``, where this run made it.
        stands_in: file:line, in the order of the stages.
        fitted: the checkpoints whose fits it took part in.
    """

    path: ReasoningPath
    config_hash: str | None
    model: Checkpoint | None
    feedback: Verdict | None
    verdict: Verdict | None
    judge: Checkpoint | None
    stands_in: tuple[str, ...]
    fitted: tuple[Checkpoint, ...]

    @property
    def round(self) -> int | None:
        return round_of(self.path.lineage.stage, self.path.lineage.parent)

    def to_json(self) -> dict[str, Any]:
        lineage = self.path.lineage
        return {
            "path_id": self.path.id,
            "origin": lineage.origin,
            "stage": lineage.stage,
            "round": self.round,
            "model": lineage.model,
            "model_sha256": dict(self.model.weights) if self.model else None,
            "seed": lineage.seed,
            "prompt_version": lineage.prompt,
            "config_hash": self.config_hash,
            "parent": lineage.parent,
            "text": self.path.text,
            "told": self.feedback,
            "verdict": self.verdict,
            "judge": self.judge.name if self.judge else None,
            "judge_sha256": dict(self.judge.weights) if self.judge else None,
            "stands_in": list(self.stands_in),
            "fitted": {one.name: dict(one.weights) for one in self.fitted},
        }


@dataclass(frozen=True)
class Story:
    """``steps``: of a path its drafts and then itself; of a problem every path for it, in the order of the stages."""

    id: str
    problem: TracedProblem
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        steps = [step.to_json() for step in self.steps]
        return {"id": self.id, "problem": self.problem.to_json(), "steps": steps}


def tell(run: Run, name: str) -> Story:
    """The story of a path's or a problem's id, or of the row at FILE:LINE. Raises DataError, with the nearest ids, for
    a name that the run does not have."""
    if (location := location_of(run, name)) is not None:
        stage, file, number = location
        line = next((line for line in rows_of(stage, file) if line.number == number), None)
        if line is None:
            count = sum(1 for _ in rows_of(stage, file))
            raise DataError(
                f"{run.folder}: no row {name}: the file has {count:,} rows, counted from 1; name one of them"
            )
        name = line.id
    problem_id = _problem_of(run, name)

    # What the rows about the problem tell of its paths, by path id. The first row counts: later files repeat it.
    paths: dict[str, ReasoningPath] = {}
    verdicts: dict[str, Verdict] = {}
    feedback: dict[str, Verdict | None] = {}
    locations: dict[str, list[str]] = {}
    for line in lines_about(run, problem_id):
        if line.path is not None:
            path = ReasoningPath.from_json(line.path)
            paths.setdefault(path.id, path)
            locations.setdefault(path.id, []).append(line.location)
        if line.file == REFLECTIONS:
            reflection = Reflection.from_json(line.row)
            feedback.setdefault(reflection.revised.id, reflection.feedback)
        if line.verdict is not None and line.file != FEEDBACK_VERDICTS:  # that is the writer's feedback
            verdict = Verdict.from_json(line.verdict)
            verdicts.setdefault(verdict.path_id, verdict)

    # A problem: all paths. A path: its drafts from the first on, and itself.
    chain = list(paths)
    if name != problem_id:
        chain, parent = [], name
        while parent in paths and parent not in chain:
            chain.insert(0, parent)
            parent = paths[parent].lineage.parent or ""

    models = list_checkpoints(run)
    identities = {stage.name: stage.identity for stage in run.stages}
    own_judge = run.config.get("judge", {}).get("checkpoint") is None
    steps = []
    for path_id in chain:
        path, judgement = paths[path_id], verdicts.get(path_id)
        made_in = path.lineage.stage
        while made_in and made_in not in identities:  # held-out paths are made in "distill/held", a part of a stage
            made_in = made_in.rpartition("/")[0]
        by_orm = judgement is not None and judgement.judge.startswith("orm") and own_judge
        files = {location.rpartition(":")[0] for location in locations[path_id]}
        steps.append(
            Step(
                path,
                config_hash=identities.get(made_in),
                model=models.get(path.lineage.model),
                feedback=feedback.get(path_id),
                verdict=judgement,
                judge=models.get("orm/checkpoint") if by_orm else None,
                stands_in=tuple(locations[path_id]),
                fitted=tuple(one for one in models.values() if one.rows in files and one.fitted_on(path_id)),
            )
        )
    return Story(name, trace_problem(run, problem_id), tuple(steps))


def round_of(stage: str, parent: str | None) -> int | None:
    """The round a path belongs to: 0 is the distillation, a rewrite goes with its draft; None outside the rounds."""
    home = (parent or stage).split("/")[0]  # a path's id begins with its stage
    return 0 if home == "distill" else number_of_round(home)


# --- ids --------------------------------------------------------------------------------------------------------------


def _problem_of(run: Run, name: str) -> str:
    """The problem behind an id of a path or of a problem. Raises DataError, with the nearest ids, for another name."""
    if recorded_row(run, name) is not None:
        return name
    for stage in run.stages:
        for file in FILES:
            if file in VERDICT_FILES:
                continue
            for line in rows_of(stage, file, name):
                if line.problem_id == name or (line.path is not None and line.path["id"] == name):
                    return str(line.problem_id)

    def shared(known: str) -> int:
        """How much two ids share at their ends; cheap, to choose which ones are compared closely."""
        return len(commonprefix([known, name])) + len(commonprefix([known[::-1], name[::-1]]))

    near = get_close_matches(name, dict.fromkeys(nlargest(COMPARED, _ids(run), key=shared)), n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    example = next(_ids(run), None)
    form = f"; an id here is that of a path or of a problem, such as {example!r}" if example else ""
    raise DataError(f"{run.folder}: no path or problem {name!r:.200} in its finished stages{hint}{form}")


def _ids(run: Run) -> Iterator[str]:
    """Ids of paths and problems; some come more than once."""
    for stage in run.stages:
        for file in (*PATH_FILES, REFLECTIONS, TRAIN):
            for line in rows_of(stage, file):
                path: Mapping[str, Any] = line.path or {}
                yield from (str(path["id"]), str(path["problem_id"]))
        for line in rows_of(stage, SOURCES):
            yield str(line.row["problem_id"])
