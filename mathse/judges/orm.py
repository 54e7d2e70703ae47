"""The trained ORM as a judge: its checkpoint, its prompt, its JSON, P(correct)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mathse.config.judges import ORMJudge as Settings
from mathse.inference import prompts
from mathse.inference.generate import Ask, completed
from mathse.inference.rows import judge_row
from mathse.judges import Batch, Judge
from mathse.judges.orm_rows import read_orm
from mathse.judges.verdict_first import beginning_of
from mathse.models.base import Backbone, Completion
from mathse.training import ranks
from mathse.types import Problem, ReasoningPath, Verdict

STATUS_KEY = re.compile(r'(?<!\\)"status"\s*:\s*"')  # inside a value the quotes would be escaped


class ORMJudge:
    """A trained Outcome Reward Model, reading question, image and path (``see_answer``: the reference too).

    Where its JSON begins with the status (``binary``, ``order="verdict_first"``), one forward pass over the prompt and
    that beginning gives P(correct); the status is the likelier of the two, and the rest is decoded for paths called
    wrong alone. Where the two together have less than half of the probability, the model would not have written a
    status: unparsed. In the other orders the status depends on the text before it, so all of it is decoded, and
    P(correct) is read where the status stands.
    """

    name = "orm"

    def __init__(
        self,
        backbone: Backbone,
        *,
        binary: bool = False,
        order: str = "analysis_first",
        see_answer: bool = False,
        see_image: bool = True,
        max_new_tokens: int = 200,
    ) -> None:
        self.backbone, self.binary, self.see_answer, self.see_image = backbone, binary, see_answer, see_image
        self.max_new_tokens = max_new_tokens
        self.begins = beginning_of(backbone)
        self.status_first = binary or order == "verdict_first"

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        if not self.status_first:
            yield from self._decoded(batches)
            return
        for k in range(0, len(batches), ranks.size()):  # a batch a rank
            together = list(batches[k : k + ranks.size()])
            verdicts = self._statuses(together)
            yield from verdicts if self.binary else self._explained(together, verdicts)

    def _ask(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath], **options: Any) -> Ask:
        rows = [
            judge_row(self.backbone.prompt_style, problem, path.text, self.see_answer, self.see_image)
            for problem, path in zip(problems, paths, strict=True)
        ]
        return Ask(rows, options)

    # --- the whole JSON, the status at its end ---

    def _decoded(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "watch": self.begins.statuses}
        answers = completed(self.backbone, (self._ask(*batch, **options) for batch in batches))
        for (_, paths), answer in zip(batches, answers, strict=True):
            yield [self._verdict(path, completion) for path, (completion,) in zip(paths, answer, strict=True)]

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

    def _statuses(self, batches: Sequence[Batch]) -> list[list[Verdict]]:
        """Verdicts without analysis: the likelier status, and P(correct)."""
        options: dict[str, Any] = {"begun": self.begins.before, "max_new_tokens": 1, "watch": self.begins.statuses}
        answers = completed(self.backbone, (self._ask(*batch, **options) for batch in batches))
        of_batches = []
        for (_, paths), answer in zip(batches, answers, strict=True):
            verdicts = []
            for path, (completion,) in zip(paths, answer, strict=True):
                assert completion.watched is not None  # because of the option "watch"
                log_probs = completion.watched[0]  # (2,): of CORRECT, of WRONG
                if float(log_probs.exp().sum()) < 0.5:
                    verdicts.append(Verdict(path.id, "unparsed", judge=self.name, raw=completion.text))
                    continue
                score = p_correct(log_probs)
                verdicts.append(Verdict(path.id, "correct" if score >= 0.5 else "wrong", score=score, judge=self.name))
            of_batches.append(verdicts)
        return of_batches

    def _explained(self, batches: Sequence[Batch], of_batches: Sequence[list[Verdict]]) -> Iterator[list[Verdict]]:
        """The verdicts; of those that are WRONG the rest is decoded, from that token on."""
        wrong = [[k for k, verdict in enumerate(verdicts) if verdict.status == "wrong"] for verdicts in of_batches]
        options = {"begun": self.begins.wrong, "max_new_tokens": max(1, self.max_new_tokens - len(self.begins.wrong))}
        asks = [
            self._ask([problems[k] for k in positions], [paths[k] for k in positions], **options)
            for (problems, paths), positions in zip(batches, wrong, strict=True)
            if positions
        ]
        answers = completed(self.backbone, asks)
        for verdicts, positions in zip(of_batches, wrong, strict=True):
            explained = list(verdicts)
            for k, (completion,) in zip(positions, next(answers) if positions else (), strict=True):
                parsed = prompts.parse_feedback(completion.text)
                if parsed.status == "unparsed":
                    explained[k] = Verdict(verdicts[k].path_id, "unparsed", judge=self.name, raw=completion.text)
                    continue
                explained[k] = replace(
                    verdicts[k],
                    error_step=parsed.error_step,
                    error_analysis=parsed.error_analysis,
                    raw=completion.text,
                )
            yield explained


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
        see_image=orm["see_image"],
        max_new_tokens=max_new_tokens,
    )


def trained_orm(settings: Settings, orm: Callable[[], Judge]) -> Judge:
    """``judge=orm``: the run's own, which all that use it share; the run has opened it with these ``settings``."""
    return orm()


def status_tokens(backbone: Backbone) -> tuple[int, int]:
    """The ids of the tokens with which CORRECT and WRONG part in this backbone's JSON."""
    return beginning_of(backbone).statuses
