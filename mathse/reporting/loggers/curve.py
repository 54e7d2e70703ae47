"""The Trainer callback of a logger that sends loss curves: the logger reads train_log.jsonl as the file grows.

The logger reads the file and not Lightning's own metrics, so that a curve equals the run folder. After a kill, the next
process finds the unsent points in the file.
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
