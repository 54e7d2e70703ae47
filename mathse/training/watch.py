"""What one watches in a fit: how fast it is, what it takes, and whether it is still healthy.

Figures are those of a window, the steps since the last line of train_log.jsonl, and are put together only where such a
line is due: a GPU is not waited for after each step. Times are by the clock, so no two fits write the same ones.

tokens_per_second   of all devices; without padding, and without the time of validation
mfu                 share of what the devices can do in bfloat16 that the model's own operations came to
                    (mathse/models/flops.py); absent on a CPU and on a GPU that is not known
peak_memory_gib     the most that the fit has taken so far on rank 0: of the GPU's memory, or of the process's on a CPU
padding             share of the positions worked through that held no token
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
from mathse.training.peak_flops import peak_flops


def is_logged(trainer: pl.Trainer) -> bool:
    """Whether the step just made gets a line in train_log.jsonl: the first, the last, and every so many between."""
    step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step == 1 or step % every == 0 or step == trainer.max_steps


class Watch(pl.Callback):
    """On every rank, before the callbacks that log and save: ``figures`` is what the last line says beside loss and
    rate; a fit that has diverged is ended with ``FitDiverged`` before its step is logged or saved.

    Args:
        divergence: decides that; ``advice``: what to do about it, for its sentence.
        start: the step of the resume point that the fit goes on from; 0 without one.
        kept: see ``count_training_flops``.
    """

    def __init__(
        self, backbone: Backbone, *, divergence: Divergence, advice: str, start: int = 0, kept: bool = False
    ) -> None:
        self.flops, self._forward_flops = count_training_flops(backbone, kept), count_forward_flops(backbone)
        self._patch_size = backbone.patch_size
        self._amounts, self._waited = Amounts(), 0.0  # of the window; seconds
        # of the whole fit; on a rank its share of the steps since the resume point, on rank 0 also those before it
        self._trained, self._validated = Amounts(), Amounts()
        self._tells = True  # not where the resume point is an earlier version's
        self.divergence, self.advice = divergence, advice
        self.figures: dict[str, float] = {}
        self._saved = start  # the step of the last resume point
        self._unchecked: list[tuple[int, Tensor, Tensor]] = []  # step, loss, gradient norm; a GPU may still be at them

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
        self._begin_window()

    def _begin_window(self) -> None:
        self._start = time.perf_counter()
        self._paused = self._waited = 0.0  # seconds of validation, and for data
        self._amounts = Amounts()

    def observe(self, micro: dict[str, Tensor]) -> None:
        """Count what a micro-batch holds; the fit's loader calls it with each that a step takes."""
        amounts = count_amounts(micro, self._patch_size)
        self._amounts += amounts
        self._trained += amounts

    def observe_validation(self, micro: dict[str, Tensor]) -> None:
        """The same of a validation."""
        self._validated += count_amounts(micro, self._patch_size)

    # --- what the fit has spent, from its first step on ---

    def state_dict(self) -> dict[str, Any]:
        """The sums that a resume point keeps: amounts of all ranks, which call it together."""
        sums = torch.tensor([astuple(self._trained), astuple(self._validated)], dtype=torch.long)
        rank = ranks.current()
        trained, validated = rank.all_reduce(sums.to(rank.device)).tolist()
        return {"trained": trained, "validated": validated} if self._tells else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._tells = bool(state)
        if state and ranks.current().is_main:
            self._trained, self._validated = Amounts(*state["trained"]), Amounts(*state["validated"])

    def spent(self) -> list[Debit]:
        """All ranks call it together, after the last step."""
        state = self.state_dict()
        if not state:
            return [Debit("method", UNKNOWN), Debit("measuring", UNKNOWN)]
        trained, validated = Amounts(*state["trained"]), Amounts(*state["validated"])
        flops = self.flops.of(trained)
        fit = Spent(trained_tokens=trained.tokens, trained_rows=trained.rows, flops=flops, training_flops=flops)
        read = Spent(prefilled_tokens=validated.tokens, flops=self._forward_flops.of(validated))
        return [Debit("method", fit), Debit("measuring", read)]

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._paused += time.perf_counter() - self._validation_start
        loss = float(trainer.callback_metrics.get("val_loss", 0.0))  # absent where no row has a response
        if not math.isfinite(loss):
            raise self._diverged(trainer.global_step, f"its validation loss is {loss}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._unchecked.append((trainer.global_step, outputs["loss"], outputs["grad_norm"]))
        self._waited += batch["micro"].waited
        due = is_logged(trainer)
        if due or module.device.type == "cpu":
            self._check()
        if due:
            self.figures = {"grad_norm": round(self._norm, 6), **self._window(module.device)}
            self._begin_window()

    def check_point(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A resume point is never of a fit that has diverged: its last update may have been the one too many."""
        self._check()
        trained = [p for p in module.parameters() if p.requires_grad]  # the others may be 4-bit numbers
        weights = strategies.whole(torch.nn.utils.get_total_norm(trained))
        if not torch.isfinite(weights):
            raise self._diverged(trainer.global_step, f"the norm of its weights is {float(weights)}")
        self._saved = trainer.global_step

    def _check(self) -> None:
        """Look at the steps since the last look. Raises FitDiverged."""
        steps, self._unchecked = self._unchecked, []
        pairs = [torch.stack((loss.float(), norm.float())) for _, loss, norm in steps]
        values = torch.stack(pairs).tolist() if pairs else []  # one wait for the GPU
        for (step, _, _), (loss, norm) in zip(steps, values, strict=True):
            self._norm = norm
            if (reason := self.divergence.reason(loss, norm)) is not None:
                raise self._diverged(step, reason)

    def _diverged(self, step: int, reason: str) -> FitDiverged:
        resume_point = (
            f"the resume point of step {self._saved:,} is kept" if self._saved else "there is no resume point yet"
        )
        return FitDiverged(f"the fit was stopped after step {step:,}: {reason}; {self.advice}; {resume_point}")

    def _window(self, device: torch.device) -> dict[str, float]:
        """The figures of the steps since the last line; all ranks call it together."""
        seconds = max(time.perf_counter() - self._start - self._paused, 1e-9)
        done = self._amounts
        sums = torch.tensor([done.tokens, done.slots, self.flops.of(done)], dtype=torch.float64, device=device)
        tokens, slots, flops = ranks.current().all_reduce(sums).tolist()
        figures = {"tokens_per_second": round(tokens / seconds, 1)}
        if (peak := peak_flops(device)) is not None:
            figures["mfu"] = round(flops / seconds / (peak * ranks.current().world_size), 4)
        return {
            **figures,
            "peak_memory_gib": round(peak_memory(device) / 2**30, 3),
            "padding": round(1 - tokens / max(1.0, slots), 4),
            "data_wait": round(min(1.0, self._waited / seconds), 4),
        }


def peak_memory(device: torch.device) -> int:
    """Bytes: of a GPU those that torch has held at most since the fit began, else of this process since its start; 0
    where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # Linux counts in KiB
