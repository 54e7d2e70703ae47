"""``generator=server`` and ``generator=vllm``: students behind an OpenAI-compatible server.

The server renders the prompt with the checkpoint's own chat template, which local prompts are made with too, text and
pictures in the same order; the two counts of tokens are compared. Answers are stored by the contents of request and
checkpoint, so a rerun sends no request twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from mathse.config.generators import ServerGenerator as Settings
from mathse.config.schema import Trainer
from mathse.errors import TeacherError
from mathse.inference.generate import Ask, Generator
from mathse.inference.llm.account import Account
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.client import ChatClient
from mathse.inference.serving.engines import AdapterEngine, Engine, FolderEngine
from mathse.inference.serving.health_check import Address
from mathse.inference.serving.model import Asked, ServedCheckpoint, ServedModel
from mathse.inference.serving.names import SERVED, content_name
from mathse.inference.serving.pictures import PICTURES, Pictures
from mathse.inference.serving.started import StartedEngine
from mathse.inference.serving.vllm import VLLMGenerator, client_of
from mathse.inference.serving.vllm_engine import VLLMEngine
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

    def student(self, run: Path) -> ServedStudent:
        """The server's own model of that name, its account kept in the run folder."""
        client = ChatClient.of(self.settings, str(self.settings.model), "generator")
        client.account_in(run, STUDENT_USAGE)
        pictures = Pictures(run / SERVED / PICTURES, self.settings.image_side)
        return ServedStudent(ServedModel(client, pictures), self.settings.style)

    def engine(self, run: Path, say: Callable[[str], None]) -> Engine:
        """The engine that serves the checkpoints of a run."""
        settings = self.settings
        if settings.adapters:
            return AdapterEngine(self.address, str(settings.model), run / "base" / CHECKPOINT)
        if settings.command is not None:
            return StartedEngine(settings.command, self.address, run / SERVED, settings.start_timeout, say)
        return FolderEngine(run / SERVED)


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
        return next(self.generated([Ask(rows, options)])) if rows else []

    def generated(self, asks: Iterable[Ask]) -> Iterator[list[list[str]]]:
        """As ``mathse.inference.generate.generated``; all batches are one stream, so none waits for another's end."""
        read: deque[tuple[int, int]] = deque()  # rows, and samples a row, of the batches that are not yet answered

        def asked() -> Iterator[Asked]:
            for ask in asks:
                read.append((len(ask.rows), ask.options.get("n", 1)))
                for k, row in enumerate(ask.rows):
                    yield row, self._request(row, k, ask.options)

        replies = self.model.stream(asked(), _missing)
        while (first := next(replies, None)) is not None:
            rows, n = read.popleft()
            yield [_texts(answers, n) for answers in (first, *islice(replies, rows - 1))]

    def _request(self, row: Row, position: int, options: Mapping[str, Any]) -> ChatRequest:
        """The request of a row at ``position`` in its batch, with options of ``Backbone.generate``."""
        temperature, seed = options.get("temperature", 0.0), options.get("seed")
        return self.model.request(
            row,
            temperature=temperature,
            top_p=options.get("top_p", 1.0),
            max_tokens=options["max_new_tokens"],
            n=options.get("n", 1),
            # the row's own, derived from its batch's
            seed=None if seed is None or not temperature else derive(seed, position, 0) % 2**31,
            prompt_version="answer",
        )


class ServedStudents:
    """The students of a run behind one engine, with one account; an engine starts with the first request.

    Args:
        section: the settings of the backbone, which prompts are encoded with.
        run: the run folder.
        trainer: its settings; a vLLM takes its devices.
        say: shows a line of progress.
    """

    def __init__(
        self,
        generator: ServerGenerator | VLLMGenerator,
        section: Any,
        run: Path,
        trainer: Trainer,
        say: Callable[[str], None],
    ) -> None:
        self.generator, self.section, self.run = generator, section, run
        self.pictures = Pictures(run / SERVED / PICTURES, generator.settings.image_side)
        self.engine: Engine
        if isinstance(generator, VLLMGenerator):
            self.engine = generator.engine(run, trainer, say)
        else:
            self.engine = generator.engine(run, say)

    @property
    def vllm(self) -> VLLMEngine | None:
        return self.engine if isinstance(self.engine, VLLMEngine) else None

    @cached_property
    def account(self) -> Account:
        return Account(self.run / STUDENT_USAGE)

    def of(self, checkpoint: Path, whole: Callable[[], Backbone]) -> ServedStudent:
        """``whole`` opens the checkpoint with its weights, for families whose prompts cannot be read without."""
        reader, name = prompt_reader(self.section, checkpoint, whole), content_name(checkpoint)
        if isinstance(self.engine, VLLMEngine):
            client = client_of(self.engine, name, "generator")
        else:
            client = ChatClient.of(self.generator.settings, name, "generator")
        client.account = self.account
        served = ServedCheckpoint(self.engine, checkpoint, reader, whole)
        return ServedStudent(ServedModel(client, self.pictures, served), reader.prompt_style)


def _missing(request: ChatRequest, reply: ChatReply) -> list[ChatRequest]:
    """A request for each choice that a server gave too few, with a seed of its own."""
    if reply.outcome in ("failed", "rejected", "refused"):
        return []
    given = max(1, len(reply.texts))
    return [
        replace(request, n=1, again=again, seed=None if request.seed is None else derive(request.seed, again) % 2**31)
        for again in range(1, 1 + request.n - given)
    ]


def _texts(replies: Sequence[ChatReply], n: int) -> list[str]:
    """The n choices of a row's replies; "" for a row that the server refuses.

    Raises TeacherError for one that it failed to answer.
    """
    texts: list[str] = []
    for reply in replies:
        if reply.outcome == "failed":
            raise TeacherError(
                f"the server gave no answer to a row ({reply.error}); the same command asks for it again"
            )
        if reply.outcome in ("rejected", "refused"):
            return [""] * n
        texts += reply.texts or [""]
    return texts[:n]
