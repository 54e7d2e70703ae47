"""``generator=server``: students behind an OpenAI-compatible server.

The server renders the prompt with the checkpoint's own chat template, picture before question, which local prompts are
made with too; the two counts of tokens are compared. Answers are stored by the contents of request and checkpoint, so a
rerun sends no request twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mathse.config.generators import ServerGenerator as Settings
from mathse.errors import TeacherError
from mathse.inference.generate import Ask, Generator
from mathse.inference.llm.account import Account
from mathse.inference.llm.chat import ChatReply
from mathse.inference.llm.client import ChatClient
from mathse.inference.serving.engines import AdapterEngine, Engine, FolderEngine
from mathse.inference.serving.health_check import Address
from mathse.inference.serving.model import ServedCheckpoint, ServedModel
from mathse.inference.serving.names import SERVED, content_name
from mathse.inference.serving.started import StartedEngine
from mathse.models.base import Backbone
from mathse.models.prompt_reader import prompt_reader
from mathse.models.row import Row
from mathse.runs.layout import CHECKPOINT, STUDENT_USAGE
from mathse.seeds import derive
from mathse.types import PromptStyle


class ServerGenerator(Generator):
    """Where students are served, how their checkpoints get there, and how samples are drawn."""

    def __init__(self, settings: Settings) -> None:
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p}
        super().__init__(settings.batch_size, settings.max_new_tokens, sampling)
        self.settings = settings
        self.address = Address(settings.base_url, settings.api_key_env)

    def client(self, model: str) -> ChatClient:
        return ChatClient.of(self.settings, model, "generator")

    def student(self, run: Path) -> ServedStudent:
        """The server's own model of that name, its account kept in the run folder."""
        client = self.client(str(self.settings.model))
        client.account_in(run, STUDENT_USAGE)
        return ServedStudent(ServedModel(client, self.settings.image_side), self.settings.style)

    def engine(self, run: Path, say: Callable[[str], None]) -> Engine:
        """The engine that serves the checkpoints of a run."""
        settings = self.settings
        if settings.adapters:
            return AdapterEngine(self.address, str(settings.model), run / "base" / CHECKPOINT)
        if settings.command is not None:
            return StartedEngine(settings.command, self.address, run / SERVED, settings.start_timeout, say)
        return FolderEngine(run / SERVED)

    def student_of(self, checkpoint: Path, reader: Backbone, engine: Engine, account: Account) -> ServedStudent:
        """A checkpoint of a run; ``reader`` encodes its prompts."""
        client = self.client(content_name(checkpoint))
        client.account = account
        model = ServedModel(client, self.settings.image_side, ServedCheckpoint(engine, checkpoint, reader))
        return ServedStudent(model, reader.prompt_style)


class ServedStudent:
    """A student behind a server, with the methods of a backbone that sampling needs.

    No row is refused here, since the server's limits are not known: a row that the server rejects gets the answer "".
    """

    context = 2**31  # tokens: no limit here

    def __init__(self, model: ServedModel, style: PromptStyle) -> None:
        self.model, self.prompt_style = model, style

    def refusal(self, row: Row) -> str | None:
        return None

    def too_long(self, row: Row, limit: int) -> str | None:
        return None

    def generate(self, rows: Sequence[Row], **options: Any) -> list[list[str]]:
        """As ``Backbone.generate``: n texts a row, greedily at temperature 0."""
        return next(self.generated([Ask(rows, options)]))

    def generated(self, asks: Iterable[Ask]) -> Iterator[list[list[str]]]:
        """As ``mathse.inference.generate.generated``; several batches are sent at a time."""
        for wave in self.model.waves(asks, lambda ask: len(ask.rows)):
            questions = [Question(row, k, ask.options) for ask in wave for k, row in enumerate(ask.rows)]
            texts = iter(self._answers(questions))
            yield from ([next(texts) for _ in ask.rows] for ask in wave)

    def _answers(self, questions: Sequence[Question]) -> list[list[str]]:
        """n texts a question; where a server gives fewer choices, a request is sent for each that is missing."""
        answers = self._completed([(question, question.n, 0) for question in questions])
        missing = [(k, again) for k, q in enumerate(questions) for again in range(1, 1 + q.n - len(answers[k]))]
        if missing:
            more = self._completed([(questions[k], 1, again) for k, again in missing])
            for (k, _), texts in zip(missing, more, strict=True):
                answers[k] += texts
        return answers

    def _completed(self, wanted: Sequence[tuple[Question, int, int]]) -> list[list[str]]:
        """The texts of each (question, number of choices, number of the repetition)."""
        requests = [
            self.model.request(
                question.row,
                temperature=question.options.get("temperature", 0.0),
                top_p=question.options.get("top_p", 1.0),
                max_tokens=question.options["max_new_tokens"],
                n=n,
                seed=question.seed(again),
                prompt_version="answer",
                again=again,
            )
            for question, n, again in wanted
        ]
        replies = self.model.complete([question.row for question, _, _ in wanted], requests)
        return [_texts(reply, request.n) for reply, request in zip(replies, requests, strict=True)]


class ServedStudents:
    """The students of a run behind one engine, with one account; an engine starts with the first request.

    Args:
        section: the settings of the backbone, which prompts are encoded with.
        run: the run folder.
        say: shows a line of progress.
    """

    def __init__(self, generator: ServerGenerator, section: Any, run: Path, say: Callable[[str], None]) -> None:
        self.generator, self.section, self.run = generator, section, run
        self.engine = generator.engine(run, say)

    @cached_property
    def account(self) -> Account:
        return Account(self.run / STUDENT_USAGE)

    def of(self, checkpoint: Path, whole: Callable[[], Backbone]) -> ServedStudent:
        """``whole`` opens the checkpoint with its weights, for families whose prompts cannot be read without."""
        reader = prompt_reader(self.section, checkpoint, whole)
        return self.generator.student_of(checkpoint, reader, self.engine, self.account)


class Question:
    """A row, its position in its batch, and the options of ``Backbone.generate``."""

    def __init__(self, row: Row, position: int, options: Mapping[str, Any]) -> None:
        self.row, self.position, self.options = row, position, options
        self.n: int = options.get("n", 1)

    def seed(self, again: int) -> int | None:
        """The row's own seed, derived from its batch's; None for greedy decoding."""
        if not self.options.get("temperature") or self.options.get("seed") is None:
            return None
        return derive(self.options["seed"], self.position, again) % 2**31


def _texts(reply: ChatReply, wanted: int) -> list[str]:
    """The choices; "" for a row that the server refuses. Raises TeacherError for one that it failed to answer."""
    if reply.outcome == "failed":
        raise TeacherError(f"the server gave no answer to a row ({reply.error}); the same command asks for it again")
    if reply.outcome in ("rejected", "refused"):
        return [""] * wanted
    return (reply.texts or [""])[:wanted]
