"""Fine-tuning of the Outcome Reward Model: a generative judge, trained like any student (paper, section "ORM")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mathse.models.base import Backbone
from mathse.training.sft import SFTModule


class ORMModule(SFTModule):
    """SFT on verdicts. During the fit it also validates the verdict itself: how often the status token is right.

    ``status_tokens``: ids of the tokens that begin CORRECT and WRONG. The figure is teacher-forced (the analysis
    before the status is the label's), so it is an upper bound of what the judge does alone.
    """

    def __init__(self, backbone: Backbone, *, status_tokens: tuple[int, int], **fit: Any) -> None:
        super().__init__(backbone, **fit)
        self.status_tokens = status_tokens

    def score(self, head: nn.Module, states: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, int]]:
        at_status = torch.isin(targets, torch.tensor(self.status_tokens, device=targets.device))  # (N,)
        right = head(states[at_status])[:, self.status_tokens].argmax(-1)  # one position a verdict: few logits
        truth = (targets[at_status] == self.status_tokens[1]).long()
        hits = (right == truth).float()
        return {**super().score(head, states, targets), "val_status_accuracy": (hits.mean(), len(hits))}
