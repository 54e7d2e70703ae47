"""Any ``pytorch_lightning.loggers.Logger`` as a run's logger: TensorBoard, MLflow, Comet, Neptune, one's own.

    python train.py logger=tensorboard                # then: tensorboard --logdir outputs
    python train.py logger=mlflow
    python train.py logger=tensorboard logger._target_=my_package.MyLogger

=====================  ==============================================================================================
``fit/<stage>/...``    the lines of each fit's train_log.jsonl, over its optimiser steps
``round/...``          accuracy, acceptance, the ORM on this student, over rounds: base -1, distill 0, round_01 1, ...
``summary/...``        the numbers of summary.json by the names of ``mathse/reporting/loggers/figures.py``
hyperparameters        the run's settings, without secrets
=====================  ==============================================================================================

Such a logger writes when it likes, without a report; when it is finalized, all is written. ``logger.json`` in the run
folder notes the stages that were sent by then. After a kill the next process sends the others again from their first
step: a point sent twice stands at the same step with the same value.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from mathse.config.extras import quote_extra
from mathse.config.secrets import remove_secrets
from mathse.config.trust import locate
from mathse.errors import RunError
from mathse.reporting.loggers.curve import SendCurve
from mathse.reporting.loggers.figures import Value, round_figures, round_of, run_figures
from mathse.runs.reader import GrowingLog, read_head, read_stages
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.runs.store import read_json, write_json

NOTE = "logger.json"


def is_lightnings(section: Any) -> bool:
    """Whether a section of the config names a logger of Lightning's kind."""
    if not isinstance(section, Mapping):  # our own options are dataclasses
        return False
    target = locate(section["_target_"], "logger")
    return isinstance(target, type) and issubclass(target, Logger)


class LightningLogger:
    """``section``: the ``_target_`` of a Lightning logger and its arguments. Where it takes a ``save_dir`` and the
    section has none, that is the run folder; where it takes a ``run_id`` (MLflow), a resumed run goes on with its own.

    ``note``: the file of the run folder that says what was sent. Raises RunError where the logger's own package is
    not installed.
    """

    def __init__(self, section: Mapping[str, Any], *, run: RunFolder, note: str = NOTE) -> None:
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
                f"{quote_extra('tensorboard')} or {quote_extra('mlflow')}, or choose logger=csv"
            ) from e
        self._written: list[str] = noted["stages"]  # by processes that ended
        self._sent: list[str] = []  # by this one
        self._curves: dict[str, GrowingLog] = {}
        self._status = "failed"
        self._closed = False
        if not self._note.exists():  # a second time some of them refuse what has changed, such as resume=last
            self._logger.log_hyperparams(remove_secrets(read_head(run.path)["config"]))
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
        """Have it write what it holds; the run counts as failed unless ``finish`` was called."""
        if not self._closed:
            self._closed = True
            self._logger.finalize(self._status)
            self._written += self._sent
            self._save()

    def _catch_up(self) -> None:
        """Send each finished stage that no process that ended has sent, and this one neither."""
        rounds: list[int | None] = []  # of the stages before, None where one was not measured
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
