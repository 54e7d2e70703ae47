"""The settings of ``hydra/launcher=slurm`` as options of sbatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError


@dataclass
class SlurmSettings:
    """The settings; conf/hydra/launcher/slurm.yaml describes each."""

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
        """Yield the options of sbatch for an array of ``jobs`` jobs. ``files``: the folder of their logs."""
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
        """Return the variables that job.sh reads."""
        return {
            "MATHSE_SIGNAL_DELAY": str(self.signal_delay_s),
            "MATHSE_MAX_REQUEUES": str(self.max_num_timeout),
            "MATHSE_SETUP": "\n".join(self.setup or ()),
            "MATHSE_ENGINE": self.engine or "",
        }

    def refuse_other_devices(self, devices: int) -> None:
        """Raise ConfigError if the tasks of a node are not the run's ranks on this node."""
        starts_own_ranks = self.nodes == 1 and self.tasks_per_node == 1
        if self.tasks_per_node != devices and not starts_own_ranks:
            raise ConfigError(
                f"hydra.launcher.tasks_per_node = {self.tasks_per_node} on {self.nodes} nodes, trainer.devices = "
                f"{devices}: each task is a rank, so both must be the same number (on one node tasks_per_node may also "
                "be 1: the job then starts its own ranks)"
            )
