"""The answers of a run, their cost, and whether the next request is within the budget.

The account is a file of the run folder, one line a request, so a run that was killed counts what its earlier process
paid. A request counts once, however often its answer is read. ``paid`` lines are this run's own, the others were paid
by another run that shares the cache. A kill loses the answers under way: they are in no account, and are paid again.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mathse.inference.llm.chat import ChatReply, Outcome
from mathse.runs.store import make_folder, sync, to_json


class Entry(NamedTuple):
    """What a request's answer came to. A line of the file has the request's key before it."""

    job: str
    model: str
    outcome: Outcome
    prompt_tokens: int
    completion_tokens: int
    usd: float | None  # None: the price is not known
    paid: bool


class Account:
    """``file`` None keeps the account in memory. ``run`` marks this run's answers in a shared cache."""

    def __init__(self, file: Path | None = None, budget_usd: float | None = None) -> None:
        self.file, self.budget_usd = file, budget_usd
        self.run = secrets.token_hex(8)
        self.reserved = 0.0  # dollars that the requests under way can come to
        self.spent = 0.0  # dollars that this run has paid
        self.answered = 0  # requests that got a usable answer
        self._entries: dict[str, Entry] = {}  # by request; a run has hundreds of thousands
        self._alike: dict[Entry, Entry] = {}  # equal entries are one object
        if file is not None:
            self._open(file)

    def __len__(self) -> int:
        return len(self._entries)

    def reserve(self, usd: float) -> bool:
        """Reserve this much; False where that would exceed the budget."""
        if self.budget_usd is not None and self.spent + self.reserved + usd > self.budget_usd:
            return False
        self.reserved += usd
        return True

    def release(self, usd: float) -> None:
        self.reserved -= usd

    def note(self, job: str, reply: ChatReply, usd: float | None, *, paid: bool) -> None:
        """Count an answer, once."""
        entry = Entry(
            job,
            reply.model,
            reply.outcome,
            reply.usage.prompt_tokens,
            reply.usage.completion_tokens,
            usd,
            paid,
        )
        if self._entries.get(reply.key) != entry:
            self._count(reply.key, entry)
            self._write({"key": reply.key, **entry._asdict()})

    def sync(self) -> None:
        """Flush the lines to the disk."""
        if self.file is not None:
            sync(self.file)

    def _open(self, file: Path) -> None:
        make_folder(file.parent)
        end = 0  # of the last whole line, in bytes; a kill may have cut the one behind it
        if file.exists():
            with open(file, "rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    row = json.loads(line)
                    if end == 0:
                        self.run = row["run"]
                    else:
                        self._count(row.pop("key"), Entry(**row))
                    end += len(line)
            os.truncate(file, end)
        if end == 0:
            self._write({"run": self.run})
            self.sync()

    def _count(self, key: str, entry: Entry) -> None:
        """Count an entry; a later one on the same request replaces the earlier one."""
        before = self._entries.get(key)
        self._entries[key] = self._alike.setdefault(entry, entry)
        self.spent += _dollars(entry) - (_dollars(before) if before else 0.0)
        self.answered += (entry.outcome == "answered") - (before is not None and before.outcome == "answered")

    def outcome(self, key: str) -> Outcome | None:
        """The outcome of a request of this run; None where it has not been sent."""
        entry = self._entries.get(key)
        return entry.outcome if entry else None

    def _write(self, row: dict[str, Any]) -> None:
        if self.file is not None:
            with open(self.file, "ab", buffering=0) as file:
                file.write((to_json(row) + "\n").encode("utf-8", "backslashreplace"))

    # --- totals ---

    def totals(self) -> dict[str, Any]:
        """For summary.json: all answers that the run used, their cost, and the part of it that this run paid itself."""
        entries = list(self._entries.values())
        jobs = sorted({e.job for e in entries})
        return {
            **_sums(entries),
            "paid": _sums([e for e in entries if e.paid]),
            "outcomes": dict(sorted(Counter(e.outcome for e in entries).items())),
            "models": dict(sorted(Counter(e.model for e in entries if e.model).items())),
            "jobs": {job: _sums([e for e in entries if e.job == job]) for job in jobs},
        }


def in_words(totals: Mapping[str, Any]) -> str:
    """The totals as a line to read: "520 answers, 310,000 + 150,000 tokens, $2.27 (this run paid $1.10)"."""
    paid, usd = totals["paid"], totals["usd"]
    cost = "at no known price" if usd is None else f"${usd:,.2f} (this run paid ${paid['usd'] or 0.0:,.2f})"
    tokens = f"{totals['prompt_tokens']:,} + {totals['completion_tokens']:,} tokens"
    outcomes = totals["outcomes"]
    others = [f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.items() if name != "answered"]
    names = [f"{count:,} by {name}" for name, count in totals["models"].items()]
    models = f"; answered by several models: {', '.join(names)}" if len(names) > 1 else ""
    answered = f"{outcomes.get('answered', 0):,} answers"
    return ", ".join([answered, *others, tokens, cost]) + models


def _dollars(entry: Entry) -> float:
    return (entry.usd or 0.0) if entry.paid else 0.0


def _sums(entries: list[Entry]) -> dict[str, Any]:
    """``usd`` is None where no price is known for an answer that has tokens."""
    unknown = any(e.usd is None and e.prompt_tokens + e.completion_tokens for e in entries)
    return {
        "requests": len(entries),
        "prompt_tokens": sum(e.prompt_tokens for e in entries),
        "completion_tokens": sum(e.completion_tokens for e in entries),
        "usd": None if unknown else round(math.fsum(e.usd or 0.0 for e in entries), 6),
    }
