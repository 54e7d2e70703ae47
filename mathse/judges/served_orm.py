"""``judge.server=URL``, ``judge.engine=vllm``: the trained ORM behind an OpenAI-compatible server, with the prompt and
the strict parser of ``ORMJudge``.

P(correct) is read from the log-probabilities at the status, as many alternatives a token as the server gives. Where it
gives none (``transformers serve``), a verdict has no score: its status alone decides, whatever ``judge.threshold`` is,
and the run's notes say how many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from mathse.config.evaluation import RewardModel
from mathse.config.judges import Judge as Settings
from mathse.errors import TeacherError
from mathse.inference import prompts
from mathse.inference.llm.chat import ChatReply
from mathse.inference.rows import judge_row
from mathse.inference.serving.address import Address
from mathse.inference.serving.dialect import Statuses, at_status
from mathse.inference.serving.engines import Engine, engine_at
from mathse.inference.serving.model import Asked, ServedCheckpoint, ServedModel
from mathse.inference.serving.names import content_name
from mathse.judges import Batch
from mathse.judges.orm import p_correct, status_tokens
from mathse.judges.orm_rows import read_orm
from mathse.judges.own_answers import OwnAnswers, Solution
from mathse.models.base import Backbone
from mathse.models.operations import Operations
from mathse.models.prompt_reader import prompt_reader
from mathse.models.row import Row
from mathse.runs.layout import JUDGE_USAGE, VERDICT_FILES
from mathse.runs.reader import read_stages
from mathse.types import Problem, ReasoningPath, Verdict

SOLVED_TOGETHER = 16  # batches: requests enough to keep an engine busy; the client keeps each answer on the disk


class ServedORM:
    """The ORM of a run in an engine.

    Args:
        settings: the section ``judge``.
        section: the settings of the ORM's backbone, which its prompts are encoded with.
        run: the run folder.
    """

    def __init__(self, settings: Settings | RewardModel, section: Any, run: Path, engine: Engine) -> None:
        self.settings, self.section, self.run, self.engine = settings, section, run, engine

    @classmethod
    def at_server(cls, settings: Settings, section: Any, run: Path, say: Callable[[str], None]) -> ServedORM:
        """Behind ``judge.server``; an engine that is started for it starts with the first request.

        ``say`` shows a line of progress.
        """
        address = Address(str(settings.server), settings.api_key_env, "judge")
        return cls(settings, section, run, engine_at(address, settings, run, say))

    def of(
        self, checkpoint: Path, whole: Callable[[], Backbone], operations: Callable[[], Operations] | None = None
    ) -> ServedORMJudge:
        """The judge of a checkpoint. Raises CheckpointError where that is no ORM's.

        ``whole`` opens it with its weights; ``operations``: those of a forward pass.
        """
        orm, reader = read_orm(checkpoint), prompt_reader(self.section, checkpoint, whole)
        client = self.engine.client(content_name(checkpoint), "judge")
        client.account_in(self.run, JUDGE_USAGE)
        ids = status_tokens(reader)
        statuses = Statuses(ids, (reader.tokenizer.decode([ids[0]]), reader.tokenizer.decode([ids[1]])))
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
    """An ORM's checkpoint, served; ``reader`` encodes its prompts."""

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
        self.own = OwnAnswers(reader.prompt_style, self._solutions, SOLVED_TOGETHER) if own_answer else None
        self.max_new_tokens = max_new_tokens

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        """The verdicts on each batch; all batches, or those that are solved together, are one stream, so none of them
        waits for another's end."""
        return self._verdicts(batches) if self.own is None else self.own.judged(batches, self._verdicts)

    def _solutions(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Solution]]:
        for rows in batches:
            options = {"max_tokens": self.max_new_tokens, "prompt_version": "generate"}
            replies = self.model.stream_at((row, self.model.request(row, **options)) for row in rows)
            yield [Solution(_text(reply, "solution of a problem"), [cost]) for (reply,), cost in replies]

    def _verdicts(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        options: dict[str, Any] = {"max_tokens": self.max_new_tokens, "logprobs": True, "prompt_version": "judge"}
        style = self.reader.prompt_style
        read: deque[Sequence[ReasoningPath]] = deque()  # the batches that are not yet answered

        def asked() -> Iterator[Asked]:
            for problems, paths in batches:
                read.append(paths)
                for problem, path in zip(problems, paths, strict=True):
                    row = judge_row(style, problem, path.text, self.see_answer, self.see_image)
                    yield row, self.model.request(row, **options)

        replies = self.model.stream(asked())
        while (first := next(replies, None)) is not None:
            paths = read.popleft()
            answers = chain((first,), islice(replies, len(paths) - 1))
            yield [self._verdict(path, reply) for path, (reply,) in zip(paths, answers, strict=True)]

    def _verdict(self, path: ReasoningPath, reply: ChatReply) -> Verdict:
        """A path that the server refuses is unparsed."""
        text = _text(reply, f"verdict on {path.id}")
        parsed = prompts.parse_feedback(text, binary=self.binary)
        score = None
        if parsed.status != "unparsed":
            watched = reply.watched
            if watched is None and reply.logprobs and self.model.statuses is not None:  # kept by an earlier version
                watched = at_status(reply.logprobs[0], *self.model.statuses.texts)
            score = None if watched is None else p_correct(torch.tensor(watched))
        return Verdict(path.id, *parsed, score, self.name, text)


def _text(reply: ChatReply, asked_for: str) -> str:
    """Raises TeacherError where the server failed to answer."""
    if reply.outcome == "failed":
        raise TeacherError(f"judge.server: gave no {asked_for} ({reply.error}); the same command asks for it again")
    return reply.text


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
