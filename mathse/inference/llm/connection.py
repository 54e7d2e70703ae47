"""A chat model at a server, and what a run keeps of its answers and their price. Shared by online.py and batch.py.

Its files import ``openai`` where they talk to a server: a start that asks none takes half a second less without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from mathse.errors import ConfigError, TeacherError
from mathse.inference.llm.account import Account
from mathse.inference.llm.cache import AnswerCache
from mathse.inference.llm.chat import ChatReply, ChatRequest
from mathse.inference.llm.faults import Fault
from mathse.inference.llm.limits import Limits
from mathse.inference.llm.pricing import BATCH_DISCOUNT, OPENAI, Price, price_of
from mathse.inference.llm.reply_size import bound, bound_async
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
STORED = ("answered", "refused", "empty", "cut_off")  # outcomes that were billed; such a request is not sent again


class Turns(Protocol):
    """When a client's requests may go to a server that holds one model at a time: requests for the model that it holds
    go out together, and another is swapped in when none is under way."""

    def joined(self) -> bool:
        """Whether the server holds this client's model, so that one more request may go out, which ``give_back`` ends;
        never waits."""

    def take(self) -> None:
        """The same, once requests for another model have ended and this client's is swapped in."""

    def give_back(self) -> None: ...


class Connection:
    """An OpenAI-compatible server and one of its models.

    Args:
        base_url: of the server, up to and with its ``/v1``; None is the OpenAI API.
        api_key_env: the environment variable with the key. None: the server needs none.
        cache_dir: answers by the content of their requests, shared by all runs that name the same folder. The server's
            address is no part of the key: a model's name stands for the same model wherever it is served.
        requests_per_minute, tokens_per_minute: of this process; None: no limit but the server's own.
        timeout: seconds for a whole answer.
        max_retries: tries after the first one, before a row or the run is given up.
        budget_usd: what this run may pay in all; no request is sent that could exceed it.
        price: dollars a million tokens, {"input", "output", "cached" (optional)}; None: the list price, if it is known.
        mode: "online", or "batch": the Batch API at half the price, with answers within a day.
        structured: whether JSON is requested by its schema; without, the prompt alone asks for it.
        section: of the config that these settings are in, for messages.

    Raises ConfigError for settings that cannot work, among them a missing key.
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
        self.base_url = base_url or OPENAI
        self.base_urls = [self.base_url]  # several: servers of the same model, of which the least busy one is asked
        self.revive: Callable[[], None] | None = None  # called where a server cannot be reached; starts it again
        self.turns: Turns | None = None  # of a server that holds one model at a time
        self.api_key_env = api_key_env
        self.secret = self._key(required=base_url is None)
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
        self.unknown_model: str | None = None  # a better remedy for a 404, where there is one
        self.dialect = Dialect(structured, "max_completion_tokens" if base_url is None else "max_tokens")

    @classmethod
    def of(cls, settings: Any, model: str, section: str, base_url: str | None = None) -> Self:
        """The client of a section of the settings: of what is an argument here, it takes what the section has.

        ``base_url``: of a section that calls it by another name. Both prices are set, or the list price counts.
        """
        options = {name: getattr(settings, name) for name in SETTINGS if hasattr(settings, name)}
        read, written = getattr(settings, "price_input", None), getattr(settings, "price_output", None)
        if read is not None and written is not None:
            options["price"] = Price(read, written, getattr(settings, "price_cached", None))
        url = settings.base_url if base_url is None else base_url
        return cls(url, model, settings.api_key_env, section=section, **options)

    def account_in(self, folder: Path, name: str = USAGE) -> None:
        """Keep the account in a run folder, continuing an earlier one; each client of a run has its own file."""
        self.account = Account(folder / name, self.account.budget_usd)

    def connected(self, base_url: str) -> openai.AsyncOpenAI:
        """A connection pool for one event loop. Retries are ours, because they depend on the kind of the fault."""
        import openai

        http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [bound_async]}, timeout=self.timeout)
        return openai.AsyncOpenAI(**self._options() | {"base_url": base_url}, http_client=http)

    def connected_sync(self) -> openai.OpenAI:
        import openai

        http = openai.DefaultHttpxClient(event_hooks={"response": [bound]}, timeout=self.timeout)
        return openai.OpenAI(**self._options(), http_client=http)

    def _options(self) -> dict[str, Any]:
        # The package refuses an empty key, so a server that needs none gets a placeholder.
        return {"base_url": self.base_url, "api_key": self.secret or "none", "max_retries": 0, "timeout": self.timeout}

    def known(self, key: str, request: ChatRequest) -> ChatReply | None:
        """The answer on the disk, counted; None where there is none."""
        stored = self.cache.get(key)
        if stored is None:
            return None
        reply = ChatReply.from_json(stored["reply"], key)
        self.account.note(job_of(request), reply, stored["usd"], paid=stored["run"] == self.account.run)
        return reply

    def keep(self, reply: ChatReply, request: ChatRequest, *, batch: bool = False, run: str | None = None) -> None:
        """Put an answer on the disk, if it was billed."""
        if reply.outcome in STORED:
            origin = {"model": self.model, "prompt": request.prompt_version, "batch": batch}
            bill = {"run": run or self.account.run, "usd": self._usd(reply, batch)}
            self.cache.put(reply.key, {**bill, "asked": origin, "reply": reply.to_json()})

    def count(self, reply: ChatReply, request: ChatRequest) -> None:
        """Enter a new answer in the account."""
        self.account.note(job_of(request), reply, self._usd(reply, batch=False), paid=reply.outcome in STORED)

    def _usd(self, reply: ChatReply, batch: bool) -> float | None:
        if self.price is None:
            return None
        return round(self.price.of(reply.usage) * (BATCH_DISCOUNT if batch else 1.0), 9)

    # --- messages ---

    def fault_error(self, fault: Fault) -> TeacherError:
        """The error that ends the run, in one sentence."""
        server, key = f"{self.section}.base_url = {self.base_url}", f"the key in {self.api_key_env}"
        key_setting = self.api_key_env or f"{self.section}.api_key_env"
        remedy = {
            401: f"it refuses {key}; set the right one" if self.secret else f"it needs a key; set {key_setting}",
            402: "pay the account's bill",
            403: f"{key} may not use this; ask for access",
            404: self.unknown_model or f"check {self.section}.model = {self.model!r} and {self.section}.base_url",
            400: f"change what it names below {self.section} (null leaves temperature and seed out)",
        }.get(fault.status or 0, f"check {self.section}.model = {self.model!r} and the settings beside it")
        if fault.wait is not None or fault.status == 429:
            remedy = "wait, or raise the account's limits"
        elif fault.whose == "moment":
            check = "see what the server's log says" if fault.reached else "see whether the server is up"
            remedy = f"no answer after {self.max_retries + 1} tries; {check}"
        return TeacherError(f"{server}: {fault.message}; {remedy}; {self._so_far()}")

    def budget_error(self, next_usd: float) -> TeacherError:
        return TeacherError(
            f"{self.section}.budget_usd = {self.account.budget_usd:g}: ${self.account.spent:.4f} are spent, and the "
            f"next request could cost ${next_usd:.4f}; raise the budget; {self._so_far()}"
        )

    def in_batch_error(self, record: Path) -> TeacherError:
        return TeacherError(
            f"{self.section}.mode = 'online': some of these requests lie at the Batch API ({record}); pass "
            f"{self.section}.mode=batch to wait for their answers, or remove that file to pay for them again"
        )

    def _so_far(self) -> str:
        folder = self.account.file.parent if self.account.file else None
        if folder is not None and folder.is_relative_to(Path.cwd()):
            folder = folder.relative_to(Path.cwd())
        same_folder = f" with hydra.run.dir={folder}" if folder else ""
        done = f"{len(self.account):,} requests of this run have their answers, which are kept"
        return f"{done}: the same command{same_folder} goes on from there"

    def _key(self, required: bool) -> str | None:
        """The key, without a line's end that came with it from a file."""
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


def job_of(request: ChatRequest) -> str:
    """The job that an account sums a request under: "solve" of "solve/full/en/2"."""
    return request.prompt_version.partition("/")[0] or "chat"
