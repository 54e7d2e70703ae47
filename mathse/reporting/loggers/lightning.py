"""Any ``pytorch_lightning.loggers.Logger`` as a run's logger: TensorBoard, MLflow, Comet, Neptune, your own class.

    python train.py logger=tensorboard                # then: tensorboard --logdir outputs
    python train.py logger=mlflow
    python train.py logger=tensorboard logger._target_=my_package.MyLogger

=====================  ==============================================================================================
``fit/<stage>/...``    the lines of each training's train_log.jsonl, over its optimiser steps
``round/...``          accuracy, acceptance, the ORM on this student, over rounds: base -1, distill 0, round_01 1, ...
``summary/...``        the numbers of summary.json by the names of ``mathse/reporting/loggers/figures.py``
hyperparameters        the run's settings, without secrets
=====================  ==============================================================================================

Such a logger does not report when it has written a point; all points are written once it is finalized. ``logger.json``
in the run folder lists the stages that were sent by then. After a kill, the next process sends all other stages again
from their first step: a point that was sent twice has the same step and the same value.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from mathse.config.extras import quoted
from mathse.config.secrets import without_secrets
from mathse.config.trust import locate
from mathse.errors import RunError
from mathse.reporting.loggers.curve import SendCurve
from mathse.reporting.loggers.figures import Value, round_figures, round_of, run_figures
from mathse.runs.reader import GrowingLog, read_head, read_stages
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.runs.store import read_json, write_json

NOTE_FILE = "logger.json"


def is_lightning_logger(section: Any) -> bool:
    """Whether a section of the config names a subclass of Lightning's logger."""
    if not isinstance(section, Mapping):  # options of MathSE are dataclasses
        return False
    target = locate(section["_target_"], "logger")
    return isinstance(target, type) and issubclass(target, Logger)


class LightningLogger:
    """Sends a run's figures to a logger of Lightning.

    Args:
        section: the ``_target_`` of the logger and its arguments. A missing ``save_dir`` becomes the run folder. With a
            parameter ``run_id`` (MLflow), a resumed run continues under its id.
        run: the run folder.
        note: the file in the run folder that lists the stages that were sent.

    Raises RunError if the logger's package is not installed.
    """

    def __init__(self, section: Mapping[str, Any], *, run: RunFolder, note: str = NOTE_FILE) -> None:
        arguments = {key: value for key, value in section.items() if key != "_target_"}
        logger_class = locate(section["_target_"], "logger")
        parameters = inspect.signature(logger_class).parameters
        self._folder, self._note = run.path, run.path / note
        noted = read_json(self._note) if self._note.exists() else {"version": None, "stages": []}
        if "save_dir" in parameters and arguments.get("save_dir") is None:
            arguments["save_dir"] = str(run.path)
        if "run_id" in parameters and arguments.get("run_id") is None:
            arguments["run_id"] = noted["version"]
        try:
            self._logger: Logger = logger_class(**arguments)
            self._version = self._logger.version
        except ModuleNotFoundError as e:
            raise RunError(
                f"logger = {section['_target_']}: its package is not installed ({e}); pip install "
                f"{quoted('tensorboard')} or {quoted('mlflow')}, or choose logger=csv"
            ) from e
        self._written: list[str] = noted["stages"]  # stages sent by processes that have ended
        self._sent: list[str] = []  # stages sent by this process
        self._curves: dict[str, GrowingLog] = {}
        self._status = "failed"
        self._closed = False
        # Hyperparameters are sent once: some loggers refuse a changed value, such as resume=last.
        if not self._note.exists():
            self._logger.log_hyperparams(without_secrets(read_head(run.path)["config"]))
            self._save()
        self._catch_up()

    def fit_callback(self, stage: str) -> pl.Callback:
        self._curves[stage] = GrowingLog(self._folder / stage)
        return SendCurve(lambda: self._send_curve(stage))

    def stage_finished(self, stage: Stage) -> None:
        self._catch_up()

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._catch_up()
        self._log({f"summary/{name}": value for name, value in run_figures(summary).items()}, 0)
        self._status = "success"

    def close(self) -> None:
        """Finalize the logger. The run counts as failed unless ``finish`` was called."""
        if not self._closed:
            self._closed = True
            self._logger.finalize(self._status)
            self._written += self._sent
            self._save()

    def _catch_up(self) -> None:
        """Send each finished stage that neither this process nor an ended process has sent."""
        rounds: list[int | None] = []  # positions of the stages before; None: a stage without accuracy
        for stage in read_stages(self._folder):
            number = round_of(stage.name, rounds) if "accuracy" in stage.summary else None
            rounds.append(number)
            if stage.name in self._written or stage.name in self._sent:
                continue
            self._curves.setdefault(stage.name, GrowingLog(stage.folder))
            self._send_curve(stage.name)
            if number is not None:
                self._log({f"round/{name}": value for name, value in round_figures(stage).items()}, number)
            self._sent.append(stage.name)

    def _send_curve(self, stage: str) -> None:
        for line in self._curves[stage].read():
            values = {f"fit/{stage}/{name}": value for name, value in line.items() if name != "step"}
            self._log(values, line["step"])

    def _log(self, values: Mapping[str, Value | None], step: int) -> None:
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
        if numbers:
            self._logger.log_metrics(numbers, step=step)

    def _save(self) -> None:
        write_json(self._note, {"version": self._version, "stages": self._written})
