"""What a logger that sends curves gives a fit: a callback that has it read the fit's train_log.jsonl as it grows.

The file is read, not Lightning's own metrics, so that a curve holds what the run folder holds: whatever a kill kept
from the outside, the next process finds there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl


class SendCurve(pl.Callback):
    """Calls ``send`` after each step and each validation, on the first rank."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self._send()

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self._send()
