"""``wandb.json``: which W&B run belongs to a run folder, and what that run has been given already."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from mathse.runs.layout import number_of_round
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
    """``stages``: the finished stages that were sent, and the round each one's figures stand at (see ``round_of``)."""

    folder: Path
    id: str
    fits: dict[str, SentFit] = field(default_factory=dict)
    stages: dict[str, int | None] = field(default_factory=dict)

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
            sent = cls(folder, noted["id"], fits, noted["stages"])
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
        """At most so many history rows were sent: two a step (loss, validation) and one a stage."""
        return 2 * self.steps + len(self.stages)

    def round_of(self, stage: str) -> int:
        """Where a stage's figures stand on the axis of rounds: base -1, distill 0, round_01 1, ..., any other next."""
        if (number := number_of_round(stage)) is not None:
            return number
        following = max((r for r in self.stages.values() if r is not None), default=-1) + 1
        return {"base": -1, "distill": 0}.get(stage, following)

    def save(self) -> None:
        fits = {stage: asdict(fit) for stage, fit in self.fits.items()}
        write_json(self.folder / FILE, {"id": self.id, "fits": fits, "stages": self.stages})
