"""The trained ORM as a judge: its checkpoint, its prompt, its JSON, P(correct)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from mathse.config.judges import ORMJudgeConfig
from mathse.inference import prompts
from mathse.inference.generate import PromptBatch, complete_batches, complete_with_costs
from mathse.inference.prompts.feedback import STATUS_KEY
from mathse.inference.rows import judge_row
from mathse.judges import Batch, Judge
from mathse.judges.orm_rows import read_orm
from mathse.judges.own_answers import OwnAnswers, Solution
from mathse.models.base import Backbone, Completion
from mathse.models.row import Row
from mathse.training import ranks
from mathse.types import Problem, ReasoningPath, Status, Verdict


@dataclass(frozen=True)
class VerdictPrefix:
    """Token ids at the beginning of a verdict whose JSON begins with the status.

    An ORM with such a JSON gives P(correct) from one forward pass over its prompt and ``before``.
    """

    before: list[int]  # up to the token at which CORRECT and WRONG differ
    statuses: tuple[int, int]  # the tokens at which they differ: of CORRECT, of WRONG
    wrong: list[int]  # up to the end of WRONG


def find_verdict_prefix(backbone: Backbone) -> VerdictPrefix:
    """Find the token ids that the training targets of both statuses share. Binary verdicts have the same prefix.

    No part of a target is encoded by itself, since a tokenizer may merge the characters at the cut differently.
    """
    targets = [prompts.binary_json(Verdict("", status)) for status in prompts.STATUS_WORDS]
    targets.append(prompts.feedback_json(Verdict("", "wrong", "Step 1", "words"), "verdict_first"))
    right, wrong, explained = (backbone.tokenizer(text, add_special_tokens=False)["input_ids"] for text in targets)
    before = _common_prefix(right, wrong)
    statuses = (right[len(before)], wrong[len(before)])
    return VerdictPrefix(before, statuses, _common_prefix(wrong, explained))


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))]


class ORMJudge:
    """A trained Outcome Reward Model, which reads question, image and path.

    If its JSON begins with the status (``binary``, ``order="verdict_first"``), one forward pass over the prompt and the
    JSON's prefix gives P(correct). The status is the likelier of the two. For a path judged wrong, the rest of the JSON
    is decoded from the same KV cache, unless ``explain`` is false. If CORRECT and WRONG together have a probability
    below 0.5, the model would not have written a status, and the verdict is unparsed. In the other orders the status
    depends on the text before it, so the whole JSON is decoded, and P(correct) is read at the status.

    Args:
        see_answer: the prompt has the reference answer.
        own_answer: the prompt has the ORM's own answer in the reference's place (own_answers.py).
        see_image: the prompt has the problem's images.
        explain: decode the error analysis of paths that are judged wrong.
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
        ranks_at_work = ranks.current().world_size
        self.own = OwnAnswers(backbone.prompt_style, self._solve_all, ranks_at_work) if own_answer else None
        self.explain, self.max_new_tokens = explain, max_new_tokens
        self.prefix = find_verdict_prefix(backbone)
        self.status_first = binary or order == "verdict_first"

    def explaining(self, explain: bool) -> ORMJudge:
        """Return a judge with the same weights that explains the paths judged wrong, or does not."""
        other = copy(self)
        other.explain = explain
        return other

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        if self.own is not None:
            return self.own.judge_with(batches, self._judge_all)
        return self._judge_all(batches)

    def _solve_all(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Solution]]:
        asks = (PromptBatch(rows, {"max_new_tokens": self.max_new_tokens}) for rows in batches)
        for completions, costs in complete_with_costs(self.backbone, asks):
            yield [Solution(c.text, cost) for (c,), cost in zip(completions, costs, strict=True)]

    def _judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        options: dict[str, Any] = {"watch": self.prefix.statuses}
        if self.status_first:
            # Tokens between the shared prefix and the end of WRONG; None: the JSON ends with the status.
            rest = self.prefix.wrong[len(self.prefix.before) :] if self.explain and not self.binary else None
            options["begun"] = self.prefix.before
            options["max_new_tokens"] = max(1, self.max_new_tokens - len(self.prefix.wrong))
            options["go_on"] = partial(_continue_if_wrong, rest)
            read_verdict = self._read_status_first
        else:
            options["max_new_tokens"] = self.max_new_tokens
            read_verdict = self._read_whole
        completions = complete_batches(self.backbone, (self._ask(*batch, **options) for batch in batches))
        for (_, paths), of_batch in zip(batches, completions, strict=True):
            yield [read_verdict(path, completion) for path, (completion,) in zip(paths, of_batch, strict=True)]

    def _ask(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath], **options: Any) -> PromptBatch:
        rows = [
            judge_row(self.backbone.prompt_style, problem, path.text, self.see_answer, self.see_image)
            for problem, path in zip(problems, paths, strict=True)
        ]
        return PromptBatch(rows, options)

    def _read_whole(self, path: ReasoningPath, completion: Completion) -> Verdict:
        """Read a whole JSON in which the status may have any place."""
        verdict = prompts.parse_feedback(completion.text, path.id, self.name)
        score = None if verdict.status == "unparsed" else self._score(completion)
        return replace(verdict, score=score, raw=completion.text)

    def _score(self, completion: Completion) -> float | None:
        """Return P(correct), CORRECT against WRONG at the position of the status, whatever text the analysis holds.

        None: neither CORRECT nor WRONG begins with a token of its own at this position.
        """
        key = STATUS_KEY.search(completion.text.lstrip())
        if key is None or completion.watched is None:
            return None

        def count_chars(ids: Sequence[int]) -> int:
            tokenizer = self.backbone.tokenizer
            text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return len(text.lstrip())

        # Find the first status token that ends behind the key. Characters are counted, since a token may hold more
        # than the value.
        for k, token in enumerate(completion.ids):
            if token in self.prefix.statuses and count_chars(completion.ids[: k + 1]) > key.end():
                begins_at_value = count_chars(completion.ids[:k]) <= key.end()
                return p_correct(completion.watched[k]) if begins_at_value else None
        return None

    def _read_status_first(self, path: ReasoningPath, completion: Completion) -> Verdict:
        """Read the status from the forward pass, and the analysis from the rest of the JSON."""
        assert completion.watched is not None  # because of the option "watch"
        log_probs = completion.watched[0]  # (2,): of CORRECT, of WRONG
        status, score = read_status(log_probs)
        unparsed = Verdict(path.id, "unparsed", judge=self.name, raw=completion.text)
        if status == "unparsed":
            return unparsed
        if status == "correct" or self.binary or not self.explain:
            return Verdict(path.id, status, score=score, judge=self.name)
        explained = prompts.parse_feedback(completion.text, path.id, self.name)
        if explained.status == "unparsed":
            return unparsed
        return replace(explained, status=status, score=score, raw=completion.text)


def read_status(log_probs: torch.Tensor) -> tuple[Status, float]:
    """Return the status and P(correct) from the log-probabilities of CORRECT and WRONG, (2,)."""
    score = p_correct(log_probs)
    if float(log_probs.exp().sum()) < 0.5:
        return "unparsed", score
    return "correct" if score >= 0.5 else "wrong", score


def _continue_if_wrong(rest: Sequence[int] | None, log_probs: torch.Tensor) -> Sequence[int] | None:
    """Return the token ids with which an answer continues behind the shared prefix: ``rest`` for WRONG, else None."""
    return rest if read_status(log_probs)[0] == "wrong" else None


def p_correct(log_probs: torch.Tensor) -> float:
    """Return P(correct) from the log-probabilities of CORRECT and WRONG, (2,), to 6 digits."""
    return round(float(torch.softmax(log_probs, -1)[0]), 6)


def open_orm(
    checkpoint: Path, read: Callable[[], Backbone], max_new_tokens: int, key: str = "judge.checkpoint"
) -> ORMJudge:
    """Open the judge of an ORM's checkpoint.

    Args:
        checkpoint: the folder.
        read: opens the weights.
        max_new_tokens: length limit of a verdict.
        key: the setting that errors name.
    """
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


def trained_orm(settings: ORMJudgeConfig, orm: Callable[[], Judge]) -> Judge:
    """``judge=orm``: return the run's own ORM, which the run opens with these ``settings`` and shares."""
    return orm()


def status_tokens(backbone: Backbone) -> tuple[int, int]:
    """Return the ids of the tokens at which CORRECT and WRONG differ in this backbone's JSON."""
    return find_verdict_prefix(backbone).statuses
