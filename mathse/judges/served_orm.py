"""``judge.server=URL``: the trained ORM answers behind an OpenAI-compatible server, with the prompt and the strict
parser of the one in this process.

P(correct) is read from the log-probabilities at the status, as many alternatives a token as the server gives. Where it
gives none (``transformers serve``), a verdict has no score: its status alone decides, whatever ``judge.threshold`` is,
and the run's notes say how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from mathse.errors import TeacherError
from mathse.inference import prompts
from mathse.inference.llm.chat import ChatReply
from mathse.inference.rows import judge_row
from mathse.inference.serving.model import ServedModel
from mathse.judges import Batch
from mathse.judges.orm import STATUS_KEY, p_correct, status_tokens
from mathse.models.base import Backbone
from mathse.runs.layout import VERDICT_FILES
from mathse.runs.reader import read_stages
from mathse.types import Problem, ReasoningPath, Verdict


class ServedORMJudge:
    """An ORM's checkpoint, served; ``reader`` encodes its prompts."""

    name = "orm"

    def __init__(
        self,
        model: ServedModel,
        reader: Backbone,
        *,
        binary: bool = False,
        see_answer: bool = False,
        see_image: bool = True,
        max_new_tokens: int = 200,
    ) -> None:
        self.model, self.reader = model, reader
        self.binary, self.see_answer, self.see_image = binary, see_answer, see_image
        self.max_new_tokens = max_new_tokens
        self.words = tuple(reader.tokenizer.decode([token]) for token in status_tokens(reader))

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        for wave in self.model.waves(batches, lambda batch: len(batch[1])):
            pairs = [pair for problems, paths in wave for pair in zip(problems, paths, strict=True)]
            verdicts = iter(self._verdicts(pairs))
            yield from ([next(verdicts) for _ in paths] for _, paths in wave)

    def _verdicts(self, pairs: Sequence[tuple[Problem, ReasoningPath]]) -> list[Verdict]:
        rows = [
            judge_row(self.reader.prompt_style, problem, path.text, self.see_answer, self.see_image)
            for problem, path in pairs
        ]
        how: dict[str, Any] = {"max_tokens": self.max_new_tokens, "logprobs": True, "prompt_version": "judge"}
        replies = self.model.complete(rows, [self.model.request(row, **how) for row in rows])
        return [self._verdict(path, reply) for (_, path), reply in zip(pairs, replies, strict=True)]

    def _verdict(self, path: ReasoningPath, reply: ChatReply) -> Verdict:
        """Raises TeacherError for a path that the server failed to judge; one that it refuses is unparsed."""
        if reply.outcome == "failed":
            raise TeacherError(
                f"judge.server: gave no verdict on {path.id} ({reply.error}); the same command asks for it again"
            )
        word = prompts.parse_feedback(reply.text, binary=self.binary)
        score = (
            None if word.status == "unparsed" or not reply.logprobs else score_at_status(reply.logprobs[0], *self.words)
        )
        return Verdict(path.id, word.status, word.error_step, word.error_analysis, score, self.name, reply.text)


def score_at_status(tokens: Sequence[Mapping[str, Any]], correct: str, wrong: str) -> float | None:
    """P(correct) against wrong at the token that the status begins with; None where the answer has no such token.

    Args:
        tokens: {"token", "logprob", "top": {token: logprob}} of the whole answer.
        correct, wrong: the tokens that CORRECT and WRONG begin with. One that is not among the alternatives is less
            likely than all of them, and counts as 0.
    """
    key = STATUS_KEY.search("".join(token["token"] for token in tokens))
    end = 0
    for token in tokens:
        end += len(token["token"])
        if key is not None and end > key.end():
            if token["token"] not in (correct, wrong):
                return None
            odds = {**token["top"], token["token"]: token["logprob"]}
            return p_correct(torch.tensor([odds.get(word, -math.inf) for word in (correct, wrong)]))
    return None


def unscored_note(run: Path) -> str | None:
    """What is said of verdicts whose server gave no probabilities, from the files of the run; None where all have."""
    judged, unscored = set(), set()
    for stage in read_stages(run):
        for verdict in chain.from_iterable(stage.rows(file, Verdict) for file in VERDICT_FILES):
            if verdict.judge.startswith(ServedORMJudge.name):
                judged.add(verdict.path_id)
                if verdict.score is None and verdict.status != "unparsed":
                    unscored.add(verdict.path_id)
    if not unscored:
        return None
    return (
        f"judge.server: gave no log-probabilities for {len(unscored):,} of {len(judged):,} paths, so their verdicts "
        "have no P(correct): their status alone decided, and judge.threshold counted for nothing"
    )
