"""The trained ORM as a judge: its checkpoint, its prompt, its words, P(correct)."""

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
    status: unparsed. In the other orders the status hangs on the words before it, so all of them are decoded, and
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
        for k in range(0, len(batches), ranks.size()):
            together = list(batches[k : k + ranks.size()])
            verdicts = self._at_once(together)
            yield from verdicts if self.binary else self._explained(together, verdicts)

    def _ask(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath], **how: Any) -> Ask:
        rows = [
            judge_row(self.backbone.prompt_style, problem, path.text, self.see_answer, self.see_image)
            for problem, path in zip(problems, paths, strict=True)
        ]
        return Ask(rows, how)

    # --- all words, then the status ---

    def _decoded(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        how: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "watch": self.begins.statuses}
        answers = completed(self.backbone, (self._ask(*batch, **how) for batch in batches))
        for (_, paths), answer in zip(batches, answers, strict=True):
            yield [self._verdict(path, row[0]) for path, row in zip(paths, answer, strict=True)]

    def _verdict(self, path: ReasoningPath, said: Completion) -> Verdict:
        word = prompts.parse_feedback(said.text)
        score = None if word.status == "unparsed" else self._probability(said)
        return Verdict(path.id, word.status, word.error_step, word.error_analysis, score, self.name, said.text)

    def _probability(self, said: Completion) -> float | None:
        """P(correct): CORRECT against WRONG where the status was written, whatever words the analysis holds."""
        key = STATUS_KEY.search(said.text.lstrip())
        if key is None or said.watched is None:
            return None
        for k, token in enumerate(said.ids):
            if token in self.begins.statuses and len(self._text(said.ids[: k + 1])) > key.end():
                begins_there = len(self._text(said.ids[:k])) <= key.end()
                return p_correct(said.watched[k]) if begins_there else None
        return None

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.backbone.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.lstrip()

    # --- the status from one forward pass ---

    def _at_once(self, batches: Sequence[Batch]) -> list[list[Verdict]]:
        how: dict[str, Any] = {"begun": self.begins.before, "max_new_tokens": 1, "watch": self.begins.statuses}
        answers = completed(self.backbone, (self._ask(*batch, **how) for batch in batches))
        return [
            [self._status(path, row[0]) for path, row in zip(paths, answer, strict=True)]
            for (_, paths), answer in zip(batches, answers, strict=True)
        ]

    def _status(self, path: ReasoningPath, said: Completion) -> Verdict:
        assert said.watched is not None  # it was asked for
        odds = said.watched[0]
        if float(odds.exp().sum()) < 0.5:
            return Verdict(path.id, "unparsed", judge=self.name, raw=said.text)
        score = p_correct(odds)
        return Verdict(path.id, "correct" if score >= 0.5 else "wrong", score=score, judge=self.name)

    def _explained(self, batches: Sequence[Batch], verdicts: Sequence[list[Verdict]]) -> Iterator[list[Verdict]]:
        """The verdicts with the rest of those that say WRONG, decoded from that word on."""
        wrong = [[k for k, word in enumerate(words) if word.status == "wrong"] for words in verdicts]
        room = max(1, self.max_new_tokens - len(self.begins.wrong))
        asks = [
            self._ask([problems[k] for k in places], [paths[k] for k in places], begun=self.begins.wrong,
                      max_new_tokens=room)
            for (problems, paths), places in zip(batches, wrong, strict=True)
            if places
        ]  # fmt: skip
        answers = completed(self.backbone, asks)
        for words, places in zip(verdicts, wrong, strict=True):
            full = list(words)
            for k, row in zip(places, next(answers) if places else (), strict=True):
                full[k] = self._with_analysis(words[k], row[0].text)
            yield full

    def _with_analysis(self, word: Verdict, text: str) -> Verdict:
        said = prompts.parse_feedback(text)
        if said.status == "unparsed":
            return Verdict(word.path_id, "unparsed", judge=self.name, raw=text)
        return replace(word, error_step=said.error_step, error_analysis=said.error_analysis, raw=text)


def p_correct(odds: torch.Tensor) -> float:
    """P(correct) of the log-probabilities of CORRECT and WRONG, (2,)."""
    return round(float(torch.softmax(odds, -1)[0]), 6)


def open_orm(
    checkpoint: Path, read: Callable[[], Backbone], max_new_tokens: int, key: str = "judge.checkpoint"
) -> ORMJudge:
    """The judge that an ORM's checkpoint makes; ``read`` opens its weights."""
    how = read_orm(checkpoint, key)
    return ORMJudge(
        read(),
        binary=how["kind"] == "binary",
        order=how["order"],
        see_answer=how["see_answer"],
        see_image=how["see_image"],
        max_new_tokens=max_new_tokens,
    )


def trained_orm(settings: Settings, orm: Callable[[], Judge]) -> Judge:
    """``judge=orm``: the run's own, which whoever asks it shares; ``settings`` say how it is opened (RunContext)."""
    return orm()


def status_tokens(backbone: Backbone) -> tuple[int, int]:
    """The ids of the tokens with which CORRECT and WRONG part in this backbone's JSON."""
    return beginning_of(backbone).statuses
