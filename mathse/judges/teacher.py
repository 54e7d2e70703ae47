"""``judge=teacher``: the teacher's annotation as the verdict. A call has as many paths as the teacher takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from mathse.config.judges import TeacherJudgeConfig
from mathse.judges import Batch
from mathse.judges.teachers import Teacher, group_into_calls
from mathse.types import Problem, ReasoningPath, Verdict


class TeacherJudge:
    name = "teacher"

    def __init__(self, settings: TeacherJudgeConfig, teacher: Teacher) -> None:
        """It has no settings of its own: the section ``teacher`` says how the teacher answers."""
        self.teacher = teacher

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        pairs = [list(zip(*batch, strict=True)) for batch in batches]  # (problem, path), by batch
        for call in group_into_calls(self.teacher, pairs):
            problems, paths = [], []
            for batch in call:
                for problem, path in batch:
                    problems.append(problem)
                    paths.append(path)
            annotations = iter(self.teacher.annotate(problems, paths))
            for batch in call:
                yield [replace(verdict, judge=self.name) for verdict in islice(annotations, len(batch))]
