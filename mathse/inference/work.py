"""The cost of an answer: the tokens that a model reads and samples for it, and their floating-point operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from mathse.models.base import Backbone, Completion
from mathse.models.flops import count_forward_flops, count_picture_work
from mathse.models.operations import Amounts, Operations, count_response
from mathse.models.row import Row
from mathse.runs import meter
from mathse.runs.meter import Spent


@dataclass(frozen=True)
class Payment:
    """An amount to debit.

    Args:
        spent: tokens and operations.
        by: who counted the tokens, see ``meter.Debit``.
        once: its purpose, if it is paid once a stage.
        lasting: it is paid once a run instead.
    """

    spent: Spent
    by: str = "model"
    once: str | None = None
    lasting: bool = False

    def pay(self, once: str | None = None) -> None:
        """Debit the stage that is being made."""
        meter.debit(self.spent, self.by, self.once or once, self.lasting)


@dataclass(frozen=True)
class AnswerCosts:
    """Counts the costs of one model's answers.

    Args:
        operations: of a forward pass; None: not known.
        kept_picture: the name and the tower's operations of a picture, if tower features are kept, so that a picture
            costs once. None: pictures pass the tower with each prompt.
    """

    operations: Operations | None
    kept_picture: Callable[[Any], tuple[str, Amounts]] | None = None

    @classmethod
    def of(cls, backbone: Backbone) -> Self:
        """Count for a model in this process."""
        kept = None if backbone.tower_features is None else partial(count_picture_work, backbone)
        return cls(count_forward_flops(backbone), kept)

    def count_local(self, row: Row, samples: Sequence[Completion]) -> list[Payment]:
        """Return the cost of a row's samples, and of its pictures if their tower features are kept."""
        prompt = samples[0].prompt if samples else Amounts()
        total = prompt
        for sample in samples:
            total += count_response(prompt.tokens, sample.given, sample.sampled)
        answer = Spent(
            prefilled_tokens=prompt.tokens + sum(sample.given for sample in samples),
            sampled_tokens=sum(sample.sampled for sample in samples),
            flops=self.flops(total),
        )
        payments = [Payment(answer)]
        # A prompt with patches has paid for its pictures already.
        if self.kept_picture is not None and not prompt.patches:
            for image in row["images"]:
                name, amounts = self.kept_picture(image)
                payments.append(Payment(Spent(flops=self.flops(amounts)), once=name, lasting=True))
        return payments

    def count_served(self, prompt: Amounts, sampled: Sequence[int], by: str) -> Payment:
        """Return the cost of a server's answers to a prompt; ``sampled``: tokens of each answer."""
        total = prompt
        for tokens in sampled:
            total += count_response(prompt.tokens, 0, tokens)
        return Payment(Spent(prompt.tokens, sum(sampled), flops=self.flops(total)), by)

    def flops(self, amounts: Amounts) -> int | None:
        return None if self.operations is None else self.operations.of(amounts)
