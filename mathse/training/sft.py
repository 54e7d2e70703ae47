"""Supervised fine-tuning on (problem, reasoning path): Eq. 1 of the paper, the sum of -log p over response tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from mathse.config.fits import Optimizer
from mathse.models.base import Backbone
from mathse.models.lower_layers import disable_lower_dropout
from mathse.models.parts import is_adapter, iterate_parameters
from mathse.training import ranks, strategies
from mathse.training.batches import derive_step_seed
from mathse.training.loader import Counts
from mathse.training.loss import accumulate_cross_entropy, cross_entropy, cross_entropy_and_hits


class SFTModule(pl.LightningModule):
    """One optimiser step for each item of the loader.

    Gradients are accumulated over the micro-batches of an item. The loss is divided by the number of response tokens of
    the whole global batch, so every token has the same weight in micro-batches of unequal size. Parameters that require
    a gradient train; the resume point has only these.

    Args:
        steps: optimiser steps of this training, which the learning rate schedule covers.
        optimizer: settings of AdamW, of the schedule and of gradient clipping.
        vision_lr_scale: learning rate of tower and connector as a share of ``optimizer.lr``.
        seed: key of every random draw of a step (dropout), so that a resumed training repeats it.
        reduced_once: see ``strategies.announce_pass``.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int,
        optimizer: Optimizer,
        vision_lr_scale: float = 1.0,
        seed: int = 0,
        reduced_once: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.backbone, self.model = backbone, backbone.model
        self.steps, self.seed, self.reduced_once = steps, seed, reduced_once
        self.optimizer, self.vision_lr_scale = optimizer, vision_lr_scale
        self.trained: list[Parameter] = []

    def forward(self, batch: dict[str, Tensor], measure: Callable[[nn.Module, Tensor, Tensor], Any]) -> Any:
        """Return ``measure(head, states, targets)`` for the N response tokens of a padded micro-batch.

        States are (N, h), targets (N,). The call is inside the forward pass because under FSDP2 the head's weights are
        whole only there.
        """
        return measure(self.backbone.head, *self.backbone.answer_states(batch))

    def configure_model(self) -> None:
        strategies.shard(self, self.model)

    def on_fit_start(self) -> None:
        self.model.train()  # from_pretrained returns a model in eval mode, and Lightning does not change it
        disable_lower_dropout(self.backbone)
        strategies.gather_once(self)

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        rank = ranks.current()
        torch.manual_seed(derive_step_seed(self.seed, self.global_step, rank.rank))
        optimizer: Any = self.optimizers()
        total = torch.zeros((), device=self.device)

        # Eq. 1 is a sum over tokens. A strategy that averages gradients over the ranks divides it by their number, and
        # the normaliser undoes this division.
        averaged = rank.world_size if strategies.averages(self.trainer) else 1
        normaliser = rank.all_reduce(self.count_terms(batch["micro"].counts)) / averaged
        for k, micro in enumerate(batch["micro"], 1):
            loss = self.step_loss(strategies.on_device(self.trainer, micro), normaliser)
            strategies.announce_pass(self.trainer, last=k == len(batch["micro"]), reduced_once=self.reduced_once)
            self.manual_backward(loss)
            total += loss.detach()

        # Without averaging each rank still has only the gradients of its own rows.
        if rank.world_size > 1 and averaged == 1:
            rank.all_reduce_gradients(self.trained)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.optimizer.clip)  # the norm before clipping
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        return {"loss": rank.all_reduce(total) / averaged, "grad_norm": strategies.gradient_norm(self.trainer, norm)}

    def count_terms(self, counts: Counts) -> int | Tensor:
        """Return the number of terms in the mean that is a step's loss; a tensor where there are several means."""
        return counts.targets

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        """Return a micro-batch's part of the step's loss. The caller calls ``backward()`` on it next."""
        if strategies.averages(self.trainer):
            # These strategies reduce gradients in hooks of autograd, so autograd has to make the head's gradient too.
            def measure(*head_states_targets: Any) -> Tensor:
                return cross_entropy(*head_states_targets) / normaliser
        else:
            measure = partial(accumulate_cross_entropy, normaliser=normaliser)
        loss: Tensor = self(micro, measure)
        return loss

    def validation_step(self, batch: dict[str, Any], step: int) -> None:
        for micro in batch["micro"]:
            means = self(strategies.on_device(self.trainer, micro), self.score)
            for name, (mean, n) in ranks.current().all_reduce_means(means).items():
                if n:
                    self.log(name, mean, on_epoch=True, batch_size=n)

    def score(self, head: nn.Module, states: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Return validation metrics from states (N, h) and targets (N,): by name a mean and its number of terms."""
        loss, hits = cross_entropy_and_hits(head, states, targets)
        n = len(targets)
        return {"val_loss": (loss / n, n), "val_token_accuracy": (hits / n, n)}

    def configure_optimizers(self) -> Any:
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        settings, groups = self.optimizer, self.group_parameters()
        betas = (settings.beta1, settings.beta2)
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=betas, eps=settings.eps, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.compute_lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def group_parameters(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups, first the groups with the full learning rate.

        Matrices have weight decay; norms, biases and other vectors have none. The order depends only on the model.
        """
        groups: dict[tuple[bool, bool], list[Parameter]] = {}  # by (has the scaled rate, is a vector)
        for part, name, parameter in iterate_parameters(self.backbone):
            if parameter.requires_grad:
                is_scaled = part != "language" and self.vision_lr_scale != 1
                groups.setdefault((is_scaled, is_vector(name, parameter)), []).append(parameter)
        return [
            {
                "params": groups[is_scaled, is_flat],
                "lr": self.optimizer.lr * (self.vision_lr_scale if is_scaled else 1),
                "weight_decay": 0.0 if is_flat else self.optimizer.weight_decay,
            }
            for is_scaled, is_flat in sorted(groups)
        ]

    def compute_lr_factor(self, step: int) -> float:
        """Return the learning rate of a step as a share of the highest.

        It rises linearly during the warm-up and then falls along a cosine to ``min_lr_ratio`` at the end of this
        training.
        """
        warmup = max(1, round(self.optimizer.warmup_ratio * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        lowest = self.optimizer.min_lr_ratio
        return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def is_vector(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a norm weight, bias, layer scale or single embedding (a class token has shape (1, 1, C)).

    An adapter of rank 1 is a matrix.
    """
    return sum(size > 1 for size in parameter.shape) < 2 and not is_adapter(name)
