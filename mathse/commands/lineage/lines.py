"""Read the rows of a run about a problem or a path, file by file, in little memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mathse.runs.layout import JUDGED_FILES, PATH_FILES, PREDICTION_FILES, REFLECTIONS, TRAIN, VERDICT_FILES
from mathse.runs.reader import FinishedStage, Run

ROW_FILES = (
    *PATH_FILES,
    REFLECTIONS,
    *JUDGED_FILES,
    *VERDICT_FILES,
    TRAIN,
    *PREDICTION_FILES,
)  # paths before their verdicts


@dataclass(frozen=True)
class Line:
    """A line of a stage's file. ``number`` starts at 1."""

    stage: str
    file: str
    number: int
    row: Mapping[str, Any]

    @property
    def location(self) -> str:
        return f"{self.stage}/{self.file}:{self.number}"

    @property
    def path(self) -> Mapping[str, Any] | None:
        """The path of the row; in a reflection the rewrite."""
        if self.file in (*PATH_FILES, TRAIN):
            return self.row
        path: Mapping[str, Any] | None = self.row.get("revised" if self.file == REFLECTIONS else "path")
        return path

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """The verdict of the row, if it has a verdict."""
        verdict: Mapping[str, Any] | None = self.row if self.file in VERDICT_FILES else self.row.get("verdict")
        return verdict

    @property
    def id(self) -> str:
        """The id of the row's path; in a prediction or a source, the id of its problem."""
        return str(self.path["id"] if self.path is not None else self.row.get("path_id", self.row.get("id")))

    @property
    def problem_id(self) -> str | None:
        """The id of the row's problem; None in the row of a verdict."""
        problem_id: str | None = (self.path or {}).get("problem_id", self.row.get("id"))
        return problem_id


def read_lines(stage: FinishedStage, file: str, text: str | None = None) -> Iterator[Line]:
    """Yield all rows of a stage's file, or the rows that contain ``text``. A missing file has no rows."""
    return (Line(stage.name, file, number, row) for number, row in stage.lines(file, text=text))


def parse_location(run: Run, text: str) -> tuple[FinishedStage, str, int] | None:
    """Return the stage, file and line of "final/train.jsonl:23"; None for a text that is not a location in the run."""
    path, _, number = text.rpartition(":")
    name, _, file = path.rpartition("/")
    stage = run.stage(name)
    if stage is None or file not in ROW_FILES or not re.fullmatch("[0-9]{1,18}", number):
        return None
    return stage, file, int(number)


def find_lines(run: Run, problem_id: str) -> list[Line]:
    """Return every row about a problem and about its paths, in the order of the stages."""
    lines: list[Line] = []
    paths: set[str] = set()
    for stage in run.stages:
        for file in ROW_FILES:
            for line in read_lines(stage, file, problem_id):  # a path's id contains that of its problem
                if line.problem_id == problem_id or (line.verdict and line.verdict["path_id"] in paths):
                    lines.append(line)
                    if line.path is not None:
                        paths.add(str(line.path["id"]))
    return lines
