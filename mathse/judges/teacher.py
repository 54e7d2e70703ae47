"""``judge=teacher``: the teacher's annotation as the verdict, as many paths a call as the teacher takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from mathse.config.judges import TeacherJudge as Settings
from mathse.judges import Batch
from mathse.judges.teachers import Teacher, in_calls
from mathse.types import Problem, ReasoningPath, Verdict


class TeacherJudge:
    name = "teacher"

    def __init__(self, settings: Settings, teacher: Teacher) -> None:
        """It has no settings of its own: how the teacher answers is in the section ``teacher``."""
        self.teacher = teacher

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        pairs = [list(zip(*batch, strict=True)) for batch in batches]
        for call in in_calls(self.teacher, pairs):
            problems, paths = zip(*(pair for batch in call for pair in batch), strict=True)
            verdicts = (replace(v, judge=self.name) for v in self.teacher.annotate(problems, paths))
            for batch in call:
                yield list(islice(verdicts, len(batch)))
