"""``generator=server`` and ``generator=vllm``: students behind an OpenAI-compatible server.

The server renders a prompt with the checkpoint's own chat template. Local prompts are made with the same template, with
text and pictures in the same order, and the two counts of tokens are compared. Answers are stored by the contents of
request and checkpoint, so a rerun sends no request twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mathse.config.generators import ServerGenerator as ServerSettings
from mathse.config.generators import VLLMGenerator as VLLMSettings
from mathse.config.schema import Trainer
from mathse.errors import TeacherError
from mathse.inference.generate import Generator, PromptBatch
from mathse.inference.llm.account import Account
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.serving.address import Address
from mathse.inference.serving.engines import Engine, engine_at
from mathse.inference.serving.model import ServedCheckpoint, ServedModel
from mathse.inference.serving.names import content_name
from mathse.inference.serving.vllm import VLLMEngine
from mathse.models.base import Backbone
from mathse.models.operations import Operations
from mathse.models.prompt_reader import open_exported_reader
from mathse.models.row import Row
from mathse.runs.layout import STUDENT_USAGE
from mathse.seeds import derive
from mathse.training.fit import device_of, dtype_of
from mathse.types import PromptStyle


class ServingGenerator(Generator):
    """Samples from served students; a subclass makes the engine."""

    def __init__(self, settings: ServerSettings | VLLMSettings) -> None:
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p}
        super().__init__(settings.batch_size, settings.max_new_tokens, sampling)
        self.settings: Any = settings

    def engine(self, run: Path, trainer: Trainer, say: Callable[[str], None]) -> Engine:
        """Return the engine that serves the checkpoints of a run; it starts with the first request.

        Args:
            run: the run folder.
            trainer: its settings; an engine that the run starts takes its devices.
            say: shows a line of progress.
        """
        raise NotImplementedError


class ServerGenerator(ServingGenerator):
    def engine(self, run: Path, trainer: Trainer, say: Callable[[str], None]) -> Engine:
        return engine_at(Address(self.settings.base_url, self.settings.api_key_env), self.settings, run, say)

    def student(self, run: Path) -> ServedStudent:
        """Return the server's own model ``generator.model``, with its account in the run folder."""
        engine = self.engine(run, Trainer(), lambda text: None)
        client = engine.client(str(self.settings.model), "generator")
        client.account_in(run, STUDENT_USAGE)
        return ServedStudent(ServedModel(client, engine), self.settings.style)


class VLLMGenerator(ServingGenerator):
    def engine(self, run: Path, trainer: Trainer, say: Callable[[str], None]) -> Engine:
        gpus = torch.cuda.device_count() if device_of(trainer).type == "cuda" else 0
        return VLLMEngine(self.settings, run, dtype_of(trainer), gpus, say)


class ServedStudent:
    """A student behind a server, with the methods of a backbone that sampling needs.

    No row is refused here, since the server's limits are not known: a row that the server rejects has the answer "".
    """

    context = 2**31  # tokens: no limit here

    def __init__(self, model: ServedModel, style: PromptStyle) -> None:
        self.model, self.prompt_style = model, style

    def refusal(self, row: Row) -> str | None:
        return None

    def too_long(self, row: Row, limit: int) -> str | None:
        return None

    def generate(self, rows: Sequence[Row], **options: Any) -> list[list[str]]:
        """Return n texts per row, as ``Backbone.generate``; temperature 0 is greedy."""
        return next(self.generate_batches([PromptBatch(rows, options)])) if rows else []

    def generate_batches(self, batches: Iterable[PromptBatch]) -> Iterator[list[list[str]]]:
        """Return the texts of each batch, as ``mathse.inference.generate.generate_batches``."""
        for batch, replies in self.model.stream_batches(batches, self._make_request, _request_missing):
            n = batch.options.get("n", 1)
            yield [_texts_of(of_row, n) for of_row in replies]

    def _make_request(self, row: Row, position: int, options: Mapping[str, Any]) -> ChatRequest:
        """Make the request of the row at ``position`` in its batch, with options of ``Backbone.generate``."""
        temperature, seed = options.get("temperature", 0.0), options.get("seed")
        # Derive the row's own seed from its batch's; a greedy answer needs none.
        row_seed = None if seed is None or not temperature else derive(seed, position, 0) % 2**31
        return self.model.request(
            row,
            temperature=temperature,
            top_p=options.get("top_p", 1.0),
            max_tokens=options["max_new_tokens"],
            n=options.get("n", 1),
            seed=row_seed,
            prompt_version="answer",
        )


class ServedStudents:
    """The students of a run behind one engine, with one account.

    Args:
        generator: makes the engine.
        section: the settings of the backbone, with which prompts are encoded.
        run, trainer, say: as of ``ServingGenerator.engine``.
    """

    def __init__(
        self, generator: ServingGenerator, section: Any, run: Path, trainer: Trainer, say: Callable[[str], None]
    ) -> None:
        self.section, self.run = section, run
        self.engine = generator.engine(run, trainer, say)

    @cached_property
    def account(self) -> Account:
        return Account(self.run / STUDENT_USAGE)

    def of(
        self, checkpoint: Path, whole: Callable[[], Backbone], operations: Callable[[], Operations] | None = None
    ) -> ServedStudent:
        """Return the student of a checkpoint.

        Args:
            checkpoint: the folder.
            whole: opens it with its weights, for families that cannot encode prompts without them.
            operations: returns the operations of a forward pass.
        """
        reader = open_exported_reader(self.section, checkpoint, whole)
        client = self.engine.client(content_name(checkpoint), "generator")
        client.account = self.account
        served = ServedCheckpoint(checkpoint, reader, whole, operations)
        return ServedStudent(ServedModel(client, self.engine, served), reader.prompt_style)


def _request_missing(request: ChatRequest, reply: ChatReply) -> list[ChatRequest]:
    """Return a request, with a seed of its own, for each choice that the server's reply lacks."""
    if reply.outcome in ("failed", "rejected", "refused"):
        return []
    n_received = max(1, len(reply.texts))
    requests = []
    for again in range(1, 1 + request.n - n_received):
        seed = None if request.seed is None else derive(request.seed, again) % 2**31
        requests.append(replace(request, n=1, again=again, seed=seed))
    return requests


def _texts_of(replies: Sequence[ChatReply], n: int) -> list[str]:
    """Return the n choices of a row's replies; "" for a row that the server refuses.

    Raises TeacherError if the server gave no answer to the row.
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
