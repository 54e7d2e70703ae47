"""What a fit trains, in a table, and how near the estimated memory is to what autograd keeps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from small import problems, solved_rows, tiny_backbone
from torch import Tensor

from mathse.commands.tiny import BUILDERS
from mathse.config import backbones as backbones_settings
from mathse.config.fits import Fit, Lora
from mathse.inference.rows import solve_row
from mathse.models import memory, modes
from mathse.models.base import Backbone
from mathse.models.memory import Memory, TrainingSummary, format_bytes
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone

MODES = {
    "full": Fit(),
    "frozen": Fit(freeze=["tower", "connector"]),
    "lora": Fit(method="lora"),
    "lora_everywhere": Fit(method="lora", lora=Lora(scopes=["language", "tower"])),
    "lora_without_dropout": Fit(method="lora", lora=Lora(dropout=0.0)),
}


def bytes_kept(backbone: Backbone, rows: Sequence[Row], precision: str) -> int:
    """Bytes of what autograd keeps of a forward pass, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    batch = backbone.collate(rows)
    del batch["attention_mask"]
    backbone.model.train()
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    with autocast, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):  # type: ignore[attr-defined]
        logits, targets = backbone.answer_logits(batch)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_the_table_shows_each_part() -> None:
    backbone = tiny_backbone()
    modes.prepare(backbone, MODES["frozen"], "32-true", seed=0)
    trained = TrainingSummary(
        "full", "32-true", memory.count_parts(backbone, 1e-5, 1.0), Memory(4 * 2**30, 2**20, 1536, 10)
    )
    assert trained.cells()[0] == ("part", "parameters", "trainable", "learning rate")
    assert trained.cells()[1] == ("tower", "22,096", "0", "-")
    assert trained.cells()[3][2:] == (trained.cells()[3][1], "1e-05")
    assert str(trained) == (
        "trained parameters (method=full, precision=32-true); estimated memory on a device 4.0 GiB: weights 4.0 GiB, "
        "gradients 1.0 MiB, optimiser 1.5 KiB, activations 10 B"
    )
    assert [format_bytes(n) for n in (0, 1023, 1024, 150 * 2**30)] == ["0 B", "1023 B", "1.0 KiB", "150 GiB"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("mode", MODES)
def test_the_estimate_of_activations_is_near_what_autograd_keeps(precision: str, attention: str, mode: str) -> None:
    backbone = TinyBackbone(backbones_settings.TinyBackbone(attention=attention, layers=4, vision_layers=3))
    modes.prepare(backbone, MODES[mode], precision, seed=0)
    [row] = solved_rows(backbone, 1)
    measured = bytes_kept(backbone, [row] * 4, precision)
    estimated = memory.estimate(backbone, backbone.encode([row])[0], 4, precision, checkpointing=False).activations
    assert estimated == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("family", sorted(BUILDERS))
@pytest.mark.parametrize("mode", ["full", "frozen", "lora"])
def test_the_estimate_holds_for_every_family_and_checkpointing_lowers_it(family: str, mode: str) -> None:
    module, _, name = BUILDERS[family].rpartition(".")
    found = {}
    for checkpointing in (False, True):
        backbone = getattr(import_module(module), name)(0)
        settings = replace(MODES[mode], activation_checkpointing=checkpointing)
        modes.prepare(backbone, settings, "bf16-mixed", seed=0)
        row = solve_row(backbone.prompt_style, problems(1)[0], problems(1)[0].solution)
        longest = backbone.encode([row])[0]
        found[checkpointing] = (
            bytes_kept(backbone, [row] * 2, "bf16-mixed"),
            memory.estimate(backbone, longest, 2, "bf16-mixed", checkpointing).activations,
        )
    (whole, estimated), (inputs, with_checkpointing) = found[False], found[True]
    assert estimated == pytest.approx(whole, rel=0.35)
    assert inputs < with_checkpointing < estimated  # one layer's activations are made again in the backward pass


def test_weights_gradients_and_moments_are_counted_to_the_byte() -> None:
    whole = sum(p.numel() for p in tiny_backbone().model.parameters())
    longest = tiny_backbone().encode(solved_rows(tiny_backbone(), 1))[0]

    def estimate(mode: str, precision: str, shards: int = 1) -> tuple[Memory, int]:
        backbone = TinyBackbone(
            backbones_settings.TinyBackbone(
                hidden_size=32, layers=1, heads=2, mlp_size=64, vision_size=16, dtype="bfloat16"
            )
        )
        modes.prepare(backbone, MODES[mode], precision, seed=0)
        trains = sum(p.numel() for p in backbone.model.parameters() if p.requires_grad)
        return memory.estimate(backbone, longest, 1, precision, False, shards), trains

    full, n = estimate("full", "bf16-mixed")
    assert (n, full.weights, full.gradients, full.optimiser) == (whole, 4 * whole, 4 * whole, 8 * whole)
    sharded, _ = estimate("full", "bf16-mixed", shards=2)
    assert sharded.activations < full.activations  # no copy of every weight at once
    half, _ = estimate("full", "bf16-true", shards=2)
    assert (half.weights, half.gradients, half.optimiser) == (whole, whole, 2 * whole)
    lora, n = estimate("lora", "bf16-mixed")
    assert (lora.weights, lora.gradients, lora.optimiser) == (2 * whole + 4 * n, 4 * n, 8 * n)
