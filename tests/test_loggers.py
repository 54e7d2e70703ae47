"""The loggers against a run folder: their files are read back, W&B's from its offline files."""

from __future__ import annotations

import ast
import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from run_builder import Builder
from wandb_files import artifacts, history, table_of, wandb_records, wandb_summary, written_out

from mathse.config import schema as schema_settings
from mathse.config.compose import train_config
from mathse.data.images import load_image
from mathse.errors import ConfigError, RunError
from mathse.reporting.loggers import CsvLogger, RunLoggers, open_logger
from mathse.reporting.loggers.lightning import is_lightning_logger
from mathse.reporting.loggers.wandb import WandbLogger
from mathse.runs.reader import read_stages
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.runs.store import read_json, read_jsonl, write_json, write_jsonl
from mathse.scoring.answers import extract_answer, same_answer
from mathse.training.fit import TrainLog
from mathse.training.resume import ResumePoints, find_newest
from mathse.types import Problem

AFTER = {
    "base": [],
    "orm/solver": ["base"],
    "orm": ["orm/solver"],
    "distill": ["base", "orm"],
    "round_01": ["distill", "orm"],
    "round_02": ["round_01", "orm"],
    "reflection": ["round_02"],
    "final": ["reflection"],
}
UNMEASURED = {"metric": None, "stages": [], "orm": None, "orm_by_student": []}
API_KEY = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2"


def copy_stages(builder: Builder, run: RunFolder, names: list[str]) -> None:
    """The made-up run's stages as real stages of ``run``: its files, and a manifest by the stage cache."""
    for name in names:
        stage = made(run, name)
        stage.begin()
        for file in (builder.folder / name).iterdir():
            if file.is_file() and file.name != "stage.json":
                (stage.path / file.name).write_bytes(file.read_bytes())
        if name != "base":
            (stage.path / "checkpoint").mkdir()
            (stage.path / "checkpoint" / "model.safetensors").write_bytes(name.encode())
        summary = read_json(builder.folder / name / "stage.json")["summary"]
        stage.finish(read_json(stage.path / "metrics.json") if name == "orm" else summary)


def made(run: RunFolder, name: str) -> Stage:
    return run.stage(name, [], [made(run, before) for before in AFTER[name]])


def open_run(folder: Path, **config: Any) -> RunFolder:
    return RunFolder.open(folder, {}, name="demo", task="evolve", seed=3, nested=config)


# --- csv --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    made_up = Builder(tmp_path_factory.mktemp("made_up"), seed=3, size=80)
    made_up.build()
    return made_up


@pytest.fixture(scope="module")
def finished(builder, tmp_path_factory):
    """A run folder in which every stage has finished."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with open_run(folder, seed=3, backbone={"path": None}, teacher={"name": "gpt", "api_key": API_KEY}) as run:
        copy_stages(builder, run, list(AFTER))
        yield run


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as f:
        return list(csv.DictReader(f))


def test_metrics_csv_has_a_row_for_each_measured_stage_in_the_order_of_the_run(finished, builder):
    CsvLogger(run=finished).finish({})
    rows = rows_of(finished.path / "metrics.csv")
    assert [row["stage"] for row in rows] == ["base", "distill", "round_01", "round_02", "final"]
    for row, entry in zip(rows, builder.entries, strict=True):
        assert float(row["accuracy"]) == entry["accuracy"]
        assert [float(row["ci_low"]), float(row["ci_high"])] == pytest.approx(entry["ci95"])
        assert row["accepted"] == ("" if entry["accepted"] is None else str(entry["accepted"]))
    assert rows[2]["transitions_wrong_correct"] == str(builder.entries[2]["transitions"]["wrong_correct"])


def test_fits_csv_joins_the_loss_and_the_validation_of_a_step(tmp_path):
    with open_run(tmp_path / "run") as run, closing(CsvLogger(run=run)) as logger:
        stage = run.stage("distill", [])
        stage.begin()
        write_jsonl(
            stage.path / "train_log.jsonl",
            [
                {"step": 10, "loss": 0.5, "lr": 0.1},
                {"step": 20, "loss": 0.25, "lr": 0.05},
                {"step": 20, "val_loss": 0.3},
            ],
        )
        stage.finish({})
        logger.stage_finished(stage)
        assert rows_of(run.path / "fits.csv") == [
            {"stage": "distill", "step": "10", "loss": "0.5", "lr": "0.1", "val_loss": ""},
            {"stage": "distill", "step": "20", "loss": "0.25", "lr": "0.05", "val_loss": "0.3"},
        ]


def test_a_second_process_writes_the_same_tables(finished):
    CsvLogger(run=finished).finish({})
    once = [(finished.path / name).read_bytes() for name in ("metrics.csv", "fits.csv")]
    CsvLogger(run=finished).finish({})
    assert [(finished.path / name).read_bytes() for name in ("metrics.csv", "fits.csv")] == once


def test_stages_of_the_same_second_come_in_the_order_they_were_made_from_each_other(finished):
    assert [stage.name for stage in read_stages(finished.path)] == list(AFTER)


# --- Lightning loggers ------------------------------------------------------------------------------------------------


def tensorboard(run: RunFolder) -> Any:
    section = {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "save_dir": None, "name": "tensorboard",
               "version": "", "default_hp_metric": False}  # fmt: skip
    return open_logger(section, run=run, problem_of=Problem, image=load_image)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, from TensorBoard's event files."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install '.[tensorboard]'"
    )
    events = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_curves_and_the_rounds_of_the_run(builder, tmp_path):
    pytest.importorskip("tensorboard", reason="pip install '.[tensorboard]'")
    with open_run(tmp_path / "run", teacher={"name": "gpt", "api_key": API_KEY}) as run:
        copy_stages(builder, run, list(AFTER))
        with closing(tensorboard(run)) as logger:
            logger.finish(read_json(builder.folder / "summary.json"))
        with closing(tensorboard(run)) as logger:  # a second process has nothing to send but the summary
            logger.finish(read_json(builder.folder / "summary.json"))
        shown = scalars(run.path / "tensorboard")
        for stage in ("orm/solver", "distill", "final"):
            lines = [line for line in read_jsonl(run.path / stage / "train_log.jsonl") if "loss" in line]
            expected = [(line["step"], pytest.approx(line["loss"])) for line in lines]
            assert shown[f"fit/{stage}/loss"] == expected
        entries = [pytest.approx(entry["accuracy"]) for entry in builder.entries]
        assert shown["round/accuracy"] == list(zip([-1, 0, 1, 2, 3], entries, strict=True))
        orm = read_json(builder.folder / "summary.json")["orm"]["overall_accuracy"]
        assert shown["summary/orm/overall_accuracy"][0] == (0, pytest.approx(orm))
        files = [f for f in (run.path / "tensorboard").rglob("*") if f.is_file()]
        assert files and not [f for f in files if API_KEY.encode() in f.read_bytes()]


def test_a_stage_that_a_killed_process_sent_to_tensorboard_is_sent_again_at_the_same_steps(builder, tmp_path):
    pytest.importorskip("tensorboard", reason="pip install '.[tensorboard]'")
    with open_run(tmp_path / "run") as run:
        copy_stages(builder, run, ["base", "orm/solver", "orm", "distill"])
        tensorboard(run)  # never closed: as a kill leaves it
        assert read_json(run.path / "logger.json")["stages"] == []
        tensorboard(run).close()
        assert read_json(run.path / "logger.json")["stages"] == ["base", "orm/solver", "orm", "distill"]
        steps = [line["step"] for line in read_jsonl(run.path / "distill" / "train_log.jsonl") if "loss" in line]
        assert {step for step, _ in scalars(run.path / "tensorboard")["fit/distill/loss"]} == set(steps)


# --- several ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["wandb", "[csv,wandb]", "[WandB, csv]"])
def test_one_logger_beside_csv_has_the_settings_of_one_alone(chosen):
    config, _ = train_config([f"logger={chosen}", "logger.mode=offline"])
    assert isinstance(config.logger, schema_settings.WandbLogger) and config.logger.mode == "offline"


def test_several_loggers_have_a_section_each():
    config, _ = train_config(["logger=[wandb,csv,tensorboard]", "logger.loggers.wandb.project=sums"])
    assert [*config.logger.loggers] == ["wandb", "tensorboard"]
    assert config.logger.loggers["wandb"].project == "sums"
    assert is_lightning_logger(config.logger.loggers["tensorboard"])


def lightnings_csv(folder: Path) -> dict[str, Any]:
    return {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(folder), "name": "csv"}


def test_all_loggers_of_a_run_are_told_and_its_tables_are_written_whoever_else_is_chosen(builder, tmp_path):
    sections = {name: lightnings_csv(tmp_path / name) for name in ("one", "two")}
    settings = schema_settings.SeveralLoggers(loggers=sections)
    with open_run(tmp_path / "run") as run:
        copy_stages(builder, run, ["base"])
        with closing(RunLoggers.open(settings, run=run, problem_of=Problem, image=load_image)) as loggers:
            assert len(loggers.fit_callbacks("distill")) == 3
            loggers.finish(UNMEASURED)
        files = [*tmp_path.rglob("csv/**/metrics.csv"), run.path / "metrics.csv"]
        assert len(files) == 3 and all(rows_of(file) for file in files)
        assert {f.name for f in run.path.glob("logger*.json")} == {"logger.one.json", "logger.two.json"}
        loggers.say_remaining_tasks(pytest.fail)


def test_a_logger_that_cannot_be_opened_closes_those_before_it(builder, tmp_path):
    settings = schema_settings.SeveralLoggers(loggers={"csv": lightnings_csv(tmp_path), "bad": {"_target_": "no.such"}})
    with open_run(tmp_path / "run") as run:
        copy_stages(builder, run, ["base"])
        with pytest.raises(ConfigError, match="cannot be imported"):
            RunLoggers.open(settings, run=run, problem_of=Problem, image=load_image)
        assert read_json(run.path / "logger.csv.json")["stages"] == ["base"]  # as close leaves it


def test_lightnings_csv_logger_is_one_by_its_target(builder, tmp_path):
    with open_run(tmp_path / "run") as run:
        copy_stages(builder, run, ["base"])
        section = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(tmp_path), "name": "csv"}
        open_logger(section, run=run, problem_of=Problem, image=load_image).close()
        (file,) = (tmp_path / "csv").rglob("metrics.csv")
        assert float(rows_of(file)[0]["round/accuracy"]) == pytest.approx(builder.entries[0]["accuracy"])


def test_a_logger_whose_package_is_missing_is_one_sentence_with_a_remedy(builder, tmp_path):
    if find_spec("mlflow") is not None:
        pytest.skip("mlflow is installed here")
    with open_run(tmp_path / "run") as run, pytest.raises(RunError, match=r"not installed.*\[mlflow\]"):
        section = {"_target_": "pytorch_lightning.loggers.MLFlowLogger", "experiment_name": "demo"}
        open_logger(section, run=run, problem_of=Problem, image=load_image)


@pytest.mark.parametrize("option", ["tensorboard", "mlflow"])
def test_lightnings_loggers_are_options_of_the_command_line(option):
    config, _ = train_config([f"logger={option}", "name=demo"])
    assert is_lightning_logger(config.logger)


# --- wandb ------------------------------------------------------------------------------------------------------------


def wandb_logger(run: RunFolder, builder: Builder, **settings: Any) -> WandbLogger:
    problems = {p.id: p for split in builder.splits.values() for p in split}
    return WandbLogger(
        schema_settings.WandbLogger(**settings), run=run, problem_of=problems.__getitem__, image=load_image
    )


@pytest.fixture(scope="module")
def sent(finished, builder):
    """The finished run after its W&B logger has closed; its stages were sent in two processes' worth of calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", API_KEY)
        patch.delenv("WANDB_DATA_DIR", raising=False)
        with closing(wandb_logger(finished, builder, group="table3")) as logger:
            logger.finish(read_json(builder.folder / "summary.json"))
        written_out()
    return finished.path


def test_wandb_rounds_have_the_figures_of_the_stages(sent, builder):
    rows = [row for row in history(sent) if "round" in row]
    assert [row["round"] for row in rows] == [-1, 0, 1, 2, 3]
    for row, entry in zip(rows, builder.entries, strict=True):
        assert row["round/accuracy"] == entry["accuracy"]
        assert row.get("round/acceptance_precision") == entry["acceptance_precision"]
    measured = read_json(sent / "round_02" / "orm_metrics.json")
    assert rows[3]["round/orm/error_step_accuracy"] == measured["error_step_accuracy"]


def test_wandb_curves_have_every_logged_step_on_one_axis_that_never_rewinds(sent):
    rows = [row for row in history(sent) if "fit/step" in row]
    steps = [row["fit/step"] for row in rows]
    assert steps == sorted(steps)
    losses = [row["fit/step"] for row in rows if any(key.endswith("/loss") for key in row)]
    assert losses == sorted(set(losses)), "a validation stands at the step of a loss, and no loss at another's"
    for stage in ("orm/solver", "distill", "final"):
        lines = list(read_jsonl(sent / stage / "train_log.jsonl"))
        curve = [row[f"fit/{stage}/loss"] for row in rows if f"fit/{stage}/loss" in row]
        assert curve == [line["loss"] for line in lines if "loss" in line]
    all_steps = [row["_step"] for row in history(sent)]
    assert all_steps == sorted(set(all_steps))


def test_wandb_config_is_the_runs_without_its_secrets(sent):
    run = next(r.run for r in wandb_records(sent) if r.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["seed"] == 3
    assert config["teacher"] == {"name": "gpt"}
    assert (run.display_name, run.run_group, run.job_type) == ("demo-seed3", "table3", "evolve")
    assert run.run_id == read_json(sent / "wandb.json")["id"]


def test_the_api_key_is_in_no_file_of_wandb(sent):
    ours = {sent / "run.json"}  # the test's own secret setting
    files = [f for f in sent.rglob("*") if f.is_file() and f not in ours]
    assert files and [f for f in files if API_KEY.encode() in f.read_bytes()] == []


def test_wandb_tables_show_the_paths_with_image_and_verdict(sent, builder):
    problems = {p.id: p for p in (*builder.splits["seed"], *builder.splits["pool"])}
    texts = {row["id"]: row["text"] for row in read_jsonl(sent / "round_01" / "paths.jsonl")}
    verdicts = {row["path_id"]: row for row in read_jsonl(sent / "round_01" / "verdicts.jsonl")}
    rows = table_of(sent, "round_01")
    assert len(rows) == min(64, len(verdicts))
    for row in rows:
        problem, path_id = problems[row["problem"]], f"round_01/{row['problem']}/0"
        verdict = verdicts[path_id]
        assert (row["question"], row["reference"], row["path"]) == (problem.question, problem.answer, texts[path_id])
        assert row["answer right"] == same_answer(extract_answer(texts[path_id]), problem.answer)
        assert (row["verdict"], row["P(correct)"]) == (verdict["status"], verdict["score"])
        assert (row["error step"], row["critique"]) == (verdict["error_step"], verdict["error_analysis"])
        assert Image.open(row["image"]).convert("RGB").tobytes() == load_image(problem.images[0]).tobytes()


def test_wandb_has_a_table_for_each_stage_with_paths_or_answers(sent):
    logged = {key.split("/")[1] for row in history(sent) for key in row if key.startswith("samples/")}
    assert logged == {"base", "orm", "distill", "round_01", "round_02", "reflection", "final"}
    revised = {row["revised"]["text"] for row in read_jsonl(sent / "reflection" / "reflections.jsonl")}
    assert {row["path"] for row in table_of(sent, "reflection")} <= revised
    assert {row["verdict"] for row in table_of(sent, "final")} == {None}  # no judge sees answers to test problems


def test_verdicts_by_the_orm_come_from_its_checkpoint(sent):
    (last,) = [a for a in artifacts(sent, "verdicts") if "round_02" in a.aliases]
    run_id = read_json(sent / "wandb.json")["id"]
    assert json.loads(last.metadata)["made_from"] == [f"orm-{run_id}:orm", f"student-{run_id}:round_01"]


def test_a_second_process_on_a_finished_run_sends_nothing_again(sent, finished, builder):
    before, number = history(sent), len(artifacts(sent, "model"))
    with closing(wandb_logger(finished, builder)) as logger:
        logger.finish(read_json(builder.folder / "summary.json"))
    written_out()
    assert history(sent) == before
    assert len(artifacts(sent, "model")) == number


def test_a_stage_whose_sending_a_kill_may_have_cut_is_sent_again(builder, tmp_path):
    with open_run(tmp_path / "run") as run:
        copy_stages(builder, run, ["base"])
        wandb_logger(run, builder).close()
        noted = read_json(run.path / "wandb.json")
        assert (list(noted["stages"]), noted["pending"]) == (["base"], [])
        write_json(run.path / "wandb.json", {**noted, "pending": ["base"]})  # as a killed process leaves it
        copy_stages(builder, run, ["orm/solver", "orm", "distill"])
        wandb_logger(run, builder).close()
        written_out()
        rows = [row for row in history(run.path) if "round" in row]
        assert [row["round"] for row in rows] == [-1, -1, 0] and rows[0]["_step"] < rows[1]["_step"]
        assert read_json(run.path / "wandb.json")["pending"] == []


def test_a_note_of_an_earlier_version_is_read(builder, tmp_path):
    with open_run(tmp_path / "run") as run:
        copy_stages(builder, run, ["base"])
        write_json(run.path / "wandb.json", {"id": "1a2b3c4d", "fits": {}, "stages": {"base": -1}})
        wandb_logger(run, builder).close()
        written_out()
        assert not [row for row in history(run.path) if "round" in row]
        assert read_json(run.path / "wandb.json")["id"] == "1a2b3c4d"


def test_what_a_disabled_wandb_was_given_is_sent_by_a_later_process(builder, tmp_path):
    with open_run(tmp_path / "run") as run:
        copy_stages(builder, run, ["base"])
        with closing(wandb_logger(run, builder, mode="disabled")) as logger:
            logger.finish(UNMEASURED)
        assert not list(run.path.glob("wandb/*"))
        wandb_logger(run, builder).close()
        written_out()
        assert [row["round"] for row in history(run.path)] == [-1]


def test_loading_the_loggers_does_not_load_wandb(root):
    for file in (root / "mathse" / "reporting" / "loggers").glob("*.py"):
        tree = ast.parse(file.read_text())
        names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
        assert "wandb" not in names, file.name


# --- wandb, killed and resumed: this file is also the script that dies ------------------------------------------------


class Toy(pl.LightningModule):
    """One weight that halves the loss again and again; its log depends only on the step."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return (self.w**2).sum()

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self.w.item() ** 2, batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Die(pl.Callback):
    """SIGKILL at a step; ``settled``: once W&B has its last row on the disk, so that nothing may be missing later."""

    def __init__(self, run: Path, step: int, settled: bool) -> None:
        self.run, self.step, self.settled = run, step, settled

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            last = self.step // 10 * 10
            while self.settled and last not in [row.get("fit/step") for row in history(self.run)]:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)


def toy_run(folder: Path, die_at: int, settled: bool) -> None:
    """base, then a stage with a fit of 60 steps that is resumable as mathse.training.fit's are."""
    with open_run(folder) as run:
        unused = SimpleNamespace(problem_of=Problem, image=load_image)
        with closing(
            WandbLogger(schema_settings.WandbLogger(), run=run, problem_of=unused.problem_of, image=unused.image)
        ) as logger:
            base = run.stage("base", [])
            if not base.done:
                base.begin()
                base.finish({"stage": "base", "accuracy": 0.1, "ci95": [0.0, 0.2]})
                logger.stage_finished(base)
            stage = run.stage("distill", [], [base])
            stage.begin()
            toy_fit(stage.path, [logger.fit_callback("distill"), Die(folder, die_at, settled)])
            stage.finish({"stage": "distill", "accuracy": 0.5, "ci95": [0.4, 0.6]})
            logger.stage_finished(stage)
            logger.finish(UNMEASURED | {"metric": 0.5})


def toy_fit(folder: Path, callbacks: list[pl.Callback]) -> None:
    scratch = folder / "fit"
    scratch.mkdir(exist_ok=True)
    start = find_newest(scratch, print)
    log = TrainLog(folder / "train_log.jsonl", start.step if start else 0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=60,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=15,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[log, ResumePoints(scratch, 20, None, 15, start), *callbacks],
    )
    data = torch.utils.data.DataLoader(torch.zeros(1000, 1))
    trainer.fit(Toy(), data, torch.utils.data.DataLoader(torch.zeros(1, 1)))
    log.close()


def script(folder: Path, die_at: int = -1, settled: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, str(folder), str(die_at), str(int(settled))]
    # A child would share this process's W&B service and its login.
    clean = {name: v for name, v in os.environ.items() if name not in ("WANDB_SERVICE", "WANDB_API_KEY")}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=clean | env)


@pytest.mark.slow
def test_wandb_without_a_login_is_one_sentence_with_a_remedy(tmp_path):
    done = script(tmp_path / "run", WANDB_MODE="online", NETRC=str(tmp_path / "none"), HOME=str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mathse.errors.RunError: logger=wandb: W&B cannot start:")
    assert "logger.mode=offline" in last


@pytest.mark.slow
def test_a_run_killed_twice_is_one_wandb_run_whose_curve_has_every_step_once(tmp_path):
    folder = tmp_path / "run"
    ids = []
    # The second process dies before it gets beyond what the first process sent: the third must still know of it.
    for die_at, settled, code in ((33, True, -signal.SIGKILL), (27, False, -signal.SIGKILL), (-1, False, 0)):
        done = script(folder, die_at, settled)
        assert done.returncode == code, done.stderr
        ids.append(read_json(folder / "wandb.json")["id"])
    assert len(set(ids)) == 1
    parts = sorted(p for p in folder.glob("wandb/offline-run-*") if p.name.endswith(ids[0]))
    assert len(parts) == 3
    rows = history(folder)
    assert [r["fit/step"] for r in rows if "fit/distill/loss" in r] == [1, 10, 20, 30, 40, 50, 60]
    assert [r["fit/step"] for r in rows if "fit/distill/val_loss" in r] == [15, 30, 45, 60]
    assert [r["fit/step"] for r in rows if "fit/step" in r] == sorted(r["fit/step"] for r in rows if "fit/step" in r)
    stages = [{k: v for k, v in r.items() if not k.startswith("_")} for r in rows if "round" in r]
    # base was sent by each process, since only the last one's W&B run ended; the copies say the same.
    assert [stage["round"] for stage in stages] == [-1, -1, -1, 0] and stages[0] == stages[1] == stages[2]
    assert (read_json(folder / "wandb.json")["pending"], read_json(folder / "wandb.json")["resent"]) == ([], 2)
    all_steps = [r["_step"] for r in rows]
    assert all_steps == sorted(set(all_steps))
    assert wandb_summary(folder)["distill/accuracy"] == 0.5


if __name__ == "__main__":
    toy_run(Path(sys.argv[1]), int(sys.argv[2]), bool(int(sys.argv[3])))
