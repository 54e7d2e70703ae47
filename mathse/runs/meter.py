"""The meter of the stage that is being made: tokens and operations, debited where a model works.

Whoever has a model answer calls ``debit``. What answers came to is laid on the disk with the answers themselves: a
``BatchLog`` writes it beside its batch, before the batch, and drops it with a batch that a kill has torn. A fit lays
down its own sum (``settle``) before its checkpoint is published. Work that leaves no file is done again after a kill,
and so its debits stay in memory. So a stage that was killed and resumed, however often, comes to the figures of one
that was not. What a kill made the machine do twice is no part of them.

Where no stage is being made (``mathse evaluate``, say) nothing is counted. The record in stage.json, and how those of
several stages add up: ``mathse.runs.ledger``.
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
KEY = 12  # hex digits
SPENT = "spent"  # the folder in a stage's scratch folder


@dataclass(frozen=True)
class Spent:
    """Tokens and operations; None: not known.

    Attributes:
        prefilled_tokens: read before an answer, once for all samples of a prompt.
        sampled_tokens: written.
        trained_tokens: of the rows that a fit has seen, each as often as it has seen it, prompt and response.
        trained_rows: these rows; a pair to prefer by is two.
        flops: floating-point operations (mathse/models/flops.py).
        training_flops: those of fits among them.
    """

    prefilled_tokens: int | None = 0
    sampled_tokens: int | None = 0
    trained_tokens: int | None = 0
    trained_rows: int | None = 0
    flops: int | None = 0
    training_flops: int | None = 0

    def __add__(self, other: Spent) -> Spent:
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Spent(*(None if a is None or b is None else a + b for a, b in pairs))

    def to_json(self) -> dict[str, int | None]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{field.name: values.get(field.name) for field in fields(cls)})


UNKNOWN = Spent(None, None, None, None, None, None)


@dataclass(frozen=True)
class Debit:
    """``once``: its purpose, where that is paid once a stage, however often it is asked for. ``lasting``: paid once a
    run, for it is kept. ``by``: who counted its tokens: "model" (their ids), "server" (its usage), "tokenizer" (the
    texts)."""

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
        """Its purpose, shortened."""
        return None if self.once is None else hashlib.sha256(self.once.encode()).hexdigest()[:KEY]


class Meter:
    """The meter of one stage. ``folder``: where debits are laid down until the stage is finished. ``kept_before()``:
    keys of results that the stages before it have paid for and kept."""

    def __init__(self, stage: Path, folder: Path, kept_before: Callable[[], Collection[str]] = frozenset) -> None:
        self.stage, self.folder, self.kept_before = stage, folder, kept_before
        self.account: Account = "method"
        self._undone: list[Debit] = []  # of answers that are not on the disk yet
        self._again: list[Debit] = []  # of work that leaves no file

    def debit(self, spent: Spent, by: str = "model", once: str | None = None, lasting: bool = False) -> None:
        self._undone.append(Debit(self.account, spent, by, once, lasting))

    def settle(self, made: Path, debits: Iterable[Debit]) -> None:
        """Lay down what ``made``, a folder that is published as a whole, came to; called before it is published."""
        _replace(self._file(made), [{"debits": [debit.to_json() for debit in debits]}])

    def expect_settled(self, made: Path) -> None:
        """``made`` was there already: where nothing says what it came to, an earlier version made it."""
        if not self._file(made).exists():
            self.settle(made, [Debit(self.account, UNKNOWN)])

    def beside(self, log: Path, kept: int) -> BatchDebits:
        """The debits beside a file that grows by batches and has ``kept`` rows."""
        self._again += self._taken()  # they were for another piece of work
        return BatchDebits(self, self._file(log), kept)

    def total(self) -> dict[Account, Spent]:
        """All debits of the stage, by account."""
        totals: dict[Account, Spent] = {account: Spent() for account in ACCOUNTS}
        for debit in self._each_once():
            totals[debit.account] += debit.spent
        return totals

    def counted_by(self) -> list[str]:
        """Who counted the tokens, sorted."""
        return sorted({debit.by for debit in self._each_once() if debit.spent != Spent()})

    def kept(self) -> list[str]:
        """Keys of what this stage was the first to pay for and to keep, sorted."""
        return sorted(debit.key for debit in self._each_once() if debit.lasting and debit.key is not None)

    def _each_once(self) -> Iterator[Debit]:
        self._again += self._taken()
        paid, kept = set[str](), self.kept_before()
        on_disk = (Debit.from_json(row) for file in sorted(self.folder.glob("*.jsonl")) for row in _debits_in(file))
        for debit in (*on_disk, *self._again):
            if (key := debit.key) is not None:
                if key in paid or (debit.lasting and key in kept):
                    continue
                paid.add(key)
            yield debit

    def _taken(self) -> list[Debit]:
        taken, self._undone = self._undone, []
        return taken

    def _file(self, made: Path) -> Path:
        name = made.relative_to(self.stage).as_posix() if made.is_relative_to(self.stage) else str(made)
        return self.folder / f"{name.replace('/', '_')}.jsonl"


class BatchDebits:
    """The debits of each batch of a file, a line a batch: {"from", "to": rows of that file, "debits"}."""

    def __init__(self, meter: Meter, file: Path, kept: int) -> None:
        self.meter, self.file, self.rows = meter, file, kept
        if not kept:
            lines = []
        elif not file.exists():  # an earlier version made these rows
            lines = [{"from": 0, "to": kept, "debits": [Debit(meter.account, UNKNOWN).to_json()]}]
        else:
            # A batch that a kill has torn goes with its debits; of one that is cut at today's size, all was spent.
            lines = [{**line, "to": min(kept, line["to"])} for line in _lines(file) if line["from"] < kept]
        _replace(file, lines)

    def append(self, rows: int) -> None:
        """The debits of the batch that is written next, of so many rows. Returns when they are on the disk."""
        debits = self.meter._taken()
        if debits:
            line = {"from": self.rows, "to": self.rows + rows, "debits": [debit.to_json() for debit in _merged(debits)]}
            with open(self.file, "ab", buffering=0) as file:
                file.write(_as_line(line))
                os.fsync(file.fileno())
        self.rows += rows


_current: Meter | None = None


def start(stage: Path, folder: Path, kept_before: Callable[[], Collection[str]] = frozenset) -> Meter:
    """Begin to count for the stage whose folder is ``stage``; arguments as of ``Meter``."""
    global _current
    _current = Meter(stage, folder, kept_before)
    return _current


def stop() -> None:
    global _current
    _current = None


def current() -> Meter | None:
    """The meter of the stage that is being made."""
    return _current


def debit(spent: Spent, by: str = "model", once: str | None = None, lasting: bool = False) -> None:
    """Debit the stage that is being made, if one is."""
    if _current is not None:
        _current.debit(spent, by, once, lasting)


@contextmanager
def on_account(account: Account) -> Iterator[None]:
    """Within, debits go to ``account``."""
    meter = _current
    if meter is None:
        yield
        return
    before, meter.account = meter.account, account
    try:
        yield
    finally:
        meter.account = before


def _merged(debits: Iterable[Debit]) -> list[Debit]:
    """Debits that differ in nothing but their amounts as one."""
    sums: dict[tuple[Account, str, str | None, bool], Spent] = {}
    for debit in debits:
        key = (debit.account, debit.by, debit.once, debit.lasting)
        if debit.once is None or key not in sums:
            sums[key] = sums.get(key, Spent()) + debit.spent
    return [Debit(account, spent, by, once, lasting) for (account, by, once, lasting), spent in sums.items()]


# --- files, as mathse.runs.store writes them; it imports this module --------------------------------------------------


def _as_line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value) + "\n").encode()


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; the last one may be torn."""
    with open(file, "rb") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _debits_in(file: Path) -> Iterator[dict[str, Any]]:
    return (row for line in _lines(file) for row in line["debits"])


def _replace(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.partial")
    with open(aside, "wb") as written:
        written.writelines(map(_as_line, lines))
        written.flush()
        os.fsync(written.fileno())
    os.replace(aside, file)
