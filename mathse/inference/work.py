"""The cost of an answer: the tokens that a model reads and writes for it, and their operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from mathse.models.base import Backbone, Completion
from mathse.models.flops import forward_flops, picture_work
from mathse.models.operations import Amounts, Operations, written_behind
from mathse.models.row import Row
from mathse.runs import meter
from mathse.runs.meter import Spent


@dataclass(frozen=True)
class Payment:
    """``once``, ``lasting``: its purpose, where it is paid once a stage, or a run; ``by``: see ``meter.Debit``."""

    spent: Spent
    by: str = "model"
    once: str | None = None
    lasting: bool = False

    def pay(self, once: str | None = None) -> None:
        """Debit the stage that is being made."""
        meter.debit(self.spent, self.by, self.once or once, self.lasting)


@dataclass(frozen=True)
class Work:
    """The costs of one model. ``operations`` None: not known. ``kept_picture``: where tower features are kept, the
    tower's work for a picture, once; None: pictures go through it with each prompt."""

    operations: Operations | None
    kept_picture: Callable[[Any], tuple[str, Amounts]] | None = None

    @classmethod
    def of(cls, backbone: Backbone) -> Self:
        """The costs of a model in this process."""
        kept = None if backbone.tower_features is None else partial(picture_work, backbone)
        return cls(forward_flops(backbone), kept)

    def on(self, row: Row, samples: Sequence[Completion]) -> list[Payment]:
        """The cost of a row's samples, and of its pictures where these are paid apart."""
        prompt = samples[0].prompt if samples else Amounts()
        whole = prompt
        for sample in samples:
            whole += written_behind(prompt.tokens, sample.given, sample.sampled)
        answer = Spent(
            prefilled_tokens=prompt.tokens + sum(sample.given for sample in samples),
            sampled_tokens=sum(sample.sampled for sample in samples),
            flops=self.flops(whole),
        )
        return [Payment(answer), *([] if prompt.patches else self._kept_pictures(row))]

    def _kept_pictures(self, row: Row) -> list[Payment]:
        if self.kept_picture is None:
            return []
        return [
            Payment(Spent(flops=self.flops(amounts)), once=name, lasting=True)
            for name, amounts in map(self.kept_picture, row["images"])
        ]

    def served(self, prompt: Amounts, sampled: Sequence[int], by: str) -> Payment:
        """The cost of a server's answers, of so many tokens each, to a prompt."""
        whole = prompt
        for tokens in sampled:
            whole += written_behind(prompt.tokens, 0, tokens)
        return Payment(Spent(prompt.tokens, sum(sampled), flops=self.flops(whole)), by)

    def flops(self, amounts: Amounts) -> int | None:
        return None if self.operations is None else self.operations.of(amounts)
