"""The trained ORM as a judge: its checkpoint, its prompt, its JSON, P(correct)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mathse.config.judges import ORMJudge as Settings
from mathse.inference import prompts
from mathse.inference.generate import Ask, completed, completed_at
from mathse.inference.prompts.feedback import STATUS_KEY
from mathse.inference.rows import judge_row
from mathse.judges import Batch, Judge
from mathse.judges.orm_rows import read_orm
from mathse.judges.own_answers import OwnAnswers, Solution
from mathse.judges.verdict_first import beginning_of
from mathse.models.base import Backbone, Completion
from mathse.models.row import Row
from mathse.training import ranks
from mathse.types import Problem, ReasoningPath, Status, Verdict


class ORMJudge:
    """A trained Outcome Reward Model, reading question, image and path (``see_answer``: the reference too).

    With ``own_answer`` it reads an answer of its own there (own_answers.py).

    Where its JSON begins with the status (``binary``, ``order="verdict_first"``), one forward pass over the prompt and
    that beginning gives P(correct); the status is the likelier of the two, and the rest is decoded for paths called
    wrong alone, from what that pass has read; without ``explain`` it is not decoded at all. Where the two together have
    less than half of the probability, the model would not have written a status: unparsed. In the other orders the
    status depends on the text before it, so all of it is decoded, and P(correct) is read where the status stands.
    """

    name = "orm"

    def __init__(
        self,
        backbone: Backbone,
        *,
        binary: bool = False,
        order: str = "analysis_first",
        see_answer: bool = False,
        own_answer: bool = False,
        see_image: bool = True,
        explain: bool = True,
        max_new_tokens: int = 200,
    ) -> None:
        self.backbone, self.binary, self.see_image = backbone, binary, see_image
        self.see_answer = see_answer or own_answer
        self.own = (
            OwnAnswers(backbone.prompt_style, self._solutions, ranks.current().world_size) if own_answer else None
        )
        self.explain, self.max_new_tokens = explain, max_new_tokens
        self.begins = beginning_of(backbone)
        self.status_first = binary or order == "verdict_first"

    def explaining(self, explain: bool) -> ORMJudge:
        """The same judge, of the same weights, with or without explanations of paths that it calls wrong."""
        other = copy(self)
        other.explain = explain
        return other

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        return self._verdicts(batches) if self.own is None else self.own.judged(batches, self._verdicts)

    def _solutions(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Solution]]:
        asks = (Ask(rows, {"max_new_tokens": self.max_new_tokens}) for rows in batches)
        for answered, costs in completed_at(self.backbone, asks):
            yield [Solution(c.text, cost) for (c,), cost in zip(answered, costs, strict=True)]

    def _verdicts(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        options: dict[str, Any] = {"watch": self.begins.statuses}
        if self.status_first:
            length = max(1, self.max_new_tokens - len(self.begins.wrong))
            rest = self.begins.wrong[len(self.begins.before) :] if self.explain and not self.binary else None
            options |= {"begun": self.begins.before, "max_new_tokens": length, "go_on": partial(_rest_of_wrong, rest)}
            verdict = self._by_status
        else:
            options |= {"max_new_tokens": self.max_new_tokens}
            verdict = self._verdict
        answers = completed(self.backbone, (self._ask(*batch, **options) for batch in batches))
        for (_, paths), answer in zip(batches, answers, strict=True):
            yield [verdict(path, completion) for path, (completion,) in zip(paths, answer, strict=True)]

    def _ask(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath], **options: Any) -> Ask:
        rows = [
            judge_row(self.backbone.prompt_style, problem, path.text, self.see_answer, self.see_image)
            for problem, path in zip(problems, paths, strict=True)
        ]
        return Ask(rows, options)

    # --- the whole JSON, the status at its end ---

    def _verdict(self, path: ReasoningPath, completion: Completion) -> Verdict:
        parsed = prompts.parse_feedback(completion.text)
        score = None if parsed.status == "unparsed" else self._score(completion)
        return Verdict(path.id, *parsed, score, self.name, completion.text)

    def _score(self, completion: Completion) -> float | None:
        """P(correct): CORRECT against WRONG where the status was written, whatever text the analysis holds. None where
        no token of the two begins there."""
        key = STATUS_KEY.search(completion.text.lstrip())
        if key is None or completion.watched is None:
            return None

        def length(ids: Sequence[int]) -> int:
            tokenizer = self.backbone.tokenizer
            text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return len(text.lstrip())

        # The first token of a status after the key: characters are counted, since a token may hold more than the value.
        for k, token in enumerate(completion.ids):
            if token in self.begins.statuses and length(completion.ids[: k + 1]) > key.end():
                begins_there = length(completion.ids[:k]) <= key.end()
                return p_correct(completion.watched[k]) if begins_there else None
        return None

    # --- the status from one forward pass ---

    def _by_status(self, path: ReasoningPath, completion: Completion) -> Verdict:
        assert completion.watched is not None  # because of the option "watch"
        log_probs = completion.watched[0]  # (2,): of CORRECT, of WRONG
        status, score = status_of(log_probs)
        if status == "unparsed":
            return Verdict(path.id, "unparsed", judge=self.name, raw=completion.text)
        verdict = Verdict(path.id, status, score=score, judge=self.name)
        if status == "correct" or self.binary or not self.explain:
            return verdict
        parsed = prompts.parse_feedback(completion.text)
        if parsed.status == "unparsed":
            return Verdict(path.id, "unparsed", judge=self.name, raw=completion.text)
        return replace(verdict, error_step=parsed.error_step, error_analysis=parsed.error_analysis, raw=completion.text)


def status_of(log_probs: torch.Tensor) -> tuple[Status, float]:
    """The status, and P(correct), of the log-probabilities of CORRECT and WRONG, (2,)."""
    score = p_correct(log_probs)
    if float(log_probs.exp().sum()) < 0.5:
        return "unparsed", score
    return "correct" if score >= 0.5 else "wrong", score


def _rest_of_wrong(rest: Sequence[int] | None, log_probs: torch.Tensor) -> Sequence[int] | None:
    """What an answer goes on with behind the beginning that both statuses share: ``rest`` for WRONG, else nothing."""
    return rest if status_of(log_probs)[0] == "wrong" else None


def p_correct(log_probs: torch.Tensor) -> float:
    """P(correct) of the log-probabilities of CORRECT and WRONG, (2,)."""
    return round(float(torch.softmax(log_probs, -1)[0]), 6)


def open_orm(
    checkpoint: Path, read: Callable[[], Backbone], max_new_tokens: int, key: str = "judge.checkpoint"
) -> ORMJudge:
    """The judge that an ORM's checkpoint makes; ``read`` opens its weights. Errors name the setting ``key``."""
    orm = read_orm(checkpoint, key)
    return ORMJudge(
        read(),
        binary=orm["kind"] == "binary",
        order=orm["order"],
        see_answer=orm["see_answer"],
        own_answer=orm["own_answer"],
        see_image=orm["see_image"],
        max_new_tokens=max_new_tokens,
    )


def trained_orm(settings: Settings, orm: Callable[[], Judge]) -> Judge:
    """``judge=orm``: the run's own, which all that use it share; the run has opened it with these ``settings``."""
    return orm()


def status_tokens(backbone: Backbone) -> tuple[int, int]:
    """The ids of the tokens with which CORRECT and WRONG part in this backbone's JSON."""
    return beginning_of(backbone).statuses
