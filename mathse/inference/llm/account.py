"""The answers of a run, their cost, and the budget that the next request must fit.

The account is a file of the run folder with one line per request, so a run that was killed counts the payments of its
earlier process. A request counts once, however often its answer is read. ``paid`` lines were paid by this run, the
others by another run that shares the cache. A kill loses the answers under way: no account has them, and they are paid
again.
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


class AccountEntry(NamedTuple):
    """The outcome and cost of a request. A line of the file also has the request's key."""

    job: str
    model: str
    outcome: Outcome
    prompt_tokens: int
    completion_tokens: int
    usd: float | None  # None: the price is not known
    paid: bool


class Account:
    """The account of a run.

    Args:
        file: one line per request; None: the account is only in memory.
        budget_usd: the sum that the run may pay; None: unlimited.
    """

    def __init__(self, file: Path | None = None, budget_usd: float | None = None) -> None:
        self.file, self.budget_usd = file, budget_usd
        self.run = secrets.token_hex(8)  # marks this run's answers in a shared cache
        self.reserved = 0.0  # the most that the requests under way can cost, dollars
        self.spent = 0.0  # paid by this run, dollars
        self.answered = 0  # requests with a usable answer
        self._entries: dict[str, AccountEntry] = {}  # by request key; a run has hundreds of thousands
        self._interned: dict[AccountEntry, AccountEntry] = {}  # equal entries are one object, to save memory
        if file is not None:
            self._open(file)

    def __len__(self) -> int:
        return len(self._entries)

    def reserve(self, usd: float) -> bool:
        """Reserve a sum. Returns False if it would exceed the budget."""
        if self.budget_usd is not None and self.spent + self.reserved + usd > self.budget_usd:
            return False
        self.reserved += usd
        return True

    def release(self, usd: float) -> None:
        self.reserved -= usd

    def note(self, job: str, reply: ChatReply, usd: float | None, *, paid: bool) -> None:
        """Count an answer once."""
        entry = AccountEntry(
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

    def outcome(self, key: str) -> Outcome | None:
        """Return the outcome of a request of this run; None if it has not been sent."""
        entry = self._entries.get(key)
        return entry.outcome if entry else None

    def totals(self) -> dict[str, Any]:
        """Return the totals for summary.json: all answers that the run used, their cost, and this run's own share."""
        entries = list(self._entries.values())
        jobs = sorted({e.job for e in entries})
        return {
            **_sum_up(entries),
            "paid": _sum_up([e for e in entries if e.paid]),
            "outcomes": dict(sorted(Counter(e.outcome for e in entries).items())),
            "models": dict(sorted(Counter(e.model for e in entries if e.model).items())),
            "jobs": {job: _sum_up([e for e in entries if e.job == job]) for job in jobs},
        }

    def _open(self, file: Path) -> None:
        """Read the file of an earlier process. Its first line names the run. A kill may have cut the last line."""
        make_folder(file.parent)
        end = 0  # of the last whole line, bytes
        if file.exists():
            with open(file, "rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    row = json.loads(line)
                    if end == 0:
                        self.run = row["run"]
                    else:
                        self._count(row.pop("key"), AccountEntry(**row))
                    end += len(line)
            os.truncate(file, end)
        if end == 0:
            self._write({"run": self.run})
            self.sync()

    def _count(self, key: str, entry: AccountEntry) -> None:
        """Count an entry; it replaces an earlier entry of the same request."""
        before = self._entries.get(key)
        self._entries[key] = self._interned.setdefault(entry, entry)
        self.spent += _paid_usd(entry)
        self.answered += entry.outcome == "answered"
        if before is not None:
            self.spent -= _paid_usd(before)
            self.answered -= before.outcome == "answered"

    def _write(self, row: dict[str, Any]) -> None:
        if self.file is not None:
            with open(self.file, "ab", buffering=0) as file:
                file.write((to_json(row) + "\n").encode("utf-8", "backslashreplace"))


def format_totals(totals: Mapping[str, Any]) -> str:
    """Format the totals as "520 answers, 310,000 + 150,000 tokens, $2.27 (this run paid $1.10)"."""
    paid, usd = totals["paid"], totals["usd"]
    outcomes = totals["outcomes"]
    parts = [f"{outcomes.get('answered', 0):,} answers"]
    parts += [f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.items() if name != "answered"]
    parts.append(f"{totals['prompt_tokens']:,} + {totals['completion_tokens']:,} tokens")
    parts.append("at no known price" if usd is None else f"${usd:,.2f} (this run paid ${paid['usd'] or 0.0:,.2f})")
    line = ", ".join(parts)
    if len(totals["models"]) > 1:
        models = ", ".join(f"{count:,} by {name}" for name, count in totals["models"].items())
        line += f"; answered by several models: {models}"
    return line


def _paid_usd(entry: AccountEntry) -> float:
    return (entry.usd or 0.0) if entry.paid else 0.0


def _sum_up(entries: list[AccountEntry]) -> dict[str, Any]:
    """Sum up entries. ``usd`` is None if the price of an answer with tokens is not known."""
    is_unknown = any(e.usd is None and e.prompt_tokens + e.completion_tokens for e in entries)
    return {
        "requests": len(entries),
        "prompt_tokens": sum(e.prompt_tokens for e in entries),
        "completion_tokens": sum(e.completion_tokens for e in entries),
        "usd": None if is_unknown else round(math.fsum(e.usd or 0.0 for e in entries), 6),
    }
