"""Which numbers a fit computes in, where ``trainer.precision`` leaves that to the machine."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F

from mathse.config.schema import TrainerConfig

CLEARLY = 1.25  # times as fast, so that a machine on which both are alike chooses the same each time


def precision_of(trainer: TrainerConfig) -> Literal["32-true", "bf16-mixed", "bf16-true"]:
    """``trainer.precision``; for ``fastest`` bf16-mixed on a GPU and on a CPU that is faster with it, else 32-true."""
    if trainer.precision != "fastest":
        return trainer.precision
    on_gpu = trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and torch.cuda.is_available())
    return "bf16-mixed" if on_gpu or cpu_prefers_bfloat16() else "32-true"


@cache
def cpu_prefers_bfloat16() -> bool:
    """Whether this CPU multiplies matrices clearly faster in bfloat16 than in float32, by a trial of about 50 ms.

    Its flags do not tell: of two CPUs with avx512_bf16, an AMD EPYC is faster with it, and an Intel Xeon without
    tiles (AMX) slower. A CPU without such instructions is slower by far.
    """
    return CLEARLY * _seconds_of_a_product(torch.bfloat16) < _seconds_of_a_product(torch.float32)


def _seconds_of_a_product(dtype: torch.dtype) -> float:
    """The least of a few: what else runs on the machine only ever adds time."""
    states, weight = torch.ones(256, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)  # SmolLM2's feed-forward
    F.linear(states, weight)  # the first one prepares its kernel
    tries = []
    for _ in range(5):
        began = time.perf_counter()
        F.linear(states, weight)
        tries.append(time.perf_counter() - began)
    return min(tries)


def pixels_of(precision: str) -> torch.dtype:
    """In which a fit of this precision reads pictures: what computes in bfloat16 rounds them first of all."""
    return torch.float32 if precision == "32-true" else torch.bfloat16
