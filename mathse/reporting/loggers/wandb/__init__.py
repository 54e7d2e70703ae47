"""``logger=wandb``: a single Weights & Biases run for the whole evolution, over all processes that make it.

=====================  ==============================================================================================
``fit/<stage>/...``    each training's train_log.jsonl, over ``fit/step``: optimiser steps of the run, rising
``round/...``          accuracy, acceptance, the ORM on this student, over ``round``: base -1, distill 0, round_01 1..
``samples/<stage>``    a table of at most ``sample_table.MAX_ROWS`` paths with image, verdict and critique
summary                the figures of summary.json under stable names: ``mathse/reporting/loggers/figures.py``
artifacts              training sets, verdicts, checkpoints (by reference): ``mathse/reporting/loggers/wandb/artifacts.py``
group, job type        the study and the variant of a study's run; else ``logger.group`` and the task
=====================  ==============================================================================================

Offline runs need neither account nor network; ``wandb sync RUN/wandb/offline-run-*`` sends them later, all parts of a
resumed run together. When the process is killed, W&B drops the records that it has not written: a tenth of a second
here. A curve may therefore lose its last points, and never shows a point twice. A stage's table, figures and artifacts
count as sent once W&B's run has ended; after a kill they are sent again (``sent.py``). The next process sets the summary
again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mathse.config.schema import WandbLogger as Settings
from mathse.config.secrets import without_secrets
from mathse.errors import RunError
from mathse.reporting.loggers.wandb.artifacts import StageArtifact, artifacts
from mathse.reporting.loggers import Loader
from mathse.reporting.loggers.curve import SendCurve
from mathse.reporting.loggers.figures import round_figures, round_of, run_figures, stage_figures
from mathse.reporting.loggers.wandb.sample_table import sample_table
from mathse.reporting.loggers.wandb.sent import Sent
from mathse.runs.reader import FinishedStage, GrowingLog, read_head, read_stages
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.types import Problem

CLIENT_SETTINGS = {
    "silent": True,
    "console": "off",
    "reinit": "create_new",  # the default would continue a W&B run that a notebook has open
    "disable_git": True,  # commit, versions and command are in stage.json and the run folder
    "disable_code": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_meta": True,  # the command line may hold a secret
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 0.1,  # seconds until W&B writes a record; its default is fifteen
}


class WandbLogger:
    """Sends a run's figures, samples and artifacts to Weights & Biases.

    Args:
        settings: project, entity, mode and group.
        run: the run folder.
        problem_of: returns the problem with an id.
        image: returns the picture behind a problem's image reference.

    Raises RunError if W&B cannot start, for example without a login.
    """

    def __init__(
        self, settings: Settings, *, run: RunFolder, problem_of: Callable[[str], Problem], image: Loader
    ) -> None:
        self._folder, self._problem_of, self._image = run.path, problem_of, image
        self._sent = Sent.open(run.path)
        self._run = start(run.path, self._sent.id, settings)
        # W&B joins the offline parts of a run by its step, so no two parts may share a step.
        self._first_step = self._sent.most_rows
        self._ended_well = self._closed = False
        self._run.define_metric("fit/step", hidden=True)
        self._run.define_metric("fit/*", step_metric="fit/step")
        self._run.define_metric("round", hidden=True)
        self._run.define_metric("round/*", step_metric="round")
        self._catch_up()

    def fit_callback(self, stage: str) -> pl.Callback:
        if self._run.disabled:
            return pl.Callback()
        self._sent.fit(stage)
        self._sent.save()
        curve = GrowingLog(self._folder / stage)
        return SendCurve(lambda: self._send_curve(stage, curve))

    def stage_finished(self, stage: Stage) -> None:
        self._catch_up()

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._catch_up()
        self._run.summary.update(run_figures(summary))
        self._ended_well = True

    def close(self) -> None:
        """Send the rest and wait for W&B. The run counts as failed unless ``finish`` was called."""
        if not self._closed:
            self._closed = True
            self._sent.save()
            self._run.finish(exit_code=0 if self._ended_well else 1)
            self._sent.confirm_all()

    def left_to_do(self) -> str | None:
        """Return the command that sends an offline run; None for an online run."""
        if not self._run.offline or self._run.disabled:
            return None
        return f"W&B was offline; to send this run: wandb sync {shlex.quote(str(self._folder / 'wandb'))}/offline-run-*"

    def _catch_up(self) -> None:
        """Send each finished stage that was not sent: the newest stage, and stages left over by a kill or a branch."""
        if self._run.disabled:
            return
        stages = read_stages(self._folder)
        for stage in stages:
            self._run.summary.update({f"{stage.name}/{k}": v for k, v in stage_figures(stage).items()})
            if stage.name not in self._sent.stages:
                with keep_uploads_in(self._folder / "wandb"):
                    self._send(stage, stages)

    def _send(self, stage: FinishedStage, stages: Sequence[FinishedStage]) -> None:
        self._send_curve(stage.name, GrowingLog(stage.folder))
        for artifact in artifacts(stage, stages):
            self._send_artifact(artifact, stage)
        row: dict[str, Any] = {}
        number = round_of(stage.name, self._sent.stages.values()) if "accuracy" in stage.summary else None
        if number is not None:
            row = {"round": number, **{f"round/{k}": v for k, v in round_figures(stage).items()}}
        if table := sample_table(stage, self._problem_of, self._image):
            row[f"samples/{stage.name}"] = table
        if row:
            self._log(row)
        self._sent.add(stage.name, number)

    def _send_curve(self, stage: str, curve: GrowingLog) -> None:
        for line in curve.read():
            fit = self._sent.fit(stage)
            if fit.is_new(line):
                values = {f"fit/{stage}/{k}": v for k, v in line.items() if k != "step" and v is not None}
                self._log({"fit/step": fit.offset + line["step"], **values})

    def _send_artifact(self, to_send: StageArtifact, stage: FinishedStage) -> None:
        import wandb

        name, _, alias = to_send.version.reference(self._sent.id).partition(":")
        metadata: dict[str, Any] = {
            "stage": stage.name,
            "identity": stage.identity,
            "made_from": [version.reference(self._sent.id) for version in to_send.made_from],
        }
        if to_send.by_reference:
            names = [file.relative_to(stage.folder).as_posix() for file in to_send.files]
            metadata["sha256"] = {file: stage.sha256[file] for file in names if file in stage.sha256}
        artifact = wandb.Artifact(name, type=to_send.kind, metadata=metadata)
        # Files of a finished stage never change: an upload needs no copy, and a reference needs no checksum.
        for file in to_send.files:
            inside = file.relative_to(to_send.root).as_posix()
            if to_send.by_reference:
                artifact.add_reference(file.resolve().as_uri(), inside, checksum=False)
            else:
                artifact.add_file(str(file.resolve()), inside, skip_cache=True, policy="immutable")
        # The run makes the artifact, and its next stages use it. W&B's ``use_artifact`` does not work offline;
        # ``_log_artifact`` with ``use_after_commit`` does, and a later sync links both. Versions of W&B without this
        # method link the artifact as output only.
        if hasattr(self._run, "_log_artifact"):
            self._run._log_artifact(artifact, aliases=[alias], use_after_commit=True)
        else:
            self._run.log_artifact(artifact, aliases=[alias])

    def _log(self, row: Mapping[str, Any]) -> None:
        self._run.log(dict(row), step=max(self._run.step, self._first_step), commit=True)


def start(folder: Path, run_id: str, settings: Settings) -> Any:
    """Start or continue the W&B run of a run folder. Raises RunError if W&B refuses."""
    import wandb

    known = wandb.Settings.model_fields  # the x_ settings differ between versions of W&B
    options = {name: value for name, value in CLIENT_SETTINGS.items() if name in known}
    try:
        return wandb.init(
            id=run_id,
            resume="allow",
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            dir=str(folder),
            settings=wandb.Settings(**options),
            **run_labels(read_head(folder), settings.group),
        )
    except wandb.Error as e:
        remedy = "run `wandb login` first, or choose logger.mode=offline, or logger=csv"
        raise RunError(f"logger=wandb: W&B cannot start: {' '.join(str(e).split())}; {remedy}") from e


def run_labels(run: Mapping[str, Any], group: str | None) -> dict[str, Any]:
    """Return name, group, tags and config for W&B, from run.json. A group has a study's runs, a job type a variant's."""
    study, variant = (run["config"].get(key) for key in ("study", "variant"))
    name = f"{study}.{variant}" if study else run["name"]
    return {
        "name": f"{name}-seed{run['seed']}",
        "group": group or study,
        "job_type": variant or run["task"],
        "tags": [run["task"]],
        "config": without_secrets(run["config"]),
    }


@contextmanager
def keep_uploads_in(folder: Path) -> Iterator[None]:
    """Let W&B keep the files of pending uploads in ``folder`` and not in the user's home.

    The run folder of an offline run is then complete. W&B reads only WANDB_DATA_DIR for this; a value that the user has
    set stays.
    """
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]
