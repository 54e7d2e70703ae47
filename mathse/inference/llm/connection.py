"""A chat model at a server, with the answers that a run keeps and their price. Shared by online.py and batch.py.

The files of this package import ``openai`` where they talk to a server: a start without requests saves half a second.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from mathse.errors import ConfigError, TeacherError
from mathse.inference.llm.account import Account
from mathse.inference.llm.cache import AnswerCache
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.faults import BrokenReply, Fault
from mathse.inference.llm.limits import Limits
from mathse.inference.llm.pricing import BATCH_DISCOUNT, OPENAI_URL, Price, price_of
from mathse.inference.llm.serialization import Dialect
from mathse.runs.layout import USAGE

if TYPE_CHECKING:
    import openai

SETTINGS = (  # arguments of a connection that a section of the settings may have under the same name
    "cache_dir",
    "max_concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "max_retries",
    "budget_usd",
    "mode",
    "poll_seconds",
    "structured",
)
BILLED = ("answered", "refused", "empty", "cut_off")  # outcomes that are stored; such a request is not sent again
MAX_REPLY_BYTES = 2**28  # the largest reply is a file of a batch's answers; OpenAI's have 200 MB at most


class ModelLock(Protocol):
    """The lock of a client's model at a server that holds one model at a time.

    Requests for the held model run together. Another model is loaded when no request is under way.
    """

    def try_acquire(self) -> bool:
        """Return whether the server holds this client's model, so that one more request may be sent. Never waits."""
        ...

    def acquire(self) -> None:
        """Wait for the end of requests for another model, and have this client's model loaded."""
        ...

    def release(self) -> None:
        """End a request."""
        ...


class Connection:
    """An OpenAI-compatible server and one of its models.

    Args:
        base_url: of the server, up to and including its ``/v1``; None: the OpenAI API.
        model: the server's name of the model.
        api_key_env: the environment variable with the key. None: the server needs none.
        cache_dir: answers by the contents of their requests, shared by all runs that name the same folder. The server's
            address is no part of the key: a model's name means the same model at every server.
        max_concurrency: requests under way at the same time.
        requests_per_minute, tokens_per_minute: of this process; None: only the server limits them.
        timeout: seconds for a whole answer.
        max_retries: tries after the first, before a row or the run is given up.
        budget_usd: the sum that this run may pay; a request that could exceed it is not sent.
        price: dollars per million tokens, {"input", "output", "cached" (optional)}; None: the list price, if known.
        mode: "online", or "batch": the Batch API at half the price, with answers within a day.
        poll_seconds: between two looks at a batch.
        structured: request JSON by its schema; otherwise only the prompt asks for it.
        section: the section of the config with these settings, for messages.

    Raises:
        ConfigError: settings that cannot work, for example a missing key.
    """

    def __init__(
        self,
        base_url: str | None,
        model: str,
        api_key_env: str | None = "OPENAI_API_KEY",
        *,
        cache_dir: str | Path,
        max_concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout: float = 300.0,
        max_retries: int = 8,
        budget_usd: float | None = None,
        price: dict[str, float] | Price | None = None,
        mode: Literal["online", "batch"] = "online",
        poll_seconds: float = 30.0,
        structured: bool = True,
        section: str = "teacher",
    ) -> None:
        self.section, self.model, self.mode = section, model, mode
        if base_url is not None and not base_url.strip():
            raise ConfigError(f"{section}.base_url = '': names no server; null is the OpenAI API")
        self.base_url = base_url or OPENAI_URL
        self.base_urls = [self.base_url]  # several: servers of the same model; the least busy gets a request
        self.revive: Callable[[], None] | None = None  # starts a server again that cannot be reached
        self.model_lock: ModelLock | None = None  # of a server that holds one model at a time
        self.api_key_env = api_key_env
        self.secret = self._read_key(required=base_url is None)
        self.cache = AnswerCache(Path(cache_dir).expanduser())
        self.max_concurrency, self.timeout, self.max_retries = max_concurrency, timeout, max_retries
        self.poll_seconds = poll_seconds
        self.limits = Limits(requests_per_minute, tokens_per_minute)
        self.price = Price(**price) if isinstance(price, dict) else price or price_of(model, base_url)
        if budget_usd is not None and self.price is None:
            raise ConfigError(
                f"{section}.budget_usd = {budget_usd:g}: no price is known for {model!r}; pass {section}.price_input "
                f"and {section}.price_output, dollars a million tokens"
            )
        self.account = Account(budget_usd=budget_usd)
        self.unknown_model: str | None = None  # the remedy for a 404, if there is a better one than the usual
        self.dialect = Dialect(structured, "max_completion_tokens" if base_url is None else "max_tokens")

    @classmethod
    def of(cls, settings: Any, model: str, section: str, base_url: str | None = None) -> Self:
        """Return the client of a section of the settings, with the arguments that the section has.

        Args:
            settings: the section. Both prices are set, or the list price counts.
            model: the server's name of the model.
            section: its name, for messages.
            base_url: of a section that has it under another name.
        """
        options = {name: getattr(settings, name) for name in SETTINGS if hasattr(settings, name)}
        price_input, price_output = getattr(settings, "price_input", None), getattr(settings, "price_output", None)
        if price_input is not None and price_output is not None:
            options["price"] = Price(price_input, price_output, getattr(settings, "price_cached", None))
        url = settings.base_url if base_url is None else base_url
        return cls(url, model, settings.api_key_env, section=section, **options)

    def account_in(self, folder: Path, name: str = USAGE) -> None:
        """Keep the account in a run folder, continuing an earlier one; each client of a run has its own file."""
        self.account = Account(folder / name, self.account.budget_usd)

    # --- the server ---

    def open_async(self, base_url: str) -> openai.AsyncOpenAI:
        """Open a connection pool for one event loop. Retries are made by the caller, by the kind of the fault."""
        import openai

        http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [_bound_async]}, timeout=self.timeout)
        return openai.AsyncOpenAI(**self._options() | {"base_url": base_url}, http_client=http)

    def open_sync(self) -> openai.OpenAI:
        import openai

        http = openai.DefaultHttpxClient(event_hooks={"response": [_bound_sync]}, timeout=self.timeout)
        return openai.OpenAI(**self._options(), http_client=http)

    def _options(self) -> dict[str, Any]:
        # The package refuses an empty key, so a server that needs none gets a placeholder.
        return {"base_url": self.base_url, "api_key": self.secret or "none", "max_retries": 0, "timeout": self.timeout}

    def _read_key(self, required: bool) -> str | None:
        """Read the key from the environment, without the newline that it may have from a file."""
        name = self.api_key_env
        key = os.environ.get(name, "").strip() if name else ""
        if not key and required:
            raise ConfigError(
                f"{self.section}.api_key_env = {name!r}: this environment variable is not set; the OpenAI API needs "
                "your key in it"
            )
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"the key in {name} has characters that no key has; set it again")
        return key or None

    # --- answers ---

    def read_stored(self, key: str, request: ChatRequest) -> ChatReply | None:
        """Return the answer on the disk, and count it; None if there is none."""
        stored = self.cache.get(key)
        if stored is None:
            return None
        reply = ChatReply.from_json(stored["reply"], key)
        self.account.note(job_of(request), reply, stored["usd"], paid=stored["run"] == self.account.run)
        return reply

    def store(self, reply: ChatReply, request: ChatRequest, *, batch: bool = False, run: str | None = None) -> None:
        """Put an answer on the disk if it was billed.

        Args:
            reply: the answer.
            request: of the answer.
            batch: it is billed at the Batch API's price.
            run: the run that pays it; None: this run.
        """
        if reply.outcome in BILLED:
            origin = {"model": self.model, "prompt": request.prompt_version, "batch": batch}
            bill = {"run": run or self.account.run, "usd": self._usd(reply, batch)}
            self.cache.put(reply.key, {**bill, "asked": origin, "reply": reply.to_json()})

    def count(self, reply: ChatReply, request: ChatRequest) -> None:
        """Enter a new answer in the account."""
        self.account.note(job_of(request), reply, self._usd(reply, batch=False), paid=reply.outcome in BILLED)

    def _usd(self, reply: ChatReply, batch: bool) -> float | None:
        if self.price is None:
            return None
        return round(self.price.of(reply.usage) * (BATCH_DISCOUNT if batch else 1.0), 9)

    # --- errors ---

    def fault_error(self, fault: Fault) -> TeacherError:
        """Return the error that ends the run, in one sentence."""
        server, key = f"{self.section}.base_url = {self.base_url}", f"the key in {self.api_key_env}"
        key_setting = self.api_key_env or f"{self.section}.api_key_env"
        remedies = {
            401: f"it refuses {key}; set the right one" if self.secret else f"it needs a key; set {key_setting}",
            402: "pay the account's bill",
            403: f"{key} may not use this; ask for access",
            404: self.unknown_model or f"check {self.section}.model = {self.model!r} and {self.section}.base_url",
            400: f"change what it names below {self.section} (null leaves temperature and seed out)",
        }
        usual = f"check {self.section}.model = {self.model!r} and the settings beside it"
        remedy = remedies.get(fault.status or 0, usual)
        if fault.wait is not None or fault.status == 429:
            remedy = "wait, or raise the account's limits"
        elif fault.scope == "transient":
            check = "see what the server's log says" if fault.reached else "see whether the server is up"
            remedy = f"no answer after {self.max_retries + 1} tries; {check}"
        return TeacherError(f"{server}: {fault.message}; {remedy}; {self._describe_progress()}")

    def budget_error(self, next_usd: float) -> TeacherError:
        return TeacherError(
            f"{self.section}.budget_usd = {self.account.budget_usd:g}: ${self.account.spent:.4f} are spent, and the "
            f"next request could cost ${next_usd:.4f}; raise the budget; {self._describe_progress()}"
        )

    def in_batch_error(self, record: Path) -> TeacherError:
        return TeacherError(
            f"{self.section}.mode = 'online': some of these requests lie at the Batch API ({record}); pass "
            f"{self.section}.mode=batch to wait for their answers, or remove that file to pay for them again"
        )

    def _describe_progress(self) -> str:
        folder = self.account.file.parent if self.account.file else None
        if folder is not None and folder.is_relative_to(Path.cwd()):
            folder = folder.relative_to(Path.cwd())
        same_folder = f" with hydra.run.dir={folder}" if folder else ""
        done = f"{len(self.account):,} requests of this run have their answers, which are kept"
        return f"{done}: the same command{same_folder} goes on from there"


def job_of(request: ChatRequest) -> str:
    """Return the job under which an account sums a request up: "solve" of "solve/full/en/2"."""
    return request.prompt_version.partition("/")[0] or "chat"


# --- the size of replies ----------------------------------------------------------------------------------------------
# A server that never ends its reply would fill this process's memory. The limit counts bytes as they arrive. ``openai``
# chooses its own HTTP library, so the class of a response's stream is found from the stream itself.


async def _bound_async(response: Any) -> None:
    """Bound a response's size; an event hook of an asynchronous client."""
    stream = response.stream

    class BoundedStream(_find_base(stream, "AsyncByteStream")):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            n_read = 0
            async for chunk in stream:
                n_read = _count_bytes(n_read, chunk)
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    response.stream = BoundedStream()


def _bound_sync(response: Any) -> None:
    """Bound a response's size; an event hook of a synchronous client."""
    stream = response.stream

    class BoundedStream(_find_base(stream, "SyncByteStream")):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            n_read = 0
            for chunk in stream:
                n_read = _count_bytes(n_read, chunk)
                yield chunk

        def close(self) -> None:
            stream.close()

    response.stream = BoundedStream()


def _find_base(stream: Any, name: str) -> Any:
    """Return the base class of that name, which the stream's library checks for."""
    return next(base for base in type(stream).__mro__ if base.__name__ == name)


def _count_bytes(n_read: int, chunk: bytes) -> int:
    if n_read + len(chunk) > MAX_REPLY_BYTES:
        raise BrokenReply(f"the reply has more than {MAX_REPLY_BYTES:,} bytes")
    return n_read + len(chunk)
