"""``generator=server``: students answer behind an OpenAI-compatible server.

The server renders the prompt with the checkpoint's own chat template, picture before question, which is what this
package's local prompts are made with too; the two counts of tokens are compared. Answers are cached by content, the
checkpoint's among it, so a rerun asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.config.generators import ServerGenerator as Settings
from mathse.errors import TeacherError
from mathse.inference.generate import Ask, Generator
from mathse.inference.llm.account import Account
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.client import ChatClient
from mathse.inference.serving.engines import AdapterEngine, Engine, FolderEngine
from mathse.inference.serving.model import Place, ServedModel
from mathse.inference.serving.names import SERVED, content_name
from mathse.inference.serving.reach import Address
from mathse.inference.serving.started import StartedEngine
from mathse.models.base import Backbone
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
        settings = self.settings
        return ChatClient(
            settings.base_url,
            model,
            settings.api_key_env,
            cache_dir=settings.cache_dir,
            max_concurrency=settings.max_concurrency,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
            section="generator",
        )

    def student(self, run: Path) -> ServedStudent:
        """The server's own model of that name, its account kept in the run folder."""
        client = self.client(str(self.settings.model))
        client.account_in(run, STUDENT_USAGE)
        return ServedStudent(ServedModel(client, self.settings.image_side), self.settings.style)

    def engine(self, run: Path, say: Callable[[str], None]) -> Engine:
        """How the checkpoints of a run get there."""
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
        model = ServedModel(client, self.settings.image_side, Place(engine, checkpoint, reader))
        return ServedStudent(model, reader.prompt_style)


class ServedStudent:
    """What a run or an evaluation asks of a student, answered by a server. What the server cannot take it says itself:
    such a row is answered ""."""

    context = 2**31

    def __init__(self, model: ServedModel, style: PromptStyle) -> None:
        self.model, self.prompt_style = model, style

    def refusal(self, row: Row) -> str | None:
        return None

    def too_long(self, row: Row, limit: int) -> str | None:
        return None

    def generate(self, rows: Sequence[Row], **how: Any) -> list[list[str]]:
        """As ``Backbone.generate``: n texts a row, greedily at temperature 0."""
        return next(self.generated([Ask(rows, how)]))

    def generated(self, asks: Iterable[Ask]) -> Iterator[list[list[str]]]:
        """As ``mathse.inference.generate.generated``; several batches are asked at a time."""
        for wave in self.model.waves(asks, lambda ask: len(ask.rows)):
            questions = [Question(row, k, ask.how) for ask in wave for k, row in enumerate(ask.rows)]
            texts = iter(self._answers(questions))
            yield from ([next(texts) for _ in ask.rows] for ask in wave)

    def _answers(self, questions: Sequence[Question]) -> list[list[str]]:
        """n texts a question; where a server gives fewer choices, each that is missing is asked for by itself."""
        first = self._asked([(q, q.n, 0) for q in questions])
        missing = [(k, again) for k, q in enumerate(questions) for again in range(1, 1 + q.n - len(first[k]))]
        if missing:
            more = self._asked([(questions[k], 1, again) for k, again in missing])
            for (k, _), texts in zip(missing, more, strict=True):
                first[k] += texts
        return first

    def _asked(self, asked: Sequence[tuple[Question, int, int]]) -> list[list[str]]:
        requests = [self._request(question, n, again) for question, n, again in asked]
        replies = self.model.complete([question.row for question, _, _ in asked], requests)
        return [_texts(reply, request.n) for reply, request in zip(replies, requests, strict=True)]

    def _request(self, question: Question, n: int, again: int) -> ChatRequest:
        how = question.how
        return self.model.request(
            question.row,
            temperature=how.get("temperature", 0.0),
            top_p=how.get("top_p", 1.0),
            max_tokens=how["max_new_tokens"],
            n=n,
            seed=question.seed(again),
            prompt_version="answer",
            again=again,
        )


class Question:
    """A row of a batch, its place there, and how it is to be answered."""

    def __init__(self, row: Row, position: int, how: Mapping[str, Any]) -> None:
        self.row, self.position, self.how = row, position, how
        self.n: int = how.get("n", 1)

    def seed(self, again: int) -> int | None:
        """A row's own, from its batch's; None where nothing is drawn."""
        if not self.how.get("temperature") or self.how.get("seed") is None:
            return None
        return derive(self.how["seed"], self.position, again) % 2**31


def _texts(reply: ChatReply, wanted: int) -> list[str]:
    """The choices; "" for a row that the server refuses. Raises TeacherError for one that it failed to answer."""
    if reply.outcome == "failed":
        raise TeacherError(f"the server gave no answer to a row ({reply.error}); the same command asks for it again")
    if reply.outcome in ("rejected", "refused"):
        return [""] * wanted
    return (reply.texts or [""])[:wanted]
