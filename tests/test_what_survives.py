"""What of a fit's update survives until the model is used or fitted again. Measured on the update, not on the weights:
of a weight that loses an update of 0.1 % whole, 99.9 % are still there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from small import problems
from torch import Tensor

from mathse.config.backbones import Qwen2VLBackboneConfig
from mathse.config.fits import AdapterConfig, FitConfig, OptimizerConfig
from mathse.config.schema import TrainerConfig
from mathse.errors import ConfigError
from mathse.inference.rows import solve_row
from mathse.models import adapters, modes
from mathse.models.base import Backbone
from mathse.models.model_spec import make_spec
from mathse.models.row import Row
from mathse.models.tiny import tiny_qwen2vl
from mathse.training.fit import FitJob, fit, save_checkpoint

LORA = FitConfig(
    method="lora",
    lora=AdapterConfig(rank=4, alpha=8, dropout=0.0),
    max_steps=2,
    batch_size=2,
    micro_batch_size=2,
    optimizer=OptimizerConfig(lr=1e-9),
)
UPDATE = 1e-3  # of the weights' size


def opened(checkpoint: Path, dtype: str = "bfloat16") -> Backbone:
    return make_spec(Qwen2VLBackboneConfig(), checkpoint, dtype).open()


@torch.no_grad()
def weights(backbone: Backbone) -> dict[str, Tensor]:
    """The decoder's matrices as they work: W, or W + B A where adapters are on."""
    found = {}
    for name, module in backbone.model.named_modules():
        if isinstance(module, LoraLayer):
            found[name] = module.get_base_layer().weight.float() + module.get_delta_weight("default").float()
        elif isinstance(module, torch.nn.Linear) and name.endswith("_proj") and "visual" not in name:
            found[name] = module.weight.float()
    return found


def surviving(before: dict[str, Tensor], update: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """The share of the update that is in ``after``: its projection on the update."""
    inside = sum(float(((after[name] - before[name]) * update[name]).sum()) for name in update)
    return inside / sum(float(update[name].square().sum()) for name in update)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model that was published in bfloat16."""
    backbone = tiny_qwen2vl(0)
    backbone.model.bfloat16()
    return save_checkpoint(backbone, tmp_path / "base" / "checkpoint")


def trained(base: Path, done: Path) -> dict[str, Tensor]:
    """A checkpoint as a LoRA fit in bfloat16 leaves it, and its update."""
    backbone = opened(base)
    before = modes.prepare(backbone, LORA, "bf16-mixed", seed=0)
    layers = {name: m for name, m in backbone.model.named_modules() if isinstance(m, LoraLayer)}
    draw = torch.Generator().manual_seed(0)
    for layer in layers.values():
        matrix = layer.lora_B["default"].weight
        matrix.data = torch.randn(matrix.shape, generator=draw)
        size = layer.get_base_layer().weight.float().std() / layer.get_delta_weight("default").std()
        matrix.data *= UPDATE * size
    update = {name: layer.get_delta_weight("default").detach().clone() for name, layer in layers.items()}
    save_checkpoint(backbone, done, lambda folder: modes.finish(backbone, LORA, before, folder, done))
    return update


def rows(backbone: Backbone) -> list[Row]:
    return [solve_row(backbone.prompt_style, problem, problem.solution) for problem in problems(4)]


def test_an_update_of_a_thousandth_survives_in_the_student_that_samples(base: Path, tmp_path: Path) -> None:
    update = trained(base, done := tmp_path / "distill" / "checkpoint")
    before = weights(opened(base))
    for dtype in ("bfloat16", "float32"):
        student = opened(done, dtype)
        assert surviving(before, update, weights(student)) >= 0.99, dtype
        assert (student.adapter is None) == (dtype == "float32")
    merged = weights_of_file(done)
    assert 0.3 < surviving(before, update, {name: merged[name] for name in update}) < 0.8, "what other programs open"


def weights_of_file(checkpoint: Path) -> dict[str, Tensor]:
    """The merged weights under the names that they have in memory."""
    moved = load_file(checkpoint / "model.safetensors")
    return {
        k.removesuffix(".weight").replace("model.", "model.language_model.", 1): t.float() for k, t in moved.items()
    }


def test_the_next_fit_trains_the_same_adapters_on_and_keeps_what_they_learned(base: Path, tmp_path: Path) -> None:
    update = trained(base, done := tmp_path / "distill" / "checkpoint")
    student = opened(done)
    job = FitJob(tmp_path / "round_01", rows(student), 0, LORA, TrainerConfig(log_every=1))
    again = fit(student, job)
    after = weights(opened(again))
    assert surviving(weights(opened(base)), update, after) >= 0.99
    assert all(p.requires_grad for p in student.model.parameters()) and student.adapter is None
    config = (again / "adapter" / "adapter_config.json").read_text()
    assert '"../../../base/checkpoint"' in config, "the adapters lie on the base still"


def test_adapters_of_another_size_cannot_be_trained_on(base: Path, tmp_path: Path) -> None:
    trained(base, done := tmp_path / "distill" / "checkpoint")
    student = opened(done)
    other = replace(LORA, lora=replace(LORA.lora, rank=8))
    with pytest.raises(ConfigError, match=r"lora.rank = 8: .*trained with 4.*dtype=float32"):
        modes.prepare(student, other, "bf16-mixed", seed=0)
    modes.prepare(opened(done, "float32"), other, "bf16-mixed", seed=0)


def test_without_its_base_a_checkpoint_is_what_its_merged_weights_say(base: Path, tmp_path: Path) -> None:
    trained(base, done := tmp_path / "distill" / "checkpoint")
    (tmp_path / "base").rename(tmp_path / "gone")
    assert adapters.find_base(done) is None and opened(done).adapter is None


@pytest.mark.parametrize("kept_in", [None, torch.bfloat16])
def test_a_full_fit_keeps_its_float32_weights_or_the_model_that_its_steps_computed_with(
    base: Path, tmp_path: Path, kept_in: torch.dtype | None
) -> None:
    full = replace(LORA, method="full", optimizer=OptimizerConfig(lr=1e-4))
    backbone = opened(base, "float32")
    before = weights(backbone)
    before = {name: weight.clone() for name, weight in before.items()}
    state = modes.prepare(backbone, full, "bf16-mixed", seed=0)
    draw = torch.Generator().manual_seed(0)
    for parameter in backbone.model.parameters():
        change = torch.randn(parameter.shape, generator=draw)
        parameter.data += UPDATE * float(parameter.std()) * change
    masters = {name: weight.clone() for name, weight in weights(backbone).items()}
    batch = backbone.collate(rows(backbone))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        computed = backbone.answer_logits(batch)[0]
    done = save_checkpoint(
        backbone,
        tmp_path / "final" / "checkpoint",
        lambda folder: modes.finish(backbone, full, state, folder, tmp_path / "final" / "checkpoint", kept_in),
    )
    after = opened(done, "float32")
    share = surviving(before, {name: masters[name] - before[name] for name in before}, weights(after))
    if kept_in is None:
        assert share >= 0.9999
        return
    assert {t.dtype for t in load_file(done / "model.safetensors").values()} == {torch.bfloat16}
    assert share < 0.99, "which is why a student that is fitted on is kept in float32"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        kept = after.answer_logits(batch)[0]
    assert (kept - computed).abs().max() <= 0.02 * computed.abs().max()
