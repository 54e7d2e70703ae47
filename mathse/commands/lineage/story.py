"""The story of a path, back to its problem: each draft, what the judge said, each rewrite, what was fitted on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nlargest
from os.path import commonprefix
from typing import Any

from mathse.commands.lineage.checkpoints import Checkpoint, checkpoints
from mathse.commands.lineage.lines import FILES, Line, lines_about, row_at, rows_of, rows_there
from mathse.commands.lineage.problem import Found, find_problem, recorded_row
from mathse.errors import DataError
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
    """A path and all that is known of it. ``told``: what its writer was told of the draft, where it is a rewrite."""

    path: ReasoningPath
    config_hash: str | None  # of the stage that made it
    model: Checkpoint | None  # that wrote it, where this run made it
    told: Verdict | None
    verdict: Verdict | None
    judge: Checkpoint | None
    stands_in: tuple[str, ...]  # file:line, in the order of the stages
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
            "told": self.told,
            "verdict": self.verdict,
            "judge": self.judge.name if self.judge else None,
            "judge_sha256": dict(self.judge.weights) if self.judge else None,
            "stands_in": list(self.stands_in),
            "fitted": {one.name: dict(one.weights) for one in self.fitted},
        }


@dataclass(frozen=True)
class Story:
    """``steps``: of a path its drafts and then itself; of a problem every path for it, in the order of the stages."""

    asked: str
    problem: Found
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        steps = [step.to_json() for step in self.steps]
        return {"id": self.asked, "problem": self.problem.to_json(), "steps": steps}


def tell(run: Run, asked: str) -> Story:
    """The story of a path's or a problem's id, or of the row at FILE:LINE. Raises DataError, with the nearest ids, for
    one that the run has not."""
    if (line := row_at(run, asked)) is not None:
        asked = str(line.path["id"] if line.path else line.row.get("path_id", line.row.get("id")))
    problem_id = _problem_of(run, asked)
    about = Known(run, lines_about(run, problem_id))
    steps = list(about.paths) if asked == problem_id else about.drafts(asked)
    return Story(asked, find_problem(run, problem_id), tuple(map(about.step, steps)))


def round_of(stage: str, parent: str | None) -> int | None:
    """The round a path belongs to: 0 is the distillation, a rewrite goes with its draft; None outside the rounds."""
    home = (parent or stage).split("/")[0]  # a path's id begins with its stage
    return 0 if home == "distill" else number_of_round(home)


class Known:
    """What the rows about a problem tell of its paths, by path id. The first row that says a thing counts: later files
    repeat it."""

    def __init__(self, run: Run, lines: Sequence[Line]) -> None:
        self.paths: dict[str, ReasoningPath] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.told: dict[str, Verdict | None] = {}
        self.places: dict[str, list[str]] = {}
        self.checkpoints = checkpoints(run)
        self.hashes: dict[str, str | None] = {s.name: s.identity for s in run.stages}
        self.own_judge = run.config.get("judge", {}).get("checkpoint") is None
        for line in lines:
            self._note(line)

    def _note(self, line: Line) -> None:
        if line.path is not None:
            path = ReasoningPath.from_json(line.path)
            self.paths.setdefault(path.id, path)
            self.places.setdefault(path.id, []).append(line.place)
        if line.file == REFLECTIONS:
            reflection = Reflection.from_json(line.row)
            self.told.setdefault(reflection.revised.id, reflection.feedback)
        if line.verdict is not None and line.file != FEEDBACK_VERDICTS:  # that is the writer's feedback
            verdict = Verdict.from_json(line.verdict)
            self.verdicts.setdefault(verdict.path_id, verdict)

    def _config_hash(self, made_in: str) -> str | None:
        """Of the stage itself: held-out paths are made in "distill/held", which is a part of one."""
        while made_in and made_in not in self.hashes:
            made_in = made_in.rpartition("/")[0]
        return self.hashes.get(made_in)

    def drafts(self, path_id: str) -> list[str]:
        """A path's drafts from the first on, and the path itself."""
        chain: list[str] = []
        parent: str | None = path_id
        while parent is not None and parent in self.paths and parent not in chain:
            chain.insert(0, parent)
            parent = self.paths[parent].lineage.parent
        return chain

    def step(self, path_id: str) -> Step:
        path, verdict = self.paths[path_id], self.verdicts.get(path_id)
        places = tuple(self.places[path_id])
        rows = {place.rpartition(":")[0] for place in places}
        by_orm = verdict is not None and verdict.judge.startswith("orm") and self.own_judge
        return Step(
            path,
            self._config_hash(path.lineage.stage),
            self.checkpoints.get(path.lineage.model),
            self.told.get(path_id),
            verdict,
            self.checkpoints.get("orm/checkpoint") if by_orm else None,
            places,
            tuple(one for one in self.checkpoints.values() if one.rows in rows and one.fitted_on(path_id)),
        )


# --- ids --------------------------------------------------------------------------------------------------------------


def _problem_of(run: Run, asked: str) -> str:
    """The problem behind an id of a path or of a problem."""
    if recorded_row(run, asked) is not None:
        return asked
    for stage in run.stages:
        for file in FILES:
            if file in VERDICT_FILES:
                continue
            for line in rows_of(stage, file, asked):
                if line.problem_id == asked or (line.path is not None and line.path["id"] == asked):
                    return str(line.problem_id)
    raise DataError(_unknown(run, asked))


def _unknown(run: Run, asked: str) -> str:
    if (rows := rows_there(run, asked)) is not None:
        return f"{run.folder}: no row {asked}: the file has {rows:,} rows, counted from 1; name one of them"
    likely = nlargest(COMPARED, _ids(run), key=lambda known: _alike(known, asked))
    near = get_close_matches(asked, dict.fromkeys(likely), n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    example = next(_ids(run), None)
    looks = f"; an id here is that of a path or of a problem, such as {example!r}" if example else ""
    return f"{run.folder}: no path or problem {asked!r:.200} in its finished stages{hint}{looks}"


def _ids(run: Run) -> Iterator[str]:
    """Ids of paths and problems; some come more than once."""
    for stage in run.stages:
        for file in (*PATH_FILES, REFLECTIONS, TRAIN):
            for line in rows_of(stage, file):
                path: Mapping[str, Any] = line.path or {}
                yield from (str(path["id"]), str(path["problem_id"]))
        for line in rows_of(stage, SOURCES):
            yield str(line.row["problem_id"])


def _alike(known: str, asked: str) -> int:
    """How much two ids share at their ends; cheap, to choose which ones are compared closely."""
    return len(commonprefix([known, asked])) + len(commonprefix([known[::-1], asked[::-1]]))
