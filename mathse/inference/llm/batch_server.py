"""Requests to the Batch API itself, each repeated until it succeeds or has failed too often."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count, islice
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, TypeVar

from mathse.inference.llm.connection import Connection
from mathse.inference.llm.faults import Broken, fault_of

if TYPE_CHECKING:
    from openai.types import Batch

T = TypeVar("T")

SEARCHED = 1000  # batches of the account, newest first, among which one that was being sent is searched


class BatchServer:
    """A connection, for a ``with``. Every method raises TeacherError after its last try, or at once where another try
    would not help."""

    def __init__(self, client: Connection) -> None:
        self.client, self.api = client, client.connected_sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.api.close()

    def upload(self, lines: IO[bytes]) -> str:
        """The id of the file of requests."""

        def upload() -> str:
            lines.seek(0)
            return self.api.files.create(file=("requests.jsonl", lines, "application/jsonl"), purpose="batch").id

        return self._repeated(upload)

    def create(self, file_id: str, name: str) -> str:
        """The id of a new batch that has ``name`` in its metadata. A try that failed may have made it all the same."""
        tries = count(1)

        def create() -> str:
            if next(tries) > 1 and (made_before := self.find(name)) is not None:
                return made_before
            return self.api.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"mathse": name},
            ).id

        return self._repeated(create)

    def find(self, name: str) -> str | None:
        """The id of the batch of that name, or None."""
        listed = self._repeated(lambda: list(islice(self.api.batches.list(limit=100), SEARCHED)))
        return next((b.id for b in listed if (b.metadata or {}).get("mathse") == name), None)

    def status(self, batch_id: str) -> Batch:
        return self._repeated(lambda: self.api.batches.retrieve(batch_id))

    def content(self, file_id: str) -> bytes:
        return self._repeated(lambda: self.api.files.content(file_id)).content

    def _repeated(self, call: Callable[[], T]) -> T:
        import openai

        retries = 0
        while True:
            try:
                return call()
            except (openai.OpenAIError, Broken) as e:
                fault = fault_of(e, self.client.secret)
                if fault.whose != "moment" or retries == self.client.max_retries:
                    raise self.client.fault_error(fault) from None
                time.sleep(fault.pause(retries))
                retries += 1
