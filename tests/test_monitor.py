"""What a fit says about itself while it works, and that one which has gone wrong is stopped in time."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import astuple, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small import log_of, solved_rows, tiny_backbone
from torch.utils.flop_counter import FlopCounterMode

from mathse.commands.tiny import BUILDERS
from mathse.config.fits import Fit, Lora, Optimizer
from mathse.config.schema import Trainer
from mathse.errors import FitDiverged
from mathse.models import modes
from mathse.models.base import Backbone
from mathse.models.flops import count_amounts, count_training_flops
from mathse.models.operations import Amounts
from mathse.models.row import Row
from mathse.runs.layout import CHECKPOINT, SCRATCH, TRAIN_LOG
from mathse.runs.store import read_jsonl
from mathse.training.divergence import MAX_EXPLODING_STEPS, MIN_STEPS, Divergence
from mathse.training.fit import FitJob, fit
from mathse.training.peak_flops import find_peak_by_name, find_peak_flops
from mathse.training.resume import find_newest

TRAINER = Trainer(precision="32-true", checkpoint_every=2, log_every=1)
SETTINGS = Fit(max_steps=6, batch_size=4, micro_batch_size=2, val_every=3, optimizer=Optimizer(lr=5e-3))
NAN = math.nan


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return solved_rows(tiny_backbone(), 20)


def job(folder: Path, rows: Sequence[Row], settings: Fit = SETTINGS, **changes: Any) -> FitJob:
    return FitJob(folder, rows, seed=0, settings=settings, **{"trainer": TRAINER, **changes})


def saved_step(folder: Path) -> int:
    point = find_newest(folder / SCRATCH, print)
    assert point is not None
    return point.step


class Spoil(pl.Callback):
    """Multiplies the head's weights after a step, as a bad update might."""

    def __init__(self, step: int, factor: float) -> None:
        self.step, self.factor = step, factor

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                module.model.lm_head.weight.mul_(self.factor)


# --- figures --------------------------------------------------------------------------------------------------------


def test_each_line_of_the_log_says_how_fast_the_fit_is_and_what_it_takes(tmp_path: Path, rows: list[Row]) -> None:
    fit(tiny_backbone(), job(tmp_path, rows, trainer=replace(TRAINER, log_every=4)))
    lines = list(read_jsonl(tmp_path / TRAIN_LOG))
    assert [line["step"] for line in lines] == [1, 4, 6]
    for line in lines:
        assert 0 < line["grad_norm"] < 100 and line["tokens_per_second"] > 0 and line["peak_memory_gib"] > 0.05
        assert 0 <= line["data_wait"] <= 1 and 0 <= line["padding"] < 0.5
        assert "mfu" not in line, "nobody knows what a CPU could do at most"


def test_a_fit_without_padding_says_so(tmp_path: Path) -> None:
    rows = [Row(question="q", images=(), response="7 + 5 = 12.")] * 8
    fit(tiny_backbone(), job(tmp_path, rows))
    assert {line["padding"] for line in read_jsonl(tmp_path / TRAIN_LOG)} == {0}


def test_amounts_count_the_tokens_of_rows_and_pictures_and_no_padding(rows: list[Row]) -> None:
    backbone = tiny_backbone()
    short = Row(question="q", images=(), response="7.")
    encoded = backbone.encode([rows[0], short])
    amounts = count_amounts(backbone.pad(encoded), backbone.patch_size)
    lengths = [len(row.ids) for row in encoded]
    assert amounts.tokens == sum(lengths) and amounts.slots == 2 * max(lengths)
    assert amounts.squares == sum(n * n for n in lengths)
    assert amounts.targets == sum(len(row.response) for row in encoded)
    assert amounts.patches == int(encoded[0].features["image_grid_thw"].prod()) > 0
    assert Amounts(*astuple(amounts)) + amounts == Amounts(*(2 * n for n in astuple(amounts)))


MODES = {
    "full": Fit(),
    "frozen tower": Fit(freeze=["tower"]),
    "lora": Fit(method="lora", lora=Lora(rank=4, dropout=0.0)),
    "lora, tower too": Fit(method="lora", lora=Lora(rank=4, dropout=0.0, scopes=["language", "tower"])),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", BUILDERS)
def test_operations_of_a_step_are_those_that_torch_counts(family: str, mode: str, rows: list[Row]) -> None:
    """torch counts what eager attention does: it looks at later tokens too, which then count for nothing. The first
    layer has nobody to pass gradients on to, which shows where there are two."""
    module, _, builder = BUILDERS[family].rpartition(".")
    backbone: Backbone = getattr(import_module(module), builder)(0)
    modes.prepare(backbone, MODES[mode], "32-true", 0)
    backbone.model.set_attn_implementation("eager")
    batch = backbone.pad(backbone.encode([rows[0]]))
    flops, amounts = count_training_flops(backbone), count_amounts(batch, backbone.patch_size)
    with FlopCounterMode(display=False) as counter:
        logits, targets = backbone.answer_logits(batch)
        torch.nn.functional.cross_entropy(logits, targets).backward()
    ahead = flops.square * amounts.squares  # of attention to later tokens
    assert flops.of(amounts) == pytest.approx(counter.get_total_flops() - ahead, rel=0.07)


def test_peaks_are_known_by_the_names_that_drivers_give() -> None:
    names = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA H100 NVL": 835e12,
             "NVIDIA H200": 989e12, "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA A100 80GB PCIe": 312e12,
             "NVIDIA L40S": 362e12, "NVIDIA L4": 121e12, "NVIDIA B200": 2250e12, "NVIDIA GH200 480GB": 989e12,
             "NVIDIA GeForce RTX 4090": 165.2e12, "NVIDIA RTX 6000 Ada Generation": 364e12}  # fmt: skip
    assert {name: find_peak_by_name(name) for name in names} == names
    assert find_peak_by_name("Tesla V100-SXM2-32GB") is find_peak_by_name("Some GPU of tomorrow") is None
    assert find_peak_flops(torch.device("cpu")) is None


# --- what has gone wrong --------------------------------------------------------------------------------------------


def test_a_weight_that_is_no_number_stops_the_fit_and_keeps_the_resume_point_before_it(
    tmp_path: Path, rows: list[Row]
) -> None:
    spoilt, whole = (job(tmp_path / name, rows, val_rows=rows[:4]) for name in ("spoilt", "whole"))
    with pytest.raises(FitDiverged) as error:
        fit(tiny_backbone(), spoilt, [Spoil(4, NAN)])
    message = str(error.value)
    assert message.startswith("training was stopped after step 5: its loss is nan; pass resume=branch and ")
    assert "sft.optimizer.lr below 0.005" in message and message.endswith("; the resume point of step 4 is kept")
    assert "trainer.precision" not in message, "there is nothing more exact than float32"
    assert [line["step"] for line in log_of(tmp_path / "spoilt") if "loss" in line] == [1, 2, 3, 4]
    assert saved_step(tmp_path / "spoilt") == 4 and not (tmp_path / "spoilt" / CHECKPOINT).exists()
    # once the cause is gone the fit goes on from there, to what it would have come to
    fit(tiny_backbone(), spoilt)
    fit(tiny_backbone(), whole)
    assert log_of(tmp_path / "spoilt") == log_of(tmp_path / "whole")
    made, expected = ((tmp_path / name / CHECKPOINT / "model.safetensors").read_bytes() for name in ("spoilt", "whole"))
    assert made == expected


def test_an_absurd_rate_stops_the_fit_before_a_resume_point_is_written(tmp_path: Path, rows: list[Row]) -> None:
    settings = replace(SETTINGS, optimizer=Optimizer(lr=1e18))
    with pytest.raises(FitDiverged, match=r"step 2: .*trainer.precision=32-true.*; there is no resume point yet$"):
        fit(tiny_backbone(), job(tmp_path, rows, settings, trainer=replace(TRAINER, precision="bf16-mixed")))
    assert find_newest(tmp_path / SCRATCH, print) is None


def test_an_update_that_spoils_the_weights_is_noticed_before_they_are_saved(tmp_path: Path, rows: list[Row]) -> None:
    class SpoilAfter(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                module.model.lm_head.weight.data.fill_(NAN)

    trainer = replace(TRAINER, checkpoint_every=3)
    with pytest.raises(FitDiverged, match="after step 3: its validation loss is nan"):
        fit(tiny_backbone(), job(tmp_path, rows, val_rows=rows[:4], trainer=trainer), [SpoilAfter()])
    assert find_newest(tmp_path / SCRATCH, print) is None


def test_gradients_that_explode_stop_the_fit_and_a_setting_lets_them(tmp_path: Path, rows: list[Row]) -> None:
    steps = MIN_STEPS + MAX_EXPLODING_STEPS + 2
    settings = replace(SETTINGS, max_steps=steps, optimizer=Optimizer(lr=1e-5))
    diverged = rf"step {MIN_STEPS + MAX_EXPLODING_STEPS + 1}: its gradient norm is .* times the median"
    with pytest.raises(FitDiverged, match=diverged):
        fit(tiny_backbone(), job(tmp_path / "stopped", rows, settings), [Spoil(MIN_STEPS + 1, 1e6)])
    trainer = replace(TRAINER, max_grad_norm_ratio=None)
    fit(tiny_backbone(), job(tmp_path / "let", rows, settings, trainer=trainer), [Spoil(MIN_STEPS + 1, 1e6)])
    assert len(log_of(tmp_path / "let")) == steps


def reasons(norms: Sequence[float], ratio: float | None = 100.0) -> list[int]:
    """The steps at which a fit with these norms would be stopped."""
    divergence = Divergence(ratio, clip=1.0)
    return [step for step, norm in enumerate(norms) if divergence.find_reason(1.0, norm) is not None]


def test_a_healthy_fit_is_never_stopped() -> None:
    draw = random.Random(0)
    falling = [8 * 0.98**step * draw.lognormvariate(0, 1) for step in range(2000)]
    assert reasons(falling) == []
    spikes = [norm if draw.random() < 0.7 else norm + 50 for norm in falling]  # hard rows, again and again
    assert reasons(spikes) == []
    learned = [1e-4] * 300
    assert reasons([*learned, *[0.9] * 300]) == [], "what clipping leaves alone does no harm"
    assert reasons([*[0.05] * 300, *[4.0] * 300]) == [], "harder data after easy"
    assert reasons([0.0] * 50) == reasons([1e9] * 50) == []


def test_an_explosion_is_one_only_after_several_steps_in_a_row() -> None:
    usual = [1.0] * 50
    assert reasons([*usual, *[1e3] * (MAX_EXPLODING_STEPS - 1), *usual, *[1e3] * (MAX_EXPLODING_STEPS - 1)]) == []
    assert reasons([*usual, *[1e3] * MAX_EXPLODING_STEPS]) == [50 + MAX_EXPLODING_STEPS - 1]
    assert reasons([*usual, *[1e3] * MAX_EXPLODING_STEPS], ratio=None) == []
