"""``logger=wandb``: one Weights & Biases run for the whole evolution, however many processes make it.

=====================  ==============================================================================================
``fit/<stage>/...``    loss, lr and validation of each fit, over ``fit/step``: optimiser steps of the run, never back
``round/...``          accuracy, acceptance, the ORM on this student, over ``round``: base -1, distill 0, round_01 1..
``samples/<stage>``    a table of paths with image, verdict and critique
``<stage>/...``        in the run's summary: the figures of each stage; also ``orm/...`` and ``metric``
artifacts              ``d_sft-<id>``, ``student-<id>``, ``orm-<id>``, with the stage as alias
=====================  ==============================================================================================

Offline runs need neither account nor network; ``wandb sync RUN/wandb/offline-run-*`` sends them later, all parts of a
resumed run together. When the process is killed, W&B drops what it has not written yet: a tenth of a second here. So a
curve may lose its last points, never shows one twice; figures in the summary are set anew by the next process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl

from mathse.errors import RunError
from mathse.ledger import RUN, RunFolder, Stage
from mathse.loggers.finished import Curve, FinishedStage, Value, figures, finished_stages
from mathse.loggers.samples import Loader, picture, samples
from mathse.loggers.sent import Sent
from mathse.store import read_json
from mathse.types import Problem, Verdict

Mode = Literal["online", "offline", "disabled"] | None

SECRET = ("key", "token", "secret", "password")  # endings of settings that W&B is not told
TABLE_ROWS = 64
COLUMNS = [
    "problem",
    "image",
    "question",
    "reference",
    "path",
    "answer right",
    "verdict",
    "P(correct)",
    "error step",
    "critique",
]
UPLOAD_BYTES = 100_000_000  # a checkpoint above this size is noted where it lies, not uploaded
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
    "x_transaction_log_flush_interval": 0.1,  # seconds; by default a kill loses fifteen seconds
}


class WandbLogger:
    """``problem_of``: the problem with an id. ``image``: the picture behind a problem's image reference.

    ``mode``: online, offline or disabled; None leaves it to the WANDB_MODE variable. Raises RunError where W&B cannot
    start, as without a login.
    """

    def __init__(
        self,
        project: str = "mathse",
        group: str | None = None,
        mode: Mode = None,
        *,
        run: RunFolder,
        problem_of: Callable[[str], Problem],
        image: Loader,
    ) -> None:
        self._folder, self._problem_of, self._image = run.path, problem_of, image
        self._sent = Sent.open(run.path)
        self._run = start(run.path, self._sent.id, project=project, group=group, mode=mode)
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
        curve = Curve(self._folder / stage)
        return SendCurve(lambda: self._send_curve(stage, curve))

    def stage_finished(self, stage: Stage) -> None:
        self._catch_up()

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._catch_up()
        if isinstance(summary.get("metric"), (int, float)):
            self._run.summary["metric"] = summary["metric"]
        self._ended_well = True

    def close(self) -> None:
        """Hand over what is left and wait for W&B; the run counts as failed unless ``finish`` was called."""
        if not self._closed:
            self._closed = True
            self._sent.save()
            self._run.finish(exit_code=0 if self._ended_well else 1)

    def _catch_up(self) -> None:
        """Send each finished stage that was not sent yet: the one just made, and what a kill or a branch left over."""
        if self._run.disabled:
            return
        for stage in finished_stages(self._folder):
            self._run.summary.update({f"{stage.name}/{k}": v for k, v in stage_figures(stage).items()})
            if stage.name not in self._sent.stages:
                with staged_in(self._folder / "wandb"):
                    self._send(stage)

    def _send(self, stage: FinishedStage) -> None:
        self._send_curve(stage.name, Curve(stage.path))
        self._send_files(stage)
        row: dict[str, Any] = {}
        place = self._sent.round_of(stage.name) if "accuracy" in stage.summary else None
        if place is not None:
            numbers = {k: v for k, v in stage_figures(stage).items() if not isinstance(v, str)}
            row = {"round": place, **{f"round/{k}": v for k, v in numbers.items()}}
        if table := self._table(stage.path):
            row[f"samples/{stage.name}"] = table
        if row:
            self._log(row)
        self._sent.stages[stage.name] = place
        self._sent.save()

    def _send_curve(self, stage: str, curve: Curve) -> None:
        for line in curve.read():
            fit = self._sent.fit(stage)
            if fit.is_new(line):
                values = {f"fit/{stage}/{k}": v for k, v in line.items() if k != "step" and v is not None}
                self._log({"fit/step": fit.offset + line["step"], **values})

    def _send_files(self, stage: FinishedStage) -> None:
        if stage.name.startswith("orm/"):
            return  # weak students and the solver are only steps on the way to the ORM
        self._artifact("d_sft", "dataset", stage, stage.path / "train.jsonl")
        self._artifact("orm" if stage.name == "orm" else "student", "model", stage, stage.path / "checkpoint")

    def _artifact(self, name: str, kind: str, stage: FinishedStage, path: Path) -> None:
        import wandb

        root = path if path.is_dir() else path.parent
        files = [file for file in sorted(path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        if not size:
            return
        metadata = {"stage": stage.name, "identity": stage.identity}
        artifact = wandb.Artifact(f"{name}-{self._sent.id}", type=kind, metadata=metadata)
        if size > UPLOAD_BYTES:
            artifact.add_reference(path.resolve().as_uri(), checksum=False)  # the hashes are in stage.json
        else:
            for file in files:  # immutable: a finished stage stays as it is, so W&B needs no copy
                name_inside = file.relative_to(root).as_posix()
                artifact.add_file(str(file.resolve()), name_inside, skip_cache=True, policy="immutable")
        self._run.log_artifact(artifact, aliases=[stage.name.replace("/", "-")])

    def _table(self, stage: Path) -> Any:
        """The stage's samples as a W&B table; None where it has none."""
        import wandb

        rows = []
        for sample in samples(stage, TABLE_ROWS):
            problem = self._problem_of(sample.problem_id)
            seen = picture(problem, self._image)
            shown = wandb.Image(seen, file_type="png") if seen else None
            rows.append(
                [
                    problem.id,
                    shown,
                    problem.question,
                    problem.answer,
                    sample.text,
                    sample.answer_right(problem),
                    *_said(sample.verdict),
                ]
            )
        return wandb.Table(columns=COLUMNS, data=rows) if rows else None

    def _log(self, row: Mapping[str, Any]) -> None:
        self._run.log(dict(row), step=max(self._run.step, self._first_step), commit=True)


class SendCurve(pl.Callback):
    """Sends what the fit's train_log.jsonl has gained, after each step and each validation."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self._send()

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self._send()


def start(folder: Path, run_id: str, *, project: str, group: str | None, mode: Mode) -> Any:
    """The W&B run of a run folder, begun or taken up again. Raises RunError where W&B refuses."""
    import wandb

    described = read_json(folder / RUN)
    known = wandb.Settings.model_fields  # the x_ settings come and go with W&B's versions
    settings = {name: value for name, value in SETTINGS.items() if name in known}
    try:
        return wandb.init(
            id=run_id,
            resume="allow",
            project=project,
            group=group,
            mode=mode,
            dir=str(folder),
            name=f"{described['name']}-seed{described['seed']}",
            job_type=described["task"],
            config=without_secrets(described["config"]),
            settings=wandb.Settings(**settings),
        )
    except wandb.Error as e:
        remedy = "run `wandb login` first, or choose logger.mode=offline, or logger=csv"
        raise RunError(f"logger=wandb: W&B cannot start: {' '.join(str(e).split())}; {remedy}") from e


def without_secrets(config: Any) -> Any:
    """``config`` without the settings, at any depth, whose names say that they hold a secret."""
    if isinstance(config, Mapping):
        return {k: without_secrets(v) for k, v in config.items() if not str(k).lower().endswith(SECRET)}
    return [without_secrets(v) for v in config] if isinstance(config, list) else config


def stage_figures(stage: FinishedStage) -> dict[str, Value]:
    """The figures of a stage's summary, and below ``orm/`` those of the ORM on this stage's student."""
    judged = stage.path / "orm_metrics.json"
    of_orm = figures(read_json(judged)) if judged.exists() else {}
    return figures(stage.summary) | {f"orm/{k}": v for k, v in of_orm.items()}


def _said(verdict: Verdict | None) -> list[Any]:
    """The last four of COLUMNS."""
    v = verdict
    return [None] * 4 if v is None else [v.status, v.score, v.error_step, v.error_analysis]


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
