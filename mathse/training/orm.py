"""Fine-tuning of the Outcome Reward Model, a generative judge that trains like a student (paper, section "ORM")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mathse.models.base import Backbone
from mathse.training.sft import SFTModule


class ORMModule(SFTModule):
    """SFT on verdicts. Validation also measures the accuracy of the status token.

    This accuracy is teacher-forced: the label's analysis comes before the status. So it is an upper bound of the
    accuracy of a judge that writes the analysis itself.

    Args:
        status_tokens: ids of the first tokens of CORRECT and WRONG.
    """

    def __init__(self, backbone: Backbone, *, status_tokens: tuple[int, int], **sft_options: Any) -> None:
        super().__init__(backbone, **sft_options)
        self.status_tokens = status_tokens

    def score(self, head: nn.Module, states: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, int]]:
        at_status = torch.isin(targets, torch.tensor(self.status_tokens, device=targets.device))  # (N,)
        # One position per verdict, so the logits are few: (verdicts, V). Only the two statuses are compared.
        predicted = head(states[at_status])[:, self.status_tokens].argmax(-1)
        truth = (targets[at_status] == self.status_tokens[1]).long()
        hits = (predicted == truth).float()
        return {**super().score(head, states, targets), "val_status_accuracy": (hits.mean(), len(hits))}
