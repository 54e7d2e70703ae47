"""Online training runs for tests: a backbone of 60,000 parameters, a few problems, six tokens a response."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mathse.config.fits import FitConfig, OptimizerConfig
from mathse.config.schema import TrainerConfig
from mathse.evolution.online import RoundRollouts
from mathse.inference.rows import solve_row
from mathse.judges import Judge
from mathse.training.fit import FitJob
from mathse.training.groups import Sampling
from mathse.types import Problem

SAMPLING = Sampling(temperature=1.0, max_new_tokens=6)


def make_online_job(
    folder: Path, update: Any, pool: Sequence[Problem], judge: Judge, *, samples: int, micro_batch_size: int
) -> FitJob:
    rollouts = RoundRollouts(
        update,
        pool,
        judge,
        SAMPLING,
        samples=samples,
        rows_at_once=64,
        folder=folder,
        seed=7,
        stage="round_01",
        model="distill",
        accepts=lambda verdict: verdict.status == "correct",
    )
    settings = FitConfig(
        epochs=None,
        max_steps=update.online.steps,
        batch_size=rollouts.draw_rows,
        micro_batch_size=micro_batch_size,
        optimizer=OptimizerConfig(lr=1e-2),
    )
    trainer = TrainerConfig(accelerator="cpu", precision="32-true", checkpoint_every=1, log_every=1)
    prompts = [solve_row("compact", problem) for problem in pool]
    return FitJob(folder, prompts, 5, settings, trainer, update=update, sampling=SAMPLING, online=rollouts)
