"""The meter of a stage: tokens and operations of models, debited where a model computes.

Code that computes an answer calls ``debit``. The costs of answers are written to the disk with the answers: a
``BatchLog`` writes them before its batch, and removes them with a batch that a kill has torn. Training writes its own
sum (``settle``) before its checkpoint is published. Work without a file is done again after a kill, so its debits stay
in memory. So the figures of a stage are the same with any number of kills, without the work that a kill repeats.

Outside a stage, as in ``mathse evaluate``, nothing is counted. ``mathse.runs.ledger`` has the record in stage.json and
the sums over stages.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

Account = Literal["method", "measuring"]
ACCOUNTS: tuple[Account, ...] = ("method", "measuring")
KEY_DIGITS = 12  # hex
SPENT = "spent"  # folder of the debits in a stage's scratch folder


@dataclass(frozen=True)
class Spent:
    """Tokens and operations; None: unknown.

    Attributes:
        prefilled_tokens: tokens of prompts, once for all samples of a prompt.
        sampled_tokens: tokens of answers.
        trained_tokens: tokens of training rows, prompt and response, in each pass over them.
        trained_rows: training rows in each pass over them; a preference pair is two rows.
        flops: floating-point operations (mathse/models/flops.py).
        training_flops: the part of ``flops`` in training.
    """

    prefilled_tokens: int | None = 0
    sampled_tokens: int | None = 0
    trained_tokens: int | None = 0
    trained_rows: int | None = 0
    flops: int | None = 0
    training_flops: int | None = 0

    def __add__(self, other: Spent) -> Spent:
        sums: list[int | None] = []
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            sums.append(None if a is None or b is None else a + b)
        return Spent(*sums)

    def to_json(self) -> dict[str, int | None]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{field.name: values.get(field.name) for field in fields(cls)})


UNKNOWN = Spent(None, None, None, None, None, None)


@dataclass(frozen=True)
class Debit:
    """Costs on an account.

    Attributes:
        by: source of the token counts: "model" (token ids), "server" (its usage), "tokenizer" (texts).
        once: purpose of costs that are counted once per stage, for example a kept result; None: always counted.
        lasting: whether costs with a purpose are counted once per run, because the result is kept.
    """

    account: Account
    spent: Spent
    by: str = "model"
    once: str | None = None
    lasting: bool = False

    def to_json(self) -> dict[str, Any]:
        about = {"account": self.account, "by": self.by, "once": self.once, "lasting": self.lasting}
        return {**about, **self.spent.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        return cls(row["account"], Spent.from_json(row), row["by"], row["once"], row["lasting"])

    @property
    def key(self) -> str | None:
        """A hash of its purpose."""
        return None if self.once is None else hashlib.sha256(self.once.encode()).hexdigest()[:KEY_DIGITS]


class Meter:
    """The meter of a stage.

    Args:
        stage: the stage's folder.
        folder: of the debits until the stage is finished.
        kept_before: returns the keys of lasting results that earlier stages have paid for.
    """

    def __init__(self, stage: Path, folder: Path, kept_before: Callable[[], Collection[str]] = frozenset) -> None:
        self.stage, self.folder, self.kept_before = stage, folder, kept_before
        self.account: Account = "method"
        self._pending: list[Debit] = []  # of answers that are not on the disk yet
        self._without_file: list[Debit] = []  # of work that leaves no file

    def debit(self, spent: Spent, by: str = "model", once: str | None = None, lasting: bool = False) -> None:
        self._pending.append(Debit(self.account, spent, by, once, lasting))

    def settle(self, made: Path, debits: Iterable[Debit]) -> None:
        """Write the costs of ``made``, a folder that is published next."""
        _write_lines(self._file(made), [{"debits": [debit.to_json() for debit in debits]}])

    def expect_settled(self, made: Path) -> None:
        """Settle a folder that exists already without costs as unknown: an earlier version made it."""
        if not self._file(made).exists():
            self.settle(made, [Debit(self.account, UNKNOWN)])

    def open_batches(self, log: Path, kept: int) -> BatchDebits:
        """Return the debits of ``log``, a file that grows by batches and has ``kept`` rows."""
        self._without_file += self.take_pending()  # debits before this point are of other work
        return BatchDebits(self, self._file(log), kept)

    def add_up(self) -> dict[Account, Spent]:
        """Return the sum of all debits of the stage by account."""
        totals: dict[Account, Spent] = {account: Spent() for account in ACCOUNTS}
        for debit in self._read_debits():
            totals[debit.account] += debit.spent
        return totals

    def list_sources(self) -> list[str]:
        """Return the sources of the token counts, sorted."""
        return sorted({debit.by for debit in self._read_debits() if debit.spent != Spent()})

    def list_kept(self) -> list[str]:
        """Return the keys of the lasting results that this stage was the first to pay for, sorted."""
        return sorted(debit.key for debit in self._read_debits() if debit.lasting and debit.key is not None)

    def _read_debits(self) -> Iterator[Debit]:
        """Yield all debits, on the disk and in memory. Costs with a purpose come once."""
        self._without_file += self.take_pending()
        debits: list[Debit] = []
        for file in sorted(self.folder.glob("*.jsonl")):
            for line in _read_lines(file):
                debits += map(Debit.from_json, line["debits"])
        paid, kept = set[str](), self.kept_before()
        for debit in (*debits, *self._without_file):
            if (key := debit.key) is not None:
                if key in paid or (debit.lasting and key in kept):
                    continue
                paid.add(key)
            yield debit

    def take_pending(self) -> list[Debit]:
        """Return and clear the debits of answers that are not on the disk yet."""
        pending, self._pending = self._pending, []
        return pending

    def _file(self, made: Path) -> Path:
        name = made.relative_to(self.stage).as_posix() if made.is_relative_to(self.stage) else str(made)
        return self.folder / f"{name.replace('/', '_')}.jsonl"


class BatchDebits:
    """The debits of each batch of a file, a line per batch: {"from", "to": rows of that file, "debits"}."""

    def __init__(self, meter: Meter, file: Path, kept: int) -> None:
        self.meter, self.file, self.rows = meter, file, kept
        if not kept:
            lines = []
        elif not file.exists():  # an earlier version wrote these rows
            lines = [{"from": 0, "to": kept, "debits": [Debit(meter.account, UNKNOWN).to_json()]}]
        else:
            # Debits of a torn batch are removed with it. A batch that ends earlier with today's sizes keeps all debits.
            lines = [{**line, "to": min(kept, line["to"])} for line in _read_lines(file) if line["from"] < kept]
        _write_lines(file, lines)

    def append(self, rows: int) -> None:
        """Write the debits of the next batch, which has ``rows`` rows, and wait until they are on the disk."""
        debits = self.meter.take_pending()
        if debits:
            line = {"from": self.rows, "to": self.rows + rows, "debits": [debit.to_json() for debit in _merge(debits)]}
            with open(self.file, "ab", buffering=0) as file:
                file.write(_encode_line(line))
                os.fsync(file.fileno())
        self.rows += rows


_current: Meter | None = None


def start(stage: Path, folder: Path, kept_before: Callable[[], Collection[str]] = frozenset) -> Meter:
    """Start a meter for the stage in the folder ``stage``. The arguments are those of ``Meter``."""
    global _current
    _current = Meter(stage, folder, kept_before)
    return _current


def stop() -> None:
    global _current
    _current = None


def current() -> Meter | None:
    """Return the meter of the stage that is being made, or None."""
    return _current


def debit(spent: Spent, by: str = "model", once: str | None = None, lasting: bool = False) -> None:
    """Debit the stage that is being made, if any."""
    if _current is not None:
        _current.debit(spent, by, once, lasting)


@contextmanager
def on_account(account: Account) -> Iterator[None]:
    """Within the context debits go to ``account``."""
    meter = _current
    if meter is None:
        yield
        return
    before, meter.account = meter.account, account
    try:
        yield
    finally:
        meter.account = before


def _merge(debits: Iterable[Debit]) -> list[Debit]:
    """Return the debits with equal account, source and purpose added up."""
    sums: dict[tuple[Account, str, str | None, bool], Spent] = {}
    for debit in debits:
        key = (debit.account, debit.by, debit.once, debit.lasting)
        if debit.once is None or key not in sums:
            sums[key] = sums.get(key, Spent()) + debit.spent
    return [Debit(account, spent, by, once, lasting) for (account, by, once, lasting), spent in sums.items()]


# --- files ------------------------------------------------------------------------------------------------------------
# mathse.runs.store imports this module, so it cannot be used here.


def _encode_line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value) + "\n").encode()


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines. The last line may be torn."""
    with open(file, "rb") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.partial")
    with open(aside, "wb") as written:
        written.writelines(map(_encode_line, lines))
        written.flush()
        os.fsync(written.fileno())
    os.replace(aside, file)
