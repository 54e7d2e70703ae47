"""The precision of a training run for ``trainer.precision=fastest``, which leaves the choice to the machine."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F

from mathse.config.schema import Trainer

MIN_SPEEDUP = 1.25  # of bfloat16 over float32; a machine with equal speeds then makes the same choice each time


def choose_precision(trainer: Trainer) -> Literal["32-true", "bf16-mixed", "bf16-true"]:
    """Return ``trainer.precision``; "fastest" is bf16-mixed on a GPU or a CPU that is faster with it, else 32-true."""
    if trainer.precision != "fastest":
        return trainer.precision
    on_gpu = trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and torch.cuda.is_available())
    return "bf16-mixed" if on_gpu or cpu_prefers_bfloat16() else "32-true"


@cache
def cpu_prefers_bfloat16() -> bool:
    """Return whether this CPU multiplies matrices clearly faster in bfloat16 than in float32. Measures for about 50 ms.

    The CPU's flags do not decide it: of two CPUs with avx512_bf16, an AMD EPYC was faster with bfloat16, and an Intel
    Xeon without tiles (AMX) slower. A CPU without such instructions is far slower.
    """
    return MIN_SPEEDUP * _time_product(torch.bfloat16) < _time_product(torch.float32)


def _time_product(dtype: torch.dtype) -> float:
    """Return the seconds of a matrix product, as the minimum of 5: other load on the machine only adds time."""
    states, weight = torch.ones(256, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)  # SmolLM2's feed-forward
    F.linear(states, weight)  # the first call prepares the kernel
    tries = []
    for _ in range(5):
        start = time.perf_counter()
        F.linear(states, weight)
        tries.append(time.perf_counter() - start)
    return min(tries)


def choose_pixel_dtype(precision: str) -> torch.dtype:
    """Return the dtype of pixels in a training run: a pass in bfloat16 would round them in its first step anyway."""
    return torch.float32 if precision == "32-true" else torch.bfloat16
