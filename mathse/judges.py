"""Who returns a verdict on a path: the trained ORM, the teacher, the reference answer, both, or chance (a control)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, starmap
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from mathse import prompts
from mathse.answers import extract_answer, same_answer
from mathse.backbones.base import Backbone, Completion, Row
from mathse.generate import Ask, completed
from mathse.metrics import accepted
from mathse.seeds import rng
from mathse.store import BatchLog
from mathse.teachers import Teacher, in_calls
from mathse.types import Problem, ReasoningPath, Verdict


class Judge(Protocol):
    """``name`` is recorded in each verdict; a judge that cannot decide says ``unparsed``, it never guesses."""

    name: str

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]: ...


Batch = tuple[Sequence[Problem], Sequence[ReasoningPath]]


@runtime_checkable
class BatchJudge(Judge, Protocol):
    """A judge that asks a model, and so has use for several devices: it is given all batches of a stage."""

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]: ...


def judge_paths(
    judge: Judge,
    problems: Mapping[str, Problem],
    paths: Sequence[ReasoningPath],
    file: Path,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[Verdict]:
    """A verdict on each path, appended to ``file`` batch by batch; paths of similar length are judged together."""
    order = sorted(paths, key=lambda p: (len(p.text), p.id))
    batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
    log = BatchLog(file, [len(b) for b in batches])
    advance(sum(len(b) for b in batches[: log.done]))
    todo = [([problems[p.problem_id] for p in batch], batch) for batch in batches[log.done :]]
    for verdicts in verdicts_on(judge, todo):
        log.append(verdicts)
        advance(len(verdicts))
    return list(log.rows(Verdict))


def verdicts_on(judge: Judge, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
    """The judge's verdicts on each batch, in order."""
    return judge.judge_all(batches) if isinstance(judge, BatchJudge) else starmap(judge.judge, batches)


class ORMJudge:
    """A trained Outcome Reward Model, reading question, image and path (``see_answer``: the reference too)."""

    name = "orm"

    def __init__(
        self,
        backbone: Backbone,
        *,
        binary: bool = False,
        see_answer: bool = False,
        see_image: bool = True,
        max_new_tokens: int = 200,
    ) -> None:
        self.backbone, self.binary, self.see_answer, self.see_image = backbone, binary, see_answer, see_image
        self.max_new_tokens = max_new_tokens
        self.status_tokens = status_tokens(backbone)

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        answers = completed(self.backbone, (self._ask(*batch) for batch in batches))
        for (_, paths), answer in zip(batches, answers, strict=True):
            yield [self._verdict(path, row[0]) for path, row in zip(paths, answer, strict=True)]

    def _ask(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> Ask:
        rows = [
            judge_row(self.backbone, problem, path.text, self.see_answer, self.see_image)
            for problem, path in zip(problems, paths, strict=True)
        ]
        return Ask(rows, {"max_new_tokens": self.max_new_tokens, "watch": self.status_tokens})

    def _verdict(self, path: ReasoningPath, said: Completion) -> Verdict:
        word = prompts.parse_feedback(said.text, binary=self.binary)
        score = None if word.status == "unparsed" else self._probability(said)
        return Verdict(path.id, word.status, word.error_step, word.error_analysis, score, self.name, said.text)

    def _probability(self, said: Completion) -> float | None:
        """P(correct): CORRECT against WRONG where the status was written (its last occurrence)."""
        positions = [k for k, token in enumerate(said.ids) if token in self.status_tokens]
        if not positions or said.watched is None:
            return None
        return round(float(torch.softmax(said.watched[positions[-1]], -1)[0]), 6)


def judge_row(
    backbone: Backbone | type[Backbone], problem: Problem, path: str, see_answer: bool, see_image: bool
) -> Row:
    """The row that asks for a verdict, in the backbone's prompt style."""
    question, history = prompts.judge_prompt(problem, path, backbone.prompt_style, see_answer)
    return Row(question=question, images=problem.images if see_image else (), history=history)


def status_tokens(backbone: Backbone) -> tuple[int, int]:
    """The ids of the tokens that begin CORRECT and WRONG in this backbone's JSON."""
    first = [backbone.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("CORRECT", "WRONG")]
    return first[0], first[1]


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
