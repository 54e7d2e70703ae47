"""``wandb.json``: the id of a run folder's W&B run, and the trainings and stages that were sent to it.

W&B passes a record between processes before it is written, and gives no report when it is. Only the end of W&B's run
confirms that all records are written. A stage therefore counts as pending until then; after a kill, the next process
sends it again. A stage sent twice has its figures twice at the same round, and its artifacts once, since W&B identifies
artifacts by their content.
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
    """A training of the run. ``offset``: the run's optimiser steps before it. ``loss``, ``val``: the last step sent of
    each kind of line."""

    offset: int
    loss: int = 0
    val: int = 0

    def is_new(self, line: Mapping[str, Any]) -> bool:
        """Whether a line of train_log.jsonl was not sent. From now on it counts as sent."""
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
    """The content of ``wandb.json``.

    Attributes:
        fits: trainings by stage.
        stages: finished stages that were sent, each with the position of its figures (``figures.round_of``).
        pending: sent stages that W&B may not have written.
        resent: number of stages that were sent again, by all processes.
    """

    folder: Path
    id: str
    fits: dict[str, SentFit] = field(default_factory=dict)
    stages: dict[str, int | None] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    resent: int = 0

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what earlier processes sent for the run in ``folder``. A new run gets an id.

        A training is recorded here at its start. Its train_log.jsonl then records the lines that were sent, since each
        line is sent right after it is written. Call this before a resumed training cuts the file back to its last
        checkpoint.
        """
        if not (folder / FILE).exists():
            sent = cls(folder, secrets.token_hex(4))
        else:
            noted = read_json(folder / FILE)
            fits = {stage: SentFit(**fit) for stage, fit in noted["fits"].items()}
            pending = noted.get("pending", [])  # absent in files of versions that read W&B's own file
            written = {stage: number for stage, number in noted["stages"].items() if stage not in pending}
            sent = cls(folder, noted["id"], fits, written, resent=noted.get("resent", 0) + len(pending))
            for stage, fit in fits.items():
                for line in GrowingLog(folder / stage).read():
                    fit.is_new(line)
        sent.save()
        return sent

    def fit(self, stage: str) -> SentFit:
        """Return the record of a stage's training. A new record starts at the last step of the run."""
        return self.fits.setdefault(stage, SentFit(self.steps))

    @property
    def steps(self) -> int:
        """Optimiser steps of all trainings so far."""
        return max((fit.end for fit in self.fits.values()), default=0)

    @property
    def most_rows(self) -> int:
        """Upper bound of the history rows sent: two for each step (loss, validation), one for each stage sent."""
        return 2 * self.steps + len(self.stages) + self.resent

    def add(self, stage: str, round_number: int | None) -> None:
        """Record that the stage was passed to W&B."""
        self.stages[stage] = round_number
        self.pending.append(stage)
        self.save()

    def confirm_all(self) -> None:
        """Record that W&B's run has ended: all stages are written."""
        self.pending.clear()
        self.save()

    def save(self) -> None:
        fits = {stage: asdict(fit) for stage, fit in self.fits.items()}
        noted = {"id": self.id, "fits": fits, "stages": self.stages, "pending": self.pending, "resent": self.resent}
        write_json(self.folder / FILE, noted)
