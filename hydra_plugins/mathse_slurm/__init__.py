"""Where Hydra looks for launchers: in packages of this name alone, all of which it imports at every start.

So nothing stands here but the name in ``conf/hydra/launcher/slurm.yaml``; the launcher is mathse/commands/slurm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.program = getattr(task_function, "program", None)  # what mathse/commands/cli.py starts
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mathse.commands.slurm.launcher import launch

        if self.program is None:
            raise RuntimeError("hydra/launcher=slurm starts MathSE's own commands: mathse train, mathse evaluate")
        return launch(self.settings, self.program, self.hydra_context, self.config, job_overrides)
