"""``logger=wandb``: one Weights & Biases run for the whole evolution, however many processes make it.

=====================  ==============================================================================================
``fit/<stage>/...``    each fit's train_log.jsonl, over ``fit/step``: optimiser steps of the run, never back
``round/...``          accuracy, acceptance, the ORM on this student, over ``round``: base -1, distill 0, round_01 1..
``samples/<stage>``    a table of paths with image, verdict and critique, of at most ``sample_table.ROWS`` rows
summary                the figures of summary.json by names that stay the same: ``mathse/reporting/loggers/figures.py``
artifacts              training sets, verdicts, checkpoints (by reference): ``mathse/reporting/loggers/wandb/artifacts.py``
group, job type        of a study's run: the study and the variant; else ``logger.group`` and the task
=====================  ==============================================================================================

Offline runs need neither account nor network; ``wandb sync RUN/wandb/offline-run-*`` sends them later, all parts of a
resumed run together. When the process is killed, W&B drops what it has not written yet: a tenth of a second here. So a
curve may lose its last points, never shows one twice; a stage's table, figures and artifacts count as sent only once
W&B's run has ended, so after a kill they are sent again (``sent.py``); the summary is set anew by the next process.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mathse.config.schema import WandbLoggerConfig
from mathse.config.secrets import remove_secrets
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

FLUSH = 0.1  # seconds until W&B has written what it was given; its default is fifteen
SETTINGS = {
    "silent": True,
    "console": "off",
    "reinit": "create_new",  # the default would take up whatever W&B run a notebook has open
    "disable_git": True,  # commit, versions and command are in stage.json and the run folder
    "disable_code": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_meta": True,  # the command line may hold a secret
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": FLUSH,
}


class WandbLogger:
    """``problem_of``: the problem with an id. ``image``: the picture behind a problem's image reference.

    Raises RunError where W&B cannot start, as without a login.
    """

    def __init__(
        self, settings: WandbLoggerConfig, *, run: RunFolder, problem_of: Callable[[str], Problem], image: Loader
    ) -> None:
        self._folder, self._problem_of, self._image = run.path, problem_of, image
        self._sent = Sent.open(run.path)
        self._run = start(run.path, self._sent.id, settings)
        # Parts of one run that were made offline are put together by W&B's own step, so they must not share any.
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
        """Hand over what is left and wait for W&B; the run counts as failed unless ``finish`` was called."""
        if not self._closed:
            self._closed = True
            self._sent.save()
            self._run.finish(exit_code=0 if self._ended_well else 1)
            self._sent.ended()

    def left_to_do(self) -> str | None:
        """How an offline run is sent; None where nothing is left."""
        if not self._run.offline or self._run.disabled:
            return None
        return f"W&B was offline; to send this run: wandb sync {shlex.quote(str(self._folder / 'wandb'))}/offline-run-*"

    def _catch_up(self) -> None:
        """Send each finished stage that was not sent yet: the one just made, and what a kill or a branch left over."""
        if self._run.disabled:
            return
        stages = read_stages(self._folder)
        for stage in stages:
            self._run.summary.update({f"{stage.name}/{k}": v for k, v in stage_figures(stage).items()})
            if stage.name not in self._sent.stages:
                with staged_in(self._folder / "wandb"):
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

    def _send_artifact(self, made: StageArtifact, stage: FinishedStage) -> None:
        import wandb

        name, _, alias = made.version.called(self._sent.id).partition(":")
        metadata: dict[str, Any] = {
            "stage": stage.name,
            "identity": stage.identity,
            "made_from": [version.called(self._sent.id) for version in made.made_from],
        }
        if made.by_reference:
            below = [file.relative_to(stage.folder).as_posix() for file in made.files]
            metadata["sha256"] = {file: stage.sha256[file] for file in below if file in stage.sha256}
        artifact = wandb.Artifact(name, type=made.kind, metadata=metadata)
        for file in made.files:  # a finished stage stays as it is: what is uploaded needs no copy, a reference no hash
            inside = file.relative_to(made.root).as_posix()
            if made.by_reference:
                artifact.add_reference(file.resolve().as_uri(), inside, checksum=False)
            else:
                artifact.add_file(str(file.resolve()), inside, skip_cache=True, policy="immutable")
        # Logged as what the run made and, since its next steps read it, as what the run used. W&B's own
        # ``use_artifact`` refuses to work offline; what it consists of is written to an offline run as well, and a sync
        # then links the two. Versions of W&B without it link what was made only.
        if hasattr(self._run, "_log_artifact"):
            self._run._log_artifact(artifact, aliases=[alias], use_after_commit=True)
        else:
            self._run.log_artifact(artifact, aliases=[alias])

    def _log(self, row: Mapping[str, Any]) -> None:
        self._run.log(dict(row), step=max(self._run.step, self._first_step), commit=True)


def start(folder: Path, run_id: str, settings: WandbLoggerConfig) -> Any:
    """The W&B run of a run folder, begun or taken up again. Raises RunError where W&B refuses."""
    import wandb

    known = wandb.Settings.model_fields  # the x_ settings come and go with W&B's versions
    of_wandb = {name: value for name, value in SETTINGS.items() if name in known}
    try:
        return wandb.init(
            id=run_id,
            resume="allow",
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            dir=str(folder),
            settings=wandb.Settings(**of_wandb),
            **described(read_head(folder), settings.group),
        )
    except wandb.Error as e:
        remedy = "run `wandb login` first, or choose logger.mode=offline, or logger=csv"
        raise RunError(f"logger=wandb: W&B cannot start: {' '.join(str(e).split())}; {remedy}") from e


def described(run: Mapping[str, Any], group: str | None) -> dict[str, Any]:
    """How W&B shows and sorts the run of a run.json: a study's runs stand together, and in it those of a variant."""
    study, variant = (run["config"].get(key) for key in ("study", "variant"))
    name = f"{study}.{variant}" if study else run["name"]
    return {
        "name": f"{name}-seed{run['seed']}",
        "group": group or study,
        "job_type": variant or run["task"],
        "tags": [run["task"]],
        "config": remove_secrets(run["config"]),
    }


@contextmanager
def staged_in(folder: Path) -> Iterator[None]:
    """Within the block, W&B puts aside what it has yet to upload in ``folder``, not in the user's home: an offline run
    is then whole in its run folder. WANDB_DATA_DIR is its only switch for that; a value of the user's own stays."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]
