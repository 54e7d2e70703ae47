"""A stand-in for Qwen2-VL-7B in the fits of a rehearsal: a row is five tokens, and takes the time of a whole one.

``backbone._target_=experiments.rehearsal.model.load`` beside ``backbone=qwen2vl``, from the repository's root: the way
of any user's own backbone that extends one of ours. Trainer, loader, optimiser, resume points and logs are a run's own;
what is small is the model (``checkpoint`` writes one) and what it reads of a row. ``REHEARSAL_SECONDS_A_ROW`` is what
the model's work on a row is to take.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mathse.config.backbones import Qwen2VLBackboneConfig, TinyBackboneConfig
from mathse.models import qwen2vl
from mathse.models.base import Encoded
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone

CONTEXT = 32768  # tokens, as Qwen2-VL-7B has it
SECONDS_A_ROW = "REHEARSAL_SECONDS_A_ROW"


class StandIn(Qwen2VLBackbone):
    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Three tokens for a prompt, of which one is the question's hash, and two for a response; no picture."""
        prompts = [[self.pad_id, _byte(row["question"]), self.end_id] for row in rows]
        return [
            Encoded(prompt, response, {}, self.extras(prompt, response, {}))
            for prompt, response in zip(prompts, self._response_ids(rows), strict=True)
        ]

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        return [3] * len(rows)

    def _response_ids(self, rows: Sequence[Row]) -> list[list[int]]:
        return [[_byte(row["response"]), self.end_id] if "response" in row else [] for row in rows]

    def answer_states(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        time.sleep(len(batch["input_ids"]) * float(os.environ.get(SECONDS_A_ROW, "0")))
        return super().answer_states(batch)


def _byte(text: str) -> int:
    """A token of the tiny tokenizer's bytes."""
    return 8 + hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=1).digest()[0]


def load(settings: Qwen2VLBackboneConfig, weights: bool = True) -> StandIn:
    opened = qwen2vl.load(settings, weights)
    return StandIn(opened.model, opened.processor)


def checkpoint(folder: Path) -> None:
    """Write the stand-in's base, of Qwen2-VL's classes."""
    small = TinyBackbone(
        TinyBackboneConfig(hidden_size=32, layers=1, heads=2, mlp_size=32, vision_size=16), init_seed=0
    )
    small.model.config.text_config.max_position_embeddings = CONTEXT
    small.save(folder)


if __name__ == "__main__":
    checkpoint(Path(sys.argv[1]))
