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

from mathse.config.fits import OptimizerConfig
from mathse.models.base import Backbone
from mathse.models.lower_layers import hold_still
from mathse.models.parts import is_adapter, named_parts
from mathse.training import ranks, strategies
from mathse.training.batches import step_seed
from mathse.training.loader import Counts
from mathse.training.loss import added_up, cross_entropy, cross_entropy_and_hits


class SFTModule(pl.LightningModule):
    """One optimiser step for each item of the loader: gradients add up over its micro-batches, divided by the number of
    response tokens of the whole global batch, so that every token weighs the same in ragged micro-batches.

    Parameters that require a gradient train; the rest is neither optimised nor written to the resume point. ``seed``
    keys every draw of a step (dropout), so a resumed fit repeats it. ``vision_lr_scale``: the learning rate of tower
    and connector as a share of ``optimizer.lr``. ``reduced_once``: see ``strategies.announce_pass``.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int,
        optimizer: OptimizerConfig,
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
        """``measure(head, states, targets)`` of a padded micro-batch's N response tokens: states (N, h), targets (N,).

        It is called in here because under FSDP2 the head's weights are whole in a forward pass only.
        """
        return measure(self.backbone.head, *self.backbone.answer_states(batch))

    def configure_model(self) -> None:
        strategies.shard(self, self.model)

    def on_fit_start(self) -> None:
        self.model.train()  # from_pretrained returns eval mode, and Lightning no longer switches
        hold_still(self.backbone)
        strategies.gather_once(self)

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        rank = ranks.current()
        torch.manual_seed(step_seed(self.seed, self.global_step, rank.rank))
        optimizer: Any = self.optimizers()
        total = torch.zeros((), device=self.device)
        # Eq. 1 is a sum over tokens. Where the strategy takes the mean over the ranks, that division is undone here.
        averaged = rank.world_size if strategies.averages(self.trainer) else 1
        normaliser = rank.all_reduce(self.terms(batch["micro"].counts)) / averaged
        for k, micro in enumerate(batch["micro"], 1):
            loss = self.step_loss(strategies.on_device(self.trainer, micro), normaliser)
            strategies.announce_pass(self.trainer, last=k == len(batch["micro"]), reduced_once=self.reduced_once)
            self.manual_backward(loss)
            total += loss.detach()
        if rank.world_size > 1 and averaged == 1:  # the strategy leaves each rank its own gradients
            rank.all_reduce_gradients(self.trained)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.optimizer.clip)  # before clipping
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        return {"loss": rank.all_reduce(total) / averaged, "grad_norm": strategies.gradient_norm(self.trainer, norm)}

    def terms(self, counts: Counts) -> int:
        """What a step's loss is a mean over."""
        return counts.targets

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        """A micro-batch's part of the step's loss; its ``backward()`` comes next."""
        if strategies.averages(self.trainer):  # these look for each gradient where autograd makes it

            def measure(*answered: Any) -> Tensor:
                return cross_entropy(*answered) / normaliser
        else:
            measure = partial(added_up, normaliser=normaliser)
        loss: Tensor = self(micro, measure)
        return loss

    def validation_step(self, batch: dict[str, Any], step: int) -> None:
        for micro in batch["micro"]:
            measured = self(strategies.on_device(self.trainer, micro), self.score)
            for name, (mean, n) in ranks.current().all_reduce_means(measured).items():
                if n:
                    self.log(name, mean, on_epoch=True, batch_size=n)

    def score(self, head: nn.Module, states: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Validation metrics from states (N, h) and targets (N,): each a mean, and of how many."""
        loss, hits = cross_entropy_and_hits(head, states, targets)
        n = len(targets)
        return {"val_loss": (loss / n, n), "val_token_accuracy": (hits / n, n)}

    def configure_optimizers(self) -> Any:
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        chosen = self.optimizer
        optimizer = torch.optim.AdamW(
            self.groups(), lr=chosen.lr, betas=(chosen.beta1, chosen.beta2), eps=chosen.eps, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups, in an order that depends on nothing but the model: those of the full learning rate
        first. Matrices decay; norms, biases and other vectors do not."""
        # by (whether at the scaled rate, whether a vector)
        groups: dict[tuple[bool, bool], list[Parameter]] = {
            (slow, flat): [] for slow in (False, True) for flat in (False, True)
        }
        for part, name, parameter in named_parts(self.backbone):
            if parameter.requires_grad:
                slow = part != "language" and self.vision_lr_scale != 1
                groups[slow, is_vector(name, parameter)].append(parameter)
        return [
            {
                "params": parameters,
                "lr": self.optimizer.lr * (self.vision_lr_scale if slow else 1),
                "weight_decay": 0.0 if flat else self.optimizer.weight_decay,
            }
            for (slow, flat), parameters in groups.items()
            if parameters
        ]

    def lr_share(self, step: int) -> float:
        """Linear warm-up, then a cosine to ``min_lr_ratio``, over THIS fit's steps."""
        warmup = max(1, round(self.optimizer.warmup_ratio * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        lowest = self.optimizer.min_lr_ratio
        return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def is_vector(name: str, parameter: Tensor) -> bool:
    """Norm weights, biases, layer scales, and single embeddings such as a class token, which comes as (1, 1, C); an
    adapter of rank 1 is a matrix all the same."""
    return sum(size > 1 for size in parameter.shape) < 2 and not is_adapter(name)
