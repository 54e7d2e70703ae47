"""Judges that are no ORM: the teacher, the reference answer, both, chance, known noise (controls)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from mathse.judges import Batch, Judge, verdicts_on
from mathse.judges.teachers import Teacher, in_calls
from mathse.scoring.answers import extract_answer, same_answer
from mathse.scoring.metrics import accepted
from mathse.seeds import rng
from mathse.types import Problem, ReasoningPath, Verdict


class AnswerJudge:
    """Compares the final answer with the reference: perfect labels where references are right (the ceiling)."""

    name = "answer"

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdict(problem, path) for problem, path in zip(problems, paths, strict=True)]

    def _verdict(self, problem: Problem, path: ReasoningPath) -> Verdict:
        prediction = extract_answer(path.text)
        if prediction is None:
            return Verdict(path.id, "unparsed", judge=self.name)
        if same_answer(prediction, problem.answer, problem.choices):
            return Verdict(path.id, "correct", judge=self.name)
        return Verdict(path.id, "wrong", error_analysis="The final answer is wrong.", judge=self.name)


class NoisyJudge:
    """Compares with the reference too, and then turns a share ``rate`` of its verdicts round, by chance: a judge of
    known quality. At 0 it is ``AnswerJudge``, at 0.5 it knows nothing."""

    name = "noisy"

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.seed, self.answer = rate, seed, AnswerJudge()

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdict(word) for word in self.answer.judge(problems, paths)]

    def _verdict(self, word: Verdict) -> Verdict:
        correct = word.status == "correct"
        if rng(self.seed, "judge", word.path_id).random() < self.rate:
            correct = not correct
        analysis = None if correct else "The final answer is wrong."
        return Verdict(word.path_id, "correct" if correct else "wrong", error_analysis=analysis, judge=self.name)


class TeacherJudge:
    """The teacher's annotation as the verdict."""

    name = "teacher"

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        pairs = [list(zip(*batch, strict=True)) for batch in batches]
        for call in in_calls(self.teacher, pairs):
            problems, paths = zip(*(pair for batch in call for pair in batch), strict=True)
            said = (replace(v, judge=self.name) for v in self.teacher.annotate(problems, paths))
            for batch in call:
                yield list(islice(said, len(batch)))


class ORMAndAnswerJudge:
    """Correct only if both the ORM (at ``threshold``) and the reference answer say so; the ORM's words are kept."""

    name = "orm_and_answer"

    def __init__(self, orm: Judge, threshold: float) -> None:
        self.orm, self.threshold, self.answer = orm, threshold, AnswerJudge()

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        for words, batch in zip(verdicts_on(self.orm, batches), batches, strict=True):
            both = zip(words, self.answer.judge(*batch), strict=True)
            yield [self._both(orm, answer) for orm, answer in both]

    def _both(self, orm: Verdict, answer: Verdict) -> Verdict:
        agreed = accepted(orm, self.threshold) and answer.status == "correct"
        if orm.status == "unparsed" or agreed or orm.status == "wrong":
            return replace(orm, judge=self.name)
        return replace(orm, status="wrong", error_analysis=answer.error_analysis, judge=self.name)


class RandomJudge:
    """Accepts a share ``rate`` of all paths by chance: the control that any judge has to beat."""

    name = "random"

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.seed = rate, seed

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdict(path) for path in paths]

    def _verdict(self, path: ReasoningPath) -> Verdict:
        lucky = rng(self.seed, "judge", path.id).random() < self.rate
        return Verdict(path.id, "correct" if lucky else "wrong", judge=self.name)
