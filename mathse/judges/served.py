"""Where a run's students and its ORM are served, as its settings say; nothing is started before it is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from mathse.config.judges import Judge
from mathse.inference.llm.account import Account
from mathse.inference.llm.client import ChatClient
from mathse.inference.serving.engines import Engine, FolderEngine, NamedEngine
from mathse.inference.serving.model import Place, ServedModel
from mathse.inference.serving.names import SERVED, content_name
from mathse.inference.serving.reach import Address
from mathse.inference.serving.started import StartedEngine
from mathse.inference.serving.student import ServedStudent, ServerGenerator
from mathse.judges.orm_rows import read_orm
from mathse.judges.served_orm import ServedORMJudge
from mathse.models.base import Backbone
from mathse.models.prompt_reader import prompt_reader
from mathse.runs.layout import JUDGE_USAGE, STUDENT_USAGE

Say = Callable[[str], None]
Open = Callable[[], Backbone]  # opens a checkpoint whole: for families whose prompts cannot be read without weights


class ServedStudents:
    """The students of a run behind one engine, with one account of what they were asked."""

    def __init__(self, generator: ServerGenerator, section: Any, run: Path, say: Say) -> None:
        self.generator, self.section = generator, section
        self.engine = generator.engine(run, say)
        self._account = run / STUDENT_USAGE

    @cached_property
    def account(self) -> Account:
        return Account(self._account)

    def of(self, checkpoint: Path, whole: Open) -> ServedStudent:
        reader = prompt_reader(self.section, checkpoint, whole)
        return self.generator.student_of(checkpoint, reader, self.engine, self.account)


class ServedORM:
    """The ORM of a run behind ``judge.server``."""

    def __init__(self, settings: Judge, section: Any, run: Path, say: Say) -> None:
        self.settings, self.section, self.run = settings, section, run
        self.address = Address(str(settings.server), settings.api_key_env, "judge")
        self.engine = self._engine(say)

    def _engine(self, say: Say) -> Engine:
        settings, folder = self.settings, self.run / SERVED
        if settings.command is not None:
            return StartedEngine(settings.command, self.address, folder, settings.start_timeout, say)
        return NamedEngine(settings.model) if settings.model is not None else FolderEngine(folder)

    def of(self, checkpoint: Path, whole: Open) -> ServedORMJudge:
        """Raises CheckpointError where that is no ORM's checkpoint."""
        how = read_orm(checkpoint)
        reader = prompt_reader(self.section, checkpoint, whole)
        client = self._client(content_name(checkpoint))
        return ServedORMJudge(
            ServedModel(client, self.settings.image_side, Place(self.engine, checkpoint, reader)),
            reader,
            binary=how["kind"] == "binary",
            see_answer=how["see_answer"],
            see_image=how["see_image"],
            max_new_tokens=self.settings.max_new_tokens,
        )

    def _client(self, name: str) -> ChatClient:
        settings = self.settings
        client = ChatClient(
            settings.server,
            name,
            settings.api_key_env,
            cache_dir=settings.cache_dir,
            max_concurrency=settings.max_concurrency,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
            section="judge",
        )
        client.account_in(self.run, JUDGE_USAGE)
        return client
