"""Supervised fine-tuning on (problem, reasoning path): Eq. 1 of the paper, the sum of -log p over response tokens."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from mathse.backbones.base import Backbone
from mathse.data.batches import step_seed


class SFTModule(pl.LightningModule):
    """One optimiser step a batch item: gradients add up over its micro-batches, normalised per response token of the
    whole global batch, so ragged micro-batches weigh what they should.

    ``seed`` keys every draw of a step (dropout), so a resumed fit repeats it. Betas, ratios and clip as in
    ``mathse.config.schema.Optimizer``.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int,
        lr: float,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.98,
        eps: float = 1e-8,
        warmup_ratio: float = 0.05,
        min_lr_ratio: float = 0.05,
        clip: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.backbone, self.model = backbone, backbone.model
        self.steps, self.seed, self.clip = steps, seed, clip
        self.lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, (beta1, beta2), eps
        self.warmup_ratio, self.min_lr_ratio = warmup_ratio, min_lr_ratio

    def on_fit_start(self) -> None:
        self.model.train()  # from_pretrained returns eval mode, and Lightning no longer switches

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        torch.manual_seed(step_seed(self.seed, self.global_step))
        optimizer: Any = self.optimizers()
        total = torch.zeros((), device=self.device)
        for micro in batch["micro"]:
            logits, targets = self.backbone.answer_logits(micro)
            loss = F.cross_entropy(logits.float(), targets, reduction="sum") / batch["targets"]
            self.manual_backward(loss)
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        return {"loss": total}

    def validation_step(self, batch: dict[str, Any], step: int) -> None:
        for micro in batch["micro"]:
            logits, targets = self.backbone.answer_logits(micro)
            self.score(logits.float(), targets)

    def score(self, logits: Tensor, targets: Tensor) -> None:
        """Validation metrics from logits (N, vocabulary) and targets (N,)."""
        n = len(targets)
        self.log("val_loss", F.cross_entropy(logits, targets), on_epoch=True, batch_size=n)
        self.log("val_token_accuracy", (logits.argmax(-1) == targets).float().mean(), on_epoch=True, batch_size=n)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},  # norms and biases do not decay
        ]
        optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=self.lr, betas=self.betas, eps=self.eps, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_share(self, step: int) -> float:
        """Linear warm-up, then a cosine to ``min_lr_ratio``, over THIS fit's steps."""
        warmup = max(1, round(self.warmup_ratio * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
