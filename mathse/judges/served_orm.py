"""``judge.server=URL``, ``judge.engine=vllm``: the trained ORM behind an OpenAI-compatible server.

The prompt and the strict parser are those of ``ORMJudge``. P(correct) is read from the log-probabilities at the status,
with as many alternatives per token as the server gives. If it gives none (``transformers serve``), verdicts have no
score: their status decides whatever ``judge.threshold`` is, and a note of the run counts these verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from mathse.config.evaluation import RewardModel
from mathse.config.judges import Judge as Settings
from mathse.errors import TeacherError
from mathse.inference import prompts
from mathse.inference.generate import PromptBatch
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.rows import judge_row
from mathse.inference.serving.address import Address
from mathse.inference.serving.dialect import StatusTokens, read_status_log_probs
from mathse.inference.serving.engines import Engine, engine_at
from mathse.inference.serving.model import ServedCheckpoint, ServedModel
from mathse.inference.serving.names import content_name
from mathse.judges import Batch
from mathse.judges.orm import p_correct, status_tokens
from mathse.judges.orm_rows import read_orm
from mathse.judges.own_answers import OwnAnswers, Solution
from mathse.models.base import Backbone
from mathse.models.operations import Operations
from mathse.models.prompt_reader import open_exported_reader
from mathse.models.row import Row
from mathse.runs.layout import JUDGE_USAGE, VERDICT_FILES
from mathse.runs.reader import read_stages
from mathse.types import Problem, ReasoningPath, Verdict


class ServedORM:
    """The ORM of a run behind an engine.

    Args:
        settings: the section ``judge``.
        section: the settings of the ORM's backbone, with which its prompts are encoded.
        run: the run folder.
    """

    def __init__(self, settings: Settings | RewardModel, section: Any, run: Path, engine: Engine) -> None:
        self.settings, self.section, self.run, self.engine = settings, section, run, engine

    @classmethod
    def at_server(cls, settings: Settings, section: Any, run: Path, say: Callable[[str], None]) -> ServedORM:
        """Return the ORM behind ``judge.server``. An engine that the run starts for it starts with the first request.

        ``say`` shows a line of progress.
        """
        address = Address(str(settings.server), settings.api_key_env, "judge")
        return cls(settings, section, run, engine_at(address, settings, run, say))

    def of(
        self, checkpoint: Path, whole: Callable[[], Backbone], operations: Callable[[], Operations] | None = None
    ) -> ServedORMJudge:
        """Return the judge of a checkpoint.

        Args:
            checkpoint: the folder of a trained ORM.
            whole: opens the checkpoint with its weights.
            operations: returns the operations of a forward pass.

        Raises:
            CheckpointError: the folder holds no ORM.
        """
        orm, reader = read_orm(checkpoint), open_exported_reader(self.section, checkpoint, whole)
        client = self.engine.client(content_name(checkpoint), "judge")
        client.account_in(self.run, JUDGE_USAGE)
        ids = status_tokens(reader)
        statuses = StatusTokens(ids, (reader.tokenizer.decode([ids[0]]), reader.tokenizer.decode([ids[1]])))
        return ServedORMJudge(
            ServedModel(client, self.engine, ServedCheckpoint(checkpoint, reader, whole, operations), statuses),
            reader,
            binary=orm["kind"] == "binary",
            see_answer=orm["see_answer"],
            own_answer=orm["own_answer"],
            see_image=orm["see_image"],
            max_new_tokens=self.settings.max_new_tokens,
        )


class ServedORMJudge:
    """A served ORM. ``reader`` encodes its prompts; the other arguments are those of ``ORMJudge``."""

    name = "orm"

    def __init__(
        self,
        model: ServedModel,
        reader: Backbone,
        *,
        binary: bool = False,
        see_answer: bool = False,
        own_answer: bool = False,
        see_image: bool = True,
        max_new_tokens: int = 200,
    ) -> None:
        self.model, self.reader = model, reader
        self.binary, self.see_answer, self.see_image = binary, see_answer or own_answer, see_image
        # 16 batches have enough requests to keep an engine busy; the client stores each answer when it arrives.
        self.own = OwnAnswers(reader.prompt_style, self._solve_all, together=16) if own_answer else None
        self.max_new_tokens = max_new_tokens

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        """Return the verdicts on each batch. The requests of all batches are one stream, so no batch waits for the end
        of another."""
        if self.own is not None:
            return self.own.judge_with(batches, self._judge_all)
        return self._judge_all(batches)

    def _solve_all(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Solution]]:
        for rows in batches:
            options = {"max_tokens": self.max_new_tokens, "prompt_version": "generate"}
            replies = self.model.stream_with_costs((row, self.model.request(row, **options)) for row in rows)
            yield [Solution(_text_of(reply, "solution of a problem"), [cost]) for (reply,), cost in replies]

    def _judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        options = {"max_tokens": self.max_new_tokens, "logprobs": True, "prompt_version": "judge"}

        def make_prompts() -> Iterator[PromptBatch]:
            for problems, paths in batches:
                rows = [
                    judge_row(self.reader.prompt_style, problem, path.text, self.see_answer, self.see_image)
                    for problem, path in zip(problems, paths, strict=True)
                ]
                yield PromptBatch(rows, options)

        def make_request(row: Row, position: int, options: Mapping[str, Any]) -> ChatRequest:
            return self.model.request(row, **options)

        stream = self.model.stream_batches(make_prompts(), make_request)
        for (_, paths), (_, replies) in zip(batches, stream, strict=True):
            yield [self._verdict(path, reply) for path, (reply,) in zip(paths, replies, strict=True)]

    def _verdict(self, path: ReasoningPath, reply: ChatReply) -> Verdict:
        """Read a verdict. A path that the server refuses is unparsed."""
        text = _text_of(reply, f"verdict on {path.id}")
        verdict = prompts.parse_feedback(text, path.id, self.name, binary=self.binary)
        score = None
        if verdict.status != "unparsed":
            log_probs = reply.watched
            # Answers that an earlier version stored have all log-probabilities of the reply.
            if log_probs is None and reply.logprobs and self.model.statuses is not None:
                log_probs = read_status_log_probs(reply.logprobs[0], *self.model.statuses.texts)
            score = None if log_probs is None else p_correct(torch.tensor(log_probs))
        return replace(verdict, score=score, raw=text)


def _text_of(reply: ChatReply, requested: str) -> str:
    """Return the text of a reply. Raises TeacherError, naming what was ``requested``, if the server gave no answer."""
    if reply.outcome == "failed":
        raise TeacherError(f"judge.server: gave no {requested} ({reply.error}); the same command asks for it again")
    return reply.text


def note_unscored(run: Path) -> str | None:
    """Return a note for the summary that counts the verdicts without probabilities; None if all have them."""
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
