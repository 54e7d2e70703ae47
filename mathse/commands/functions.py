"""``from mathse import train, evaluate``: the two programs as functions, for a notebook or a script.

    run = train("experiment=smoke", "seed=1", folder="runs/smoke")
    run.metric, run.folder, run.summary["stages"][-1]["accuracy"]

The settings are those of the command line, read as strictly; a mistake is raised as ConfigError. One call is one run: a
sweep is a loop. Called again with the same settings and folder, a run that was stopped goes on, and a finished one
returns what it found.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.commands import cli
from mathse.commands import evaluate as evaluating
from mathse.commands import train as training
from mathse.config.compose import compose_evaluate, compose_train
from mathse.config.options import FLAG, look_in, own_folder
from mathse.errors import ConfigError, MathSEError
from mathse.runs.layout import METRICS, SUMMARY
from mathse.runs.store import read_json
from mathse.training.launch import RanksFailed


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        folder: the run folder: reports, checkpoints, every row.
        metric: of ``train`` what a sweep would choose by, of ``evaluate`` the mean accuracy; a fraction in [0, 1], None
            where there is none.
        summary: of ``train`` what summary.json holds (empty with ``plan=true``), of ``evaluate`` the metrics.json of
            each benchmark by its name.
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
        folder: the run folder; None: a new one, ``outputs/<name>/<time>``.
        config_dir: a folder of your own options, laid out as conf/ is.

    Raises ConfigError, with a line for each wrong setting, before anything is loaded; MathSEError where the run fails.
    """
    look_in(config_dir)
    config, run = compose_train(_as_overrides("train", overrides, folder))
    metric = _run(training.train, config, run, cli.start_from_python("train"), overrides)
    return Finished(run, metric, {} if config.plan else read_json(run / SUMMARY))


def evaluate(
    *overrides: str, folder: str | os.PathLike[str] | None = None, config_dir: str | os.PathLike[str] | None = None
) -> Finished:
    """Score a model, or a file of its answers, as ``mathse evaluate *overrides`` does; arguments and errors as
    ``train``'s: ``evaluate("checkpoint=runs/smoke/final/checkpoint", "limit=20")``."""
    look_in(config_dir)
    config, run = compose_evaluate(_as_overrides("evaluate", overrides, folder))
    metric = _run(evaluating.evaluate, config, run, cli.start_from_python("evaluate"), overrides)
    return Finished(run, metric, {file.parent.name: read_json(file) for file in sorted(run.glob(f"*/{METRICS}"))})


def _as_overrides(name: str, overrides: Sequence[str], folder: str | os.PathLike[str] | None) -> list[str]:
    if flags := [text for text in overrides if text.startswith("-")]:
        raise ConfigError(
            f"{name}({flags[0]!r}): takes settings only (KEY=VALUE); call it once a run instead of -m, or use the "
            f"command mathse {name}"
        )
    return [*overrides, *([] if folder is None else [cli.run_dir(Path(folder))])]


def _run(task: cli.Task, config: Any, folder: Path, start: Sequence[str], overrides: Sequence[str]) -> float | None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as cli.main
    flags = [] if own_folder() is None else [f"{FLAG}={own_folder()}"]
    try:
        return cli.run_or_start_ranks(task, config, folder, [*start, *flags, *overrides])
    except RanksFailed as error:
        raise MathSEError(f"{folder}: a rank failed ({error}); its error stands above") from error
