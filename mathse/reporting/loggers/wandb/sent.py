"""``wandb.json``: which W&B run belongs to a run folder, and what has been sent to that run already.

W&B passes a record on from process to process before it is written, and reports to nobody when it is. All is written
for certain once its run has ended. So a stage that was sent counts as pending until then; where the process was killed
before, the next one sends it again. A stage sent twice shows its figures twice at the same round and its artifacts,
which W&B knows by their content, once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from mathse.runs.reader import GrowingLog
from mathse.runs.store import read_json, write_json

FILE = "wandb.json"


@dataclass
class SentFit:
    """``offset``: the run's optimiser steps before this fit. ``loss``, ``val``: the last step sent, by kind of line."""

    offset: int
    loss: int = 0
    val: int = 0

    def is_new(self, line: Mapping[str, Any]) -> bool:
        """Whether a line of train_log.jsonl goes beyond what was sent; it counts as sent from now on."""
        kind = "loss" if "loss" in line else "val"
        if line["step"] <= getattr(self, kind):
            return False
        setattr(self, kind, line["step"])
        return True

    @property
    def end(self) -> int:
        return self.offset + max(self.loss, self.val)


@dataclass
class Sent:
    """``stages``: the finished stages that were sent, and the round each one's figures stand at (``figures.round_of``).
    ``pending``: those of them that may not be written yet. ``resent``: how many were sent again, by all processes."""

    folder: Path
    id: str
    fits: dict[str, SentFit] = field(default_factory=dict)
    stages: dict[str, int | None] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    resent: int = 0

    @classmethod
    def open(cls, folder: Path) -> Self:
        """What earlier processes sent for the run in ``folder``; a new run gets an id.

        A fit is noted here when it begins; after that its train_log.jsonl is the note, since each line is sent right
        after it is written. So this is called before a resumed fit cuts that file back to its last checkpoint.
        """
        if not (folder / FILE).exists():
            sent = cls(folder, secrets.token_hex(4))
        else:
            noted = read_json(folder / FILE)
            fits = {stage: SentFit(**fit) for stage, fit in noted["fits"].items()}
            pending = noted.get("pending", [])  # absent in files of versions that read W&B's own file instead
            written = {stage: number for stage, number in noted["stages"].items() if stage not in pending}
            sent = cls(folder, noted["id"], fits, written, resent=noted.get("resent", 0) + len(pending))
            for stage, fit in fits.items():
                for line in GrowingLog(folder / stage).read():
                    fit.is_new(line)
        sent.save()
        return sent

    def fit(self, stage: str) -> SentFit:
        """The note on a stage's fit; a stage unknown so far goes on where the run's last fit ended."""
        return self.fits.setdefault(stage, SentFit(self.steps))

    @property
    def steps(self) -> int:
        """Optimiser steps of all fits so far."""
        return max((fit.end for fit in self.fits.values()), default=0)

    @property
    def most_rows(self) -> int:
        """At most so many history rows were sent: two a step (loss, validation) and one a stage each time."""
        return 2 * self.steps + len(self.stages) + self.resent

    def add(self, stage: str, round_number: int | None) -> None:
        """The stage has been handed to W&B."""
        self.stages[stage] = round_number
        self.pending.append(stage)
        self.save()

    def ended(self) -> None:
        """W&B's run has ended, so all that it was handed is written."""
        self.pending.clear()
        self.save()

    def save(self) -> None:
        fits = {stage: asdict(fit) for stage, fit in self.fits.items()}
        noted = {"id": self.id, "fits": fits, "stages": self.stages, "pending": self.pending, "resent": self.resent}
        write_json(self.folder / FILE, noted)
