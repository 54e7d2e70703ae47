"""One fit: what a step does, and that a fit cut short and gone on with ends in the same bytes."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from small import log_of, problems, solved_rows, tiny_backbone
from torch import Tensor

from mathse.config import build
from mathse.config.data import SyntheticData
from mathse.config.fits import ORM, Fit, Optimizer
from mathse.config.schema import Trainer
from mathse.data.synthetic.critique import corrupt
from mathse.data.synthetic.problems import facts
from mathse.errors import MathSEError
from mathse.judges.orm import status_tokens
from mathse.judges.orm_rows import training_row
from mathse.models import load
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone
from mathse.runs.layout import SCRATCH
from mathse.training.batches import EpochStream, MixedStream
from mathse.training.fit import FitJob, fit
from mathse.training.sft import SFTModule

STEPS = 6
TRAINER = Trainer(precision="32-true", checkpoint_every=2, log_every=1)
SETTINGS = Fit(max_steps=STEPS, batch_size=4, micro_batch_size=3, val_every=3, optimizer=Optimizer(lr=5e-3))


def job(folder: Path, rows: Sequence[Row], settings: Fit = SETTINGS, **changes: Any) -> FitJob:
    return FitJob(folder, rows, seed=0, settings=settings, **{"trainer": TRAINER, **changes})


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def start_weights(tmp_path: Path) -> dict[str, Tensor]:
    """The weights that a fit begins with, under their names on disk."""
    tiny_backbone().save(tmp_path / "start" / "checkpoint")
    return weights(tmp_path / "start")


def same_files(one: Path, other: Path) -> bool:
    """Whether two fits left the same weights, to the byte, and the same log, but for what the clock measured."""
    weights = ((folder / "checkpoint/model.safetensors").read_bytes() for folder in (one, other))
    return len(set(weights)) == 1 and log_of(one) == log_of(other)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log_of(folder) if "loss" in line]


def mean_loss(backbone: TinyBackbone, rows: Sequence[Row]) -> float:
    """Cross-entropy per response token of these rows together."""
    logits, targets = backbone.answer_logits(backbone.collate(rows))
    return torch.nn.functional.cross_entropy(logits, targets).item()


class Stopped(Exception):
    """A kill, as far as one can be played inside a process."""


class StopAt(pl.Callback):
    """Stops the fit in ``hook`` once it has made ``step`` steps."""

    def __init__(self, step: int, hook: str) -> None:
        self.step = step
        setattr(self, hook, self._stop)

    def _stop(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.step:
            raise Stopped


def fit_until(job: FitJob, step: int, hook: str = "on_train_batch_end") -> None:
    with pytest.raises(Stopped):
        fit(tiny_backbone(), job, [StopAt(step, hook)])


@pytest.fixture
def rows() -> Iterator[list[Row]]:
    yield solved_rows(tiny_backbone(), 20)


# --- learning -------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_checkpoint_holds_what_was_learnt(tmp_path: Path, rows: list[Row]) -> None:
    backbone = tiny_backbone()
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    settings = replace(SETTINGS, max_steps=30, micro_batch_size=4)
    folder = fit(backbone, job(tmp_path, rows, settings))
    curve = losses(tmp_path)
    assert len(curve) == 30 and curve[-1] < 0.6 * curve[0]
    assert math.isclose(curve[0], math.log(len(backbone.tokenizer)), rel_tol=0.1), "at first a guess"
    after = load("tiny", folder).model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in backbone.model.state_dict().items())
    assert not any(torch.equal(v, after[k]) for k, v in before.items() if v.ndim == 2)


def test_a_finished_fit_is_not_made_again(tmp_path: Path, rows: list[Row]) -> None:
    folder = fit(tiny_backbone(), job(tmp_path, rows))
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert fit(tiny_backbone(), job(tmp_path, rows), [StopAt(0, "on_fit_start")]) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_fit_on_a_machine_with_srun_says_nothing_about_it(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=os.pathsep)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit(tiny_backbone(), job(tmp_path / "fit", rows, replace(SETTINGS, max_steps=1)))
    assert not [w for w in seen if "srun" in str(w.message)]


def test_without_a_row_there_is_nothing_to_fit(tmp_path: Path) -> None:
    with pytest.raises(MathSEError, match="no row"):
        fit(tiny_backbone(), job(tmp_path, []))


def test_the_model_trains_in_train_mode_and_leaves_the_fit_in_eval_mode(tmp_path: Path, rows: list[Row]) -> None:
    backbone, modes = tiny_backbone(), {True: [], False: []}  # type: ignore[var-annotated]

    class Modes(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            modes[True] += [m.training for m in module.backbone.model.modules()]

        def on_validation_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            modes[False] += [m.training for m in module.backbone.model.modules()]

    backbone.model.eval()
    fit(backbone, job(tmp_path, rows, val_rows=rows[:4]), [Modes()])
    assert set(modes[True]) == {True} and set(modes[False]) == {False}
    assert not any(m.training for m in backbone.model.modules())


def test_the_number_of_steps_is_given_or_follows_from_the_epochs(tmp_path: Path, rows: list[Row]) -> None:
    for epochs, steps in ((1.0, 5), (0.5, 2), (0.01, 1)):  # 20 rows in batches of 4
        assert job(tmp_path, rows, replace(SETTINGS, max_steps=None, epochs=epochs)).steps == steps
    fit(tiny_backbone(), job(tmp_path, rows, replace(SETTINGS, max_steps=None, epochs=0.5)))
    assert len(losses(tmp_path)) == 2


# --- one step -------------------------------------------------------------------------------------------------------


def test_ragged_micro_batches_make_the_gradient_step_of_one_batch(tmp_path: Path) -> None:
    """With a large eps and lr AdamW's step is the gradient itself, so weights are compared as gradients."""
    rows = [Row(question="q " * (1 + 5 * i), images=(), response="7 + 5 = 12. " * (1 + i * i)) for i in range(8)]
    optimizer = Optimizer(lr=1.0, eps=1.0, weight_decay=0.0, clip=1e9)
    start, steps = start_weights(tmp_path), {}
    for micro in (8, 3, 1):
        settings = replace(SETTINGS, max_steps=1, batch_size=8, micro_batch_size=micro, optimizer=optimizer)
        fit(tiny_backbone(), job(tmp_path / str(micro), rows, settings))
        steps[micro] = weights(tmp_path / str(micro))
    assert losses(tmp_path / "8") == pytest.approx(losses(tmp_path / "3"), abs=1e-5)
    for micro in (3, 1):
        assert all(torch.allclose(steps[8][k], steps[micro][k], atol=1e-5) for k in steps[8])
    assert max(float((steps[8][k] - start[k]).abs().max()) for k in start) > 1e-2


def test_the_loss_of_a_step_is_the_mean_over_all_its_response_tokens(tmp_path: Path, rows: list[Row]) -> None:
    batch = [row for _, row in EpochStream(rows, 4, 0).keyed_rows(0)]
    backbone = tiny_backbone()
    expected = mean_loss(backbone, batch)
    fit(tiny_backbone(), job(tmp_path, rows, replace(SETTINGS, max_steps=1)))
    assert losses(tmp_path) == pytest.approx([expected], abs=1e-5)


def test_only_matrices_decay() -> None:
    module = SFTModule(tiny_backbone(), steps=10, optimizer=Optimizer(lr=1e-3, weight_decay=0.1))
    groups = module.configure_optimizers()["optimizer"].param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, p in module.backbone.model.named_parameters():
        assert decay[id(p)] == (0.1 if p.ndim >= 2 else 0.0), name
    assert len(decay) == len(list(module.parameters()))


def test_frozen_weights_are_not_trained(tmp_path: Path, rows: list[Row]) -> None:
    backbone = tiny_backbone()
    backbone.model.model.visual.requires_grad_(False)
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    fit(backbone, job(tmp_path, rows))
    changed = {k for k, v in backbone.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and not any("visual" in k for k in changed)


def test_gradients_are_clipped(tmp_path: Path, rows: list[Row]) -> None:
    """As above, a step is the gradient; its length is then at most lr * clip."""
    optimizer = Optimizer(lr=1.0, eps=1.0, weight_decay=0.0, warmup_ratio=0.0, clip=1e-3)
    start = start_weights(tmp_path)
    fit(tiny_backbone(), job(tmp_path, rows, replace(SETTINGS, max_steps=1, optimizer=optimizer)))
    moved = sum(float((v - start[k]).pow(2).sum()) for k, v in weights(tmp_path).items()) ** 0.5
    assert 0.5e-3 < moved < 1.05e-3


@pytest.mark.parametrize("steps", [4, 9])
def test_the_rate_warms_up_and_falls_over_the_length_of_this_fit(tmp_path: Path, rows: list[Row], steps: int) -> None:
    optimizer = Optimizer(lr=0.01, warmup_ratio=0.25, min_lr_ratio=0.1)
    fit(tiny_backbone(), job(tmp_path, rows, replace(SETTINGS, max_steps=steps, optimizer=optimizer)))
    after = [line["lr"] for line in log_of(tmp_path)]  # the rate of the step to come
    assert len(after) == steps and after[-1] == pytest.approx(0.001)
    top = after.index(max(after))
    assert after == sorted(after[:top]) + sorted(after[top:], reverse=True)


def test_the_schedule_is_a_line_up_and_a_cosine_down() -> None:
    module = SFTModule(tiny_backbone(), steps=100, optimizer=Optimizer(lr=1.0, warmup_ratio=0.1, min_lr_ratio=0.2))
    shares = [module.compute_lr_factor(step) for step in range(101)]
    assert shares[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert (shares[10], shares[55], shares[100], module.compute_lr_factor(1000)) == pytest.approx((1.0, 0.6, 0.2, 0.2))


def test_a_second_fit_of_the_same_backbone_trains_all_its_steps(tmp_path: Path, rows: list[Row]) -> None:
    backbone = tiny_backbone()
    fit(backbone, job(tmp_path / "one", rows))
    fit(backbone, job(tmp_path / "two", rows, replace(SETTINGS, max_steps=4)))
    assert [len(losses(tmp_path / name)) for name in ("one", "two")] == [STEPS, 4]
    assert losses(tmp_path / "two")[0] < losses(tmp_path / "one")[0]


# --- going on -------------------------------------------------------------------------------------------------------


def made_up(rows: list[Row]) -> MixedStream:
    """The ORM's kind of stream, whose rows are drawn step by step."""
    pool = problems(10)
    backbone, data = tiny_backbone(), build(SyntheticData())

    def make(draw: Any) -> Row:
        problem = draw.choice(pool)
        text = corrupt(*facts(problem), draw)
        return training_row(backbone.prompt_style, problem, text, data.check(problem, text), ORM())

    return MixedStream(EpochStream(rows, 4, 0), make, 0.3, STEPS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit that nothing stopped; how often it saved does not show in it."""
    folder, rows = tmp_path_factory.mktemp("whole"), solved_rows(tiny_backbone(), 20)
    fit(tiny_backbone(), job(folder, rows, val_rows=rows[:4]))
    return folder


@pytest.mark.parametrize(
    ("step", "hook", "every"),
    [
        (1, "on_train_batch_end", 2),
        (3, "on_train_batch_end", 1),
        (3, "on_train_batch_end", 3),
        (5, "on_train_batch_start", 2),
        (3, "on_validation_start", 3),
        (3, "on_validation_end", 3),
        (3, "on_validation_end", 2),
        (6, "on_train_end", 2),
    ],
)
def test_a_fit_that_was_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, rows: list[Row], whole: Path, step: int, hook: str, every: int
) -> None:
    stopped = job(tmp_path, rows, val_rows=rows[:4], trainer=replace(TRAINER, checkpoint_every=every))
    fit_until(stopped, step, hook)
    assert not (tmp_path / "checkpoint").exists()
    fit(tiny_backbone(), stopped)
    assert same_files(tmp_path, whole)


def test_a_fit_goes_on_where_it_was_and_not_from_the_start(tmp_path: Path, rows: list[Row], whole: Path) -> None:
    made: list[int] = []
    stopped = job(tmp_path, rows, val_rows=rows[:4])

    class Steps(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            made.append(trainer.global_step)

    fit_until(stopped, step=5)
    fit(tiny_backbone(seed=9), stopped, [Steps()])  # the weights are those of the resume point
    assert made == [4, 5]
    assert same_files(tmp_path, whole)


def test_ctrl_c_arrives_as_what_it_is_and_the_fit_can_go_on(tmp_path: Path, rows: list[Row], whole: Path) -> None:
    class CtrlC(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_backbone(), job(tmp_path, rows, val_rows=rows[:4]), [CtrlC()])
    fit(tiny_backbone(), job(tmp_path, rows, val_rows=rows[:4]))
    assert same_files(tmp_path, whole)


def test_a_fit_on_made_up_rows_stopped_twice_goes_on_to_the_same_bytes(tmp_path: Path, rows: list[Row]) -> None:
    whole, stopped = (job(tmp_path / name, rows, stream=made_up(rows)) for name in ("whole", "stopped"))
    fit(tiny_backbone(), whole)
    fit_until(stopped, step=3)
    fit_until(stopped, step=5)
    fit(tiny_backbone(), stopped)
    assert same_files(stopped.folder, whole.folder)


def test_a_log_with_a_torn_last_line_does_not_keep_a_fit_from_going_on(
    tmp_path: Path, rows: list[Row], whole: Path
) -> None:
    stopped = job(tmp_path, rows, val_rows=rows[:4])
    fit_until(stopped, step=3)
    log = tmp_path / "train_log.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    fit(tiny_backbone(), stopped)
    assert same_files(tmp_path, whole)


def test_what_a_kill_left_while_a_checkpoint_was_written_is_written_over(
    tmp_path: Path, rows: list[Row], whole: Path
) -> None:
    stopped = job(tmp_path, rows, val_rows=rows[:4])
    fit_until(stopped, step=5)
    (tmp_path / SCRATCH / "point.partial").mkdir()
    (tmp_path / SCRATCH / "point.partial" / "point.json").write_bytes(b"half a point")
    (tmp_path / SCRATCH / "checkpoint").mkdir()
    (tmp_path / SCRATCH / "checkpoint" / "model-00001-of-00002.safetensors").write_bytes(b"of another layout")
    fit(tiny_backbone(), stopped)
    assert same_files(tmp_path, whole)
    left, right = (sorted(p.name for p in (folder / "checkpoint").iterdir()) for folder in (tmp_path, whole))
    assert left == right


def test_equal_fits_write_equal_bytes_and_another_seed_does_not(tmp_path: Path, rows: list[Row]) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        torch.manual_seed(len(name))
        fit(tiny_backbone(), replace(job(tmp_path / name, rows), seed=seed))
    one, same, other = ((tmp_path / n / "checkpoint/model.safetensors").read_bytes() for n in ("one", "same", "other"))
    assert one == same != other


# --- validation -----------------------------------------------------------------------------------------------------


def test_validation_is_logged_during_the_fit_and_changes_no_weight(tmp_path: Path, rows: list[Row]) -> None:
    fit(tiny_backbone(), job(tmp_path / "with", rows, val_rows=rows[:7]))
    fit(tiny_backbone(), job(tmp_path / "without", rows))
    validated = [line for line in log_of(tmp_path / "with") if "val_loss" in line]
    assert [line["step"] for line in validated] == [3, 6]
    assert all(0 <= line["val_token_accuracy"] <= 1 for line in validated)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert all(torch.equal(v, weights(tmp_path / "with")[k]) for k, v in weights(tmp_path / "without").items())


def test_the_validation_loss_is_the_mean_over_the_tokens_of_unequal_batches(tmp_path: Path, rows: list[Row]) -> None:
    val = [*rows[:4], Row(question="q", images=(), response="7 " * 60)]
    settings = replace(SETTINGS, max_steps=1, val_every=1, micro_batch_size=2)
    folder = fit(tiny_backbone(), job(tmp_path, rows, settings, val_rows=val))
    backbone = load("tiny", folder)
    logits, targets = backbone.answer_logits(backbone.collate(val))
    [line] = [line for line in log_of(tmp_path) if "val_loss" in line]
    assert line["val_loss"] == pytest.approx(mean_loss(backbone, val), abs=1e-4)
    assert line["val_token_accuracy"] == pytest.approx((logits.argmax(-1) == targets).float().mean().item(), abs=1e-4)


def test_no_more_rows_are_validated_than_asked_for(tmp_path: Path, rows: list[Row]) -> None:
    fit(tiny_backbone(), job(tmp_path, rows, replace(SETTINGS, val_rows=0), val_rows=rows))
    assert not any("val_loss" in line for line in log_of(tmp_path))


def verdict_rows(backbone: TinyBackbone) -> list[Row]:
    data = build(SyntheticData())
    texts = [(p, text) for p in problems(6) for text in (p.solution or "", "Step 1: The digits are 1, 1, 1.")]
    return [training_row(backbone.prompt_style, p, text, data.check(p, text), ORM()) for p, text in texts]


def test_an_orm_fit_logs_how_often_the_status_is_right(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    rows = verdict_rows(backbone)
    fit(backbone, job(tmp_path, rows, val_rows=rows, status_tokens=status_tokens(backbone)))
    shares = [line["val_status_accuracy"] for line in log_of(tmp_path) if "val_loss" in line]
    assert len(shares) == 2
    logits, targets = backbone.answer_logits(backbone.collate(rows))
    right, wrong = status_tokens(backbone)
    at = (targets == right) | (targets == wrong)
    guess = torch.where(logits[at][:, right] >= logits[at][:, wrong], right, wrong)
    assert int(at.sum()) == len(rows) and set(targets[at].tolist()) == {right, wrong}
    assert shares[-1] == pytest.approx(float((guess == targets[at]).float().mean()), abs=1e-6)
