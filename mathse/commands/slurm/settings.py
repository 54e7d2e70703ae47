"""What is asked of SLURM: the settings of ``hydra/launcher=slurm`` as options of sbatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError


@dataclass
class SlurmSettings:
    """conf/hydra/launcher/slurm.yaml says what each is."""

    name: str
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    nodes: int
    tasks_per_node: int
    gpus_per_node: int | None
    cpus_per_task: int | None
    mem_gb: int | None
    timeout_min: int
    signal_delay_s: int
    max_num_timeout: int
    array_parallelism: int
    setup: list[str] | None
    engine: str | None
    additional_parameters: dict[str, Any]

    def options(self, files: Path, jobs: int) -> Iterator[str]:
        """sbatch's, for an array of so many jobs with their files in ``files``."""
        values = {
            "job-name": self.name,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodes": self.nodes,
            "ntasks-per-node": self.tasks_per_node,
            "gpus-per-node": self.gpus_per_node,
            "cpus-per-task": self.cpus_per_task,
            "mem": None if self.mem_gb is None else f"{self.mem_gb}G",
            "time": self.timeout_min,
            "signal": f"B:USR1@{self.signal_delay_s}",
            "array": f"0-{jobs - 1}%{self.array_parallelism}",
            "output": files / "%a.log",
            **self.additional_parameters,
        }
        yield from (f"--{key}={value}" for key, value in values.items() if value is not None)

    def environment(self) -> dict[str, str]:
        """What job.sh reads."""
        return {
            "MATHSE_SIGNAL_DELAY": str(self.signal_delay_s),
            "MATHSE_MAX_REQUEUES": str(self.max_num_timeout),
            "MATHSE_SETUP": "\n".join(self.setup or ()),
            "MATHSE_ENGINE": self.engine or "",
        }

    def refuse_other_devices(self, devices: int) -> None:
        """Raises ConfigError where the tasks of a node are not the run's ranks there."""
        starts_its_own = self.nodes == 1 and self.tasks_per_node == 1
        if self.tasks_per_node != devices and not starts_its_own:
            raise ConfigError(
                f"hydra.launcher.tasks_per_node = {self.tasks_per_node} on {self.nodes} nodes, trainer.devices = "
                f"{devices}: each task is a rank, so both must be the same number (on one node tasks_per_node may also "
                "be 1: the job then starts its own ranks)"
            )
