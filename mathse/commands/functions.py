"""``from mathse import train, evaluate``: the two programs as functions, for a notebook or a script.

    run = train("experiment=smoke", "seed=1", folder="runs/smoke")
    run.metric, run.folder, run.summary["stages"][-1]["accuracy"]

The settings and their checks are those of the command line; a mistake raises ConfigError. One call is one run: write a
sweep as a loop. A second call with the same settings and folder continues a run that was stopped, and returns the
result of a finished run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.commands import cli
from mathse.commands import evaluate as evaluate_command
from mathse.commands import train as train_command
from mathse.config.compose import evaluate_config, train_config
from mathse.config.options import FLAG, look_in, own_folder
from mathse.errors import ConfigError, MathSEError
from mathse.runs.layout import METRICS, SUMMARY
from mathse.runs.store import read_json
from mathse.training.launch import RanksFailed


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: the run folder: reports, checkpoints, every row.
        metric: a fraction in [0, 1]: after ``train`` the number by which a sweep would choose, after ``evaluate`` the
            mean accuracy. None if the run has no such number.
        summary: after ``train`` the contents of summary.json (empty with ``plan=true``), after ``evaluate`` the
            metrics.json of each benchmark by its name.
    """

    folder: Path
    metric: float | None
    summary: dict[str, Any] = field(repr=False)


def train(
    *overrides: str, folder: str | os.PathLike[str] | None = None, config_dir: str | os.PathLike[str] | None = None
) -> Finished:
    """Train a student, as ``mathse train *overrides`` does.

    Args:
        overrides: as on the command line: ``"experiment=smoke"``, ``"sft.optimizer.lr=1e-4"``.
        folder: the run folder; None: a new folder, ``outputs/<name>/<time>``.
        config_dir: a folder of your own options, with the structure of conf/.

    Raises ConfigError, with a line for each wrong setting, before anything is loaded; MathSEError if the run fails.
    """
    look_in(config_dir)
    config, run = train_config(_list_overrides("train", overrides, folder))
    metric = _run(train_command.train, config, run, cli.build_python_command("train"), overrides)
    return Finished(run, metric, {} if config.plan else read_json(run / SUMMARY))


def evaluate(
    *overrides: str, folder: str | os.PathLike[str] | None = None, config_dir: str | os.PathLike[str] | None = None
) -> Finished:
    """Score a model, or a file of its answers, as ``mathse evaluate *overrides`` does.

    Arguments and errors are those of ``train``. An example:
    ``evaluate("checkpoint=runs/smoke/final/checkpoint", "limit=20")``.
    """
    look_in(config_dir)
    config, run = evaluate_config(_list_overrides("evaluate", overrides, folder))
    metric = _run(evaluate_command.evaluate, config, run, cli.build_python_command("evaluate"), overrides)
    return Finished(run, metric, {file.parent.name: read_json(file) for file in sorted(run.glob(f"*/{METRICS}"))})


def _list_overrides(name: str, overrides: Sequence[str], folder: str | os.PathLike[str] | None) -> list[str]:
    if flags := [text for text in overrides if text.startswith("-")]:
        raise ConfigError(
            f"{name}({flags[0]!r}): takes settings only (KEY=VALUE); call it once per run instead of -m, or use the "
            f"command mathse {name}"
        )
    return [*overrides, *([] if folder is None else [cli.format_run_dir(Path(folder))])]


def _run(task: cli.Task, config: Any, folder: Path, command: Sequence[str], overrides: Sequence[str]) -> float | None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in cli.main
    flags = [] if own_folder() is None else [f"{FLAG}={own_folder()}"]
    try:
        return cli.run_or_start_ranks(task, config, folder, [*command, *flags, *overrides])
    except RanksFailed as error:
        raise MathSEError(f"{folder}: a rank failed ({error}); see the error that it printed above") from error
