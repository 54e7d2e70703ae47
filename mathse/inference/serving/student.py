"""``generator=server``: students answer behind an OpenAI-compatible server.

The server renders the prompt with the checkpoint's own chat template, picture before question, which is what this
package's local prompts are made with too; the two counts of tokens are compared. Answers are cached by content, the
checkpoint's among it, so a rerun asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """Where students are served, how their checkpoints get there, and how samples are drawn.

    Args:
        model: evaluate.py: the model's name there. train.py: None, or with ``adapters`` the base's name there.
        command: train.py: starts an engine for each checkpoint, with {checkpoint}, {name} and {port} in it.
        adapters: train.py: the server is a vLLM that has the base, and loads the adapters of LoRA fits.
        start_timeout: seconds until a started engine answers.
        style: evaluate.py: of the prompts with prompt=student; in train.py the backbone's own counts.
        image_side: pixels, long side of what is sent; smaller pictures go as they are.
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8000/v1",
        model: str | None = None,
        command: str | None = None,
        adapters: bool = False,
        start_timeout: float = 900.0,
        api_key_env: str | None = None,
        style: PromptStyle = "full",
        batch_size: int = 64,
        temperature: float = 0.7,
        top_p: float = 0.95,
        max_new_tokens: int = 2048,
        image_side: int = 4096,
        cache_dir: str = "outputs/.answers",
        max_concurrency: int = 64,
        timeout: float = 600.0,
        max_retries: int = 8,
    ) -> None:
        super().__init__(batch_size, max_new_tokens, {"temperature": temperature, "top_p": top_p})
        self.address = Address(base_url, api_key_env)
        self.model, self.command, self.adapters, self.start_timeout = model, command, adapters, start_timeout
        self.style, self.image_side = style, image_side
        self._how: dict[str, Any] = {
            "base_url": base_url,
            "api_key_env": api_key_env,
            "cache_dir": cache_dir,
            "max_concurrency": max_concurrency,
            "timeout": timeout,
            "max_retries": max_retries,
            "section": "generator",
        }

    def client(self, model: str) -> ChatClient:
        return ChatClient(model=model, **self._how)

    def student(self, run: Path) -> ServedStudent:
        """The server's own model of that name, its account kept in the run folder."""
        client = self.client(str(self.model))
        client.account_in(run, STUDENT_USAGE)
        return ServedStudent(ServedModel(client, self.image_side), self.style)

    def engine(self, run: Path, say: Callable[[str], None]) -> Engine:
        """How the checkpoints of a run get there."""
        if self.adapters:
            return AdapterEngine(self.address, str(self.model), run / "base" / CHECKPOINT)
        if self.command is not None:
            return StartedEngine(self.command, self.address, run / SERVED, self.start_timeout, say)
        return FolderEngine(run / SERVED)

    def student_of(self, checkpoint: Path, reader: Backbone, engine: Engine, account: Account) -> ServedStudent:
        """A checkpoint of a run; ``reader`` encodes its prompts."""
        client = self.client(content_name(checkpoint))
        client.account = account
        model = ServedModel(client, self.image_side, Place(engine, checkpoint, reader))
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
