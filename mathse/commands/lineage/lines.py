"""The rows of a run that speak of a problem or a path, read file by file in little memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mathse.runs.layout import JUDGED_FILES, PATH_FILES, PREDICTION_FILES, REFLECTIONS, TRAIN, VERDICT_FILES
from mathse.runs.reader import FinishedStage, Run

FILES = (*PATH_FILES, REFLECTIONS, *JUDGED_FILES, *VERDICT_FILES, TRAIN, *PREDICTION_FILES)  # paths before verdicts
NUMBER = re.compile(r"[0-9]{1,18}")  # of a line


@dataclass(frozen=True)
class Line:
    """A line of a stage's file, counted from 1."""

    stage: str
    file: str
    number: int
    row: Mapping[str, Any]

    @property
    def location(self) -> str:
        return f"{self.stage}/{self.file}:{self.number}"

    @property
    def path(self) -> Mapping[str, Any] | None:
        """The path that the row is about, of a reflection the rewrite."""
        if self.file in (*PATH_FILES, TRAIN):
            return self.row
        path: Mapping[str, Any] | None = self.row.get("revised" if self.file == REFLECTIONS else "path")
        return path

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """The verdict on the path, where the row has one."""
        verdict: Mapping[str, Any] | None = self.row if self.file in VERDICT_FILES else self.row.get("verdict")
        return verdict

    @property
    def id(self) -> str:
        """Of the path that the row is about; of a prediction or a source, of its problem."""
        return str(self.path["id"] if self.path is not None else self.row.get("path_id", self.row.get("id")))

    @property
    def problem_id(self) -> str | None:
        """The problem that the row is about; a verdict's row does not name one."""
        problem_id: str | None = (self.path or {}).get("problem_id", self.row.get("id"))
        return problem_id


def rows_of(stage: FinishedStage, file: str, text: str | None = None) -> Iterator[Line]:
    """All rows of a stage's file, or those in which ``text`` stands somewhere; none where it has no such file."""
    return (Line(stage.name, file, number, row) for number, row in stage.lines(file, text=text))


def location_of(run: Run, text: str) -> tuple[FinishedStage, str, int] | None:
    """The stage, the file and the line of "final/train.jsonl:23"; None for a text that names no file of the run."""
    path, _, number = text.rpartition(":")
    name, _, file = path.rpartition("/")
    stage = run.stage(name)
    if stage is None or file not in FILES or not NUMBER.fullmatch(number):
        return None
    return stage, file, int(number)


def lines_about(run: Run, problem_id: str) -> list[Line]:
    """Every row about a problem and about paths for it, in the order of the stages."""
    lines: list[Line] = []
    paths: set[str] = set()
    for stage in run.stages:
        for file in FILES:
            for line in rows_of(stage, file, problem_id):  # a path's id holds its problem's
                if line.problem_id == problem_id or (line.verdict and line.verdict["path_id"] in paths):
                    lines.append(line)
                    if line.path is not None:
                        paths.add(str(line.path["id"]))
    return lines
