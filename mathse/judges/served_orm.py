"""``judge.server=URL``: the trained ORM behind an OpenAI-compatible server, with the prompt and the strict parser of
``ORMJudge``.

P(correct) is read from the log-probabilities at the status, as many alternatives a token as the server gives. Where it
gives none (``transformers serve``), a verdict has no score: its status alone decides, whatever ``judge.threshold`` is,
and the run's notes say how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from mathse.config.judges import Judge as Settings
from mathse.errors import TeacherError
from mathse.inference import prompts
from mathse.inference.llm.chat import ChatReply
from mathse.inference.llm.client import ChatClient
from mathse.inference.rows import judge_row
from mathse.inference.serving.engines import Engine, FolderEngine, NamedEngine
from mathse.inference.serving.health_check import Address
from mathse.inference.serving.model import ServedCheckpoint, ServedModel
from mathse.inference.serving.names import SERVED, content_name
from mathse.inference.serving.started import StartedEngine
from mathse.judges import Batch
from mathse.judges.orm import STATUS_KEY, p_correct, status_tokens
from mathse.judges.orm_rows import read_orm
from mathse.models.base import Backbone
from mathse.models.prompt_reader import prompt_reader
from mathse.runs.layout import JUDGE_USAGE, VERDICT_FILES
from mathse.runs.reader import read_stages
from mathse.types import Problem, ReasoningPath, Verdict


class ServedORM:
    """The ORM of a run behind ``judge.server``; an engine starts with the first request.

    Args:
        settings: the section ``judge``.
        section: the settings of the ORM's backbone, which its prompts are encoded with.
        run: the run folder.
        say: shows a line of progress.
    """

    def __init__(self, settings: Settings, section: Any, run: Path, say: Callable[[str], None]) -> None:
        self.settings, self.section, self.run = settings, section, run
        self.address = Address(str(settings.server), settings.api_key_env, "judge")
        self.engine: Engine
        if settings.command is not None:
            self.engine = StartedEngine(settings.command, self.address, run / SERVED, settings.start_timeout, say)
        elif settings.model is not None:
            self.engine = NamedEngine(settings.model)
        else:
            self.engine = FolderEngine(run / SERVED)

    def of(self, checkpoint: Path, whole: Callable[[], Backbone]) -> ServedORMJudge:
        """The judge of a checkpoint. Raises CheckpointError where that is no ORM's.

        ``whole`` opens it with its weights, for families whose prompts cannot be read without.
        """
        settings, orm = self.settings, read_orm(checkpoint)
        reader = prompt_reader(self.section, checkpoint, whole)
        client = ChatClient.of(settings, content_name(checkpoint), "judge", base_url=settings.server)
        client.account_in(self.run, JUDGE_USAGE)
        return ServedORMJudge(
            ServedModel(client, settings.image_side, ServedCheckpoint(self.engine, checkpoint, reader)),
            reader,
            binary=orm["kind"] == "binary",
            see_answer=orm["see_answer"],
            see_image=orm["see_image"],
            max_new_tokens=settings.max_new_tokens,
        )


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
        # the text of the tokens that CORRECT and WRONG begin with, as servers name tokens
        self.statuses = tuple(reader.tokenizer.decode([token]) for token in status_tokens(reader))

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        for wave in self.model.waves(batches, lambda batch: len(batch[1])):
            pairs = [pair for problems, paths in wave for pair in zip(problems, paths, strict=True)]
            rows = [
                judge_row(self.reader.prompt_style, problem, path.text, self.see_answer, self.see_image)
                for problem, path in pairs
            ]
            options: dict[str, Any] = {"max_tokens": self.max_new_tokens, "logprobs": True, "prompt_version": "judge"}
            replies = iter(self.model.complete(rows, [self.model.request(row, **options) for row in rows]))
            yield from ([self._verdict(path, next(replies)) for path in paths] for _, paths in wave)

    def _verdict(self, path: ReasoningPath, reply: ChatReply) -> Verdict:
        """Raises TeacherError for a path that the server failed to judge; one that it refuses is unparsed."""
        if reply.outcome == "failed":
            raise TeacherError(
                f"judge.server: gave no verdict on {path.id} ({reply.error}); the same command asks for it again"
            )
        parsed = prompts.parse_feedback(reply.text, binary=self.binary)
        score = None
        if parsed.status != "unparsed" and reply.logprobs:
            score = score_at_status(reply.logprobs[0], *self.statuses)
        return Verdict(path.id, *parsed, score, self.name, reply.text)


def score_at_status(tokens: Sequence[Mapping[str, Any]], correct: str, wrong: str) -> float | None:
    """P(correct) against wrong at the token that the status begins with; None where the answer has no such token.

    Args:
        tokens: {"token", "logprob", "top": {token: logprob}} of the whole answer.
        correct, wrong: the tokens that CORRECT and WRONG begin with. One that is not among the alternatives is less
            likely than all of them, and counts as 0.
    """
    key = STATUS_KEY.search("".join(token["token"] for token in tokens))
    end = 0  # characters up to the end of the token
    for token in tokens:
        end += len(token["token"])
        if key is not None and end > key.end():
            if token["token"] not in (correct, wrong):
                return None
            log_probs = {**token["top"], token["token"]: token["logprob"]}
            return p_correct(torch.tensor([log_probs.get(status, -math.inf) for status in (correct, wrong)]))
    return None


def unscored_note(run: Path) -> str | None:
    """A note for the summary on verdicts whose server gave no probabilities; None where all have them."""
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
        "have no P(correct): their status alone decided, and judge.threshold had no effect"
    )
