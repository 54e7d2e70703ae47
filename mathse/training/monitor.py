"""The monitor of a training: speed, memory, health, and the amounts for the meter.

The figures are those of a window: the steps since the last line of train_log.jsonl. They are computed only for such a
line, because reading a value of the GPU waits for it. Times are by the clock, so they differ between equal trainings.

tokens_per_second   of all devices, without padding and without the time of validation
mfu                 the model's own operations (mathse/models/flops.py) as a share of the devices' peak in bfloat16;
                    absent on a CPU and on an unknown GPU
peak_memory_gib     highest memory so far on rank 0: of the GPU, or of the process on a CPU
padding             share of the computed positions that have no token
data_wait           share of the time that rank 0 waited for its next batch
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import astuple
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from mathse.errors import FitDiverged
from mathse.models.base import Backbone
from mathse.models.flops import count_amounts, count_forward_flops, count_training_flops
from mathse.models.operations import Amounts
from mathse.runs.meter import UNKNOWN, Debit, Spent
from mathse.training import ranks, strategies
from mathse.training.divergence import Divergence
from mathse.training.peak_flops import find_peak_flops


def is_logged(trainer: pl.Trainer) -> bool:
    """Whether the last step gets a line in train_log.jsonl: the first, the last, and each ``log_every_n_steps``-th."""
    step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step == 1 or step % every == 0 or step == trainer.max_steps


class TrainingMonitor(pl.Callback):
    """Runs on every rank, before the callbacks that log and save.

    It raises ``FitDiverged`` before a step of a diverged training is logged or saved.

    Args:
        divergence: decides whether the training has diverged.
        advice: the remedies, a part of the error's sentence.
        start: the step of the resume point; 0 without a resume point.
        kept: see ``count_training_flops``.

    Attributes:
        figures: of the last window, for the line in train_log.jsonl.
    """

    def __init__(
        self, backbone: Backbone, *, divergence: Divergence, advice: str, start: int = 0, kept: bool = False
    ) -> None:
        self.divergence, self.advice = divergence, advice
        self.figures: dict[str, float] = {}
        self._flops, self._forward_flops = count_training_flops(backbone, kept), count_forward_flops(backbone)
        self._patch_size = backbone.patch_size
        # Amounts of the window, and the seconds of waiting for data in it.
        self._amounts, self._waited = Amounts(), 0.0
        # Amounts of the whole training: this rank's share since the resume point, and on rank 0 also the sum before it.
        self._trained, self._validated = Amounts(), Amounts()
        self._is_counted = True  # False where an earlier version wrote the resume point, without amounts
        self._saved = start  # the step of the last resume point
        # (step, loss, gradient norm) of steps that are not checked yet, because a GPU may still compute them.
        self._unchecked: list[tuple[int, Tensor, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
        self._begin_window()

    def _begin_window(self) -> None:
        self._start = time.perf_counter()
        self._paused = self._waited = 0.0  # seconds of validation, and of waiting for data
        self._amounts = Amounts()

    def observe(self, micro: dict[str, Tensor]) -> None:
        """Count the amounts of a micro-batch. The loader calls it with each micro-batch of a step."""
        amounts = count_amounts(micro, self._patch_size)
        self._amounts += amounts
        self._trained += amounts

    def observe_validation(self, micro: dict[str, Tensor]) -> None:
        """Count the amounts of a micro-batch of a validation."""
        self._validated += count_amounts(micro, self._patch_size)

    # --- amounts of the whole training, for the meter ---

    def state_dict(self) -> dict[str, Any]:
        """Return the sums over all ranks, for a resume point. All ranks call it together."""
        sums = torch.tensor([astuple(self._trained), astuple(self._validated)], dtype=torch.long)
        rank = ranks.current()
        trained, validated = rank.all_reduce(sums.to(rank.device)).tolist()
        return {"trained": trained, "validated": validated} if self._is_counted else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._is_counted = bool(state)
        if state and ranks.current().is_main:
            self._trained, self._validated = Amounts(*state["trained"]), Amounts(*state["validated"])

    def list_spent(self) -> list[Debit]:
        """Return the debits of training and validation. All ranks call it together, after the last step."""
        state = self.state_dict()
        if not state:
            return [Debit("method", UNKNOWN), Debit("measuring", UNKNOWN)]
        trained, validated = Amounts(*state["trained"]), Amounts(*state["validated"])
        flops = self._flops.of(trained)
        training = Spent(trained_tokens=trained.tokens, trained_rows=trained.rows, flops=flops, training_flops=flops)
        validation = Spent(prefilled_tokens=validated.tokens, flops=self._forward_flops.of(validated))
        return [Debit("method", training), Debit("measuring", validation)]

    # --- health ---

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._paused += time.perf_counter() - self._validation_start
        loss = float(trainer.callback_metrics.get("val_loss", 0.0))  # absent where no row has a response
        if not math.isfinite(loss):
            raise self._build_error(trainer.global_step, f"its validation loss is {loss}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._unchecked.append((trainer.global_step, outputs["loss"], outputs["grad_norm"]))
        self._waited += batch["micro"].waited
        is_due = is_logged(trainer)
        if is_due or module.device.type == "cpu":
            self._check()
        if is_due:
            self.figures = {"grad_norm": round(self._norm, 6), **self._compute_figures(module.device)}
            self._begin_window()

    def check_point(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Raise FitDiverged where a resume point would have diverged weights; the last update may have spoilt them."""
        self._check()
        trained = [p for p in module.parameters() if p.requires_grad]  # frozen weights may be 4-bit numbers
        norm = strategies.join_shards(torch.nn.utils.get_total_norm(trained))
        if not torch.isfinite(norm):
            raise self._build_error(trainer.global_step, f"the norm of its weights is {float(norm)}")
        self._saved = trainer.global_step

    def _check(self) -> None:
        """Check the steps since the last check. Raises FitDiverged."""
        steps, self._unchecked = self._unchecked, []
        pairs = [torch.stack((loss.float(), norm.float())) for _, loss, norm in steps]
        values = torch.stack(pairs).tolist() if pairs else []  # waits for the GPU once
        for (step, _, _), (loss, norm) in zip(steps, values, strict=True):
            self._norm = norm
            if (reason := self.divergence.find_reason(loss, norm)) is not None:
                raise self._build_error(step, reason)

    def _build_error(self, step: int, reason: str) -> FitDiverged:
        saved = "there is no resume point yet"
        if self._saved:
            saved = f"the resume point of step {self._saved:,} is kept"
        return FitDiverged(f"training was stopped after step {step:,}: {reason}; {self.advice}; {saved}")

    # --- figures ---

    def _compute_figures(self, device: torch.device) -> dict[str, float]:
        """Return the figures of the window. All ranks call it together."""
        seconds = max(time.perf_counter() - self._start - self._paused, 1e-9)
        amounts = self._amounts
        own = [amounts.tokens, amounts.slots, self._flops.of(amounts)]  # of this rank
        sums = ranks.current().all_reduce(torch.tensor(own, dtype=torch.float64, device=device))
        tokens, slots, flops = sums.tolist()
        figures = {"tokens_per_second": round(tokens / seconds, 1)}
        if (peak := find_peak_flops(device)) is not None:
            figures["mfu"] = round(flops / seconds / (peak * ranks.current().world_size), 4)
        return {
            **figures,
            "peak_memory_gib": round(measure_peak_memory(device) / 2**30, 3),
            "padding": round(1 - tokens / max(1.0, slots), 4),
            "data_wait": round(min(1.0, self._waited / seconds), 4),
        }


def measure_peak_memory(device: torch.device) -> int:
    """Return the highest memory in bytes; 0 where the system does not report it.

    On a GPU it is torch's since training began, else the process's since its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # Linux reports KiB
