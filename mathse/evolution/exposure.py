"""How often a training run shows a student its rows, and the warnings that follow from it.

A student that has seen part of its rows once is not trained yet, and a round after it cannot pay: measured on
SmolLM2-135M, where runs of 0.4 to 0.7 epochs hid a gain of 7 points (experiments/words). It loads no torch, so that
``mathse plan`` warns with the same sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

OWN_SHARE = 0.1  # of the rows seen: below it the student's own paths change little
STEEP = 0.25  # fall of the mean loss from the third quarter of the logged steps to the last
QUARTER = 3  # logged losses in a quarter, at least, before their means are compared


@dataclass(frozen=True)
class Exposure:
    """``rows`` of a training run, of which a student wrote ``own``, and ``seen`` presentations of a row in all."""

    rows: int
    own: int
    seen: int

    @property
    def epochs(self) -> float:
        """How often a row is seen, on average."""
        return self.seen / self.rows

    @property
    def own_share(self) -> float:
        """The student's own rows among the rows seen, each being seen equally often."""
        return self.own / self.rows

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "own": self.own, "seen": self.seen, "epochs": round(self.epochs, 4)}

    def __str__(self) -> str:
        own = f", {self.own:,} of them the student's own" if self.own else ""
        return f"{self.rows:,} rows{own}; each is seen {self.epochs:.2f} times"


def warnings(exposure: Exposure, section: str, has_own: bool) -> Iterator[str]:
    """Sentences on a training run of less than an epoch, and on one whose own rows are few.

    Args:
        section: the key path of the run's length, such as "sft.round".
        has_own: whether rows of the student itself belong to this stage.
    """
    if exposure.epochs < 1:
        yield (
            f"each of {exposure.rows:,} rows is seen {exposure.epochs:.2f} times on average, less than one epoch; "
            f"raise {section}.epochs (or {section}.max_steps)"
        )
    if has_own and exposure.own_share < OWN_SHARE:
        yield (
            f"{exposure.own:,} of {exposure.rows:,} rows ({100 * exposure.own_share:.0f} %) are the student's own, "
            f"less than {100 * OWN_SHARE:.0f} %, so this round can change little; raise evolution.round.sample_size or "
            "evolution.samples_per_problem"
        )


def falling_loss(log: Iterable[Mapping[str, Any]], section: str) -> Iterator[str]:
    """A sentence where the loss of a training log still falls steeply at its end; none where it has too few lines."""
    losses = [float(line["loss"]) for line in log if "loss" in line]
    quarter = len(losses) // 4
    if quarter < QUARTER:
        return
    before, last = fmean(losses[-2 * quarter : -quarter]), fmean(losses[-quarter:])
    if before - last > STEEP * before:
        yield (
            f"the loss still falls steeply: {before:.3g} in the third quarter of the steps and {last:.3g} in the last; "
            f"the student is not trained to its end, raise {section}.epochs (or {section}.max_steps)"
        )
