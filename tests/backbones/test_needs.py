"""The memory that a model needs, counted in the model without numbers: beside open models, and arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from small import problems
from transformers import DynamicCache

from mathse.commands.tiny import BUILDERS
from mathse.config import build
from mathse.config.backbones import (
    CogVLM2BackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen2VLBackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
    TinyBackboneConfig,
)
from mathse.config.fits import AdapterConfig, FitConfig
from mathse.config.schema import TrainerConfig
from mathse.inference.rows import solve_row
from mathse.models import memory, modes, needs
from mathse.models.base import Backbone
from mathse.models.needs import RowSize, estimate_sampling, estimate_training, find_architecture
from mathse.models.parts import iterate_parameters
from mathse.training import loader

SECTIONS: dict[str, Any] = {
    "qwen2vl": Qwen2VLBackboneConfig,
    "qwen2_5_vl": Qwen25VLBackboneConfig,
    "qwen3_vl": Qwen3VLBackboneConfig,
    "internvl2_5": InternVL25BackboneConfig,
    "internvl3": InternVL3BackboneConfig,
    "cogvlm2": CogVLM2BackboneConfig,
    "tiny": TinyBackboneConfig,
}
GIB = 2**30
GPU = TrainerConfig(accelerator="gpu")


def built(family: str) -> Backbone:
    module, _, name = BUILDERS[family].rpartition(".")
    backbone: Backbone = getattr(import_module(module), name)(0)
    return backbone


def counts(backbone: Any) -> dict[str, int]:
    parts = {"tower": 0, "connector": 0, "language": 0}
    for part, _, parameter in iterate_parameters(backbone):
        parts[part] += parameter.numel()
    return parts


@pytest.mark.parametrize("family", sorted(SECTIONS))
def test_a_folders_config_tells_the_parameters_of_each_part(family: str, tmp_path: Path) -> None:
    backbone = built(family)
    backbone.model.config.save_pretrained(tmp_path)
    model = find_architecture(SECTIONS[family](path=str(tmp_path)))
    assert model is not None and model.parameters == counts(backbone)
    assert model.vocabulary == backbone.model.config.get_text_config().vocab_size


@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 64, "layers": 2, "heads": 2, "vision_layers": 2}])
def test_the_tiny_backbone_of_random_weights_is_known_from_its_settings(sizes: dict[str, int]) -> None:
    settings = TinyBackboneConfig(**sizes)
    model = find_architecture(settings)
    assert model is not None and model.parameters == counts(build(settings))


@pytest.mark.parametrize(
    ("section", "tower", "connector", "total"),
    [
        (Qwen2VLBackboneConfig(), 631_183_360, 44_575_744, 8_291_375_616),
        (InternVL25BackboneConfig(), 304_012_288, 33_570_816, 8_075_365_376),
        (CogVLM2BackboneConfig(), 4_296_961_536, 196_364_032, 19_503_105_280),
        (Qwen25VLBackboneConfig(), 631_975_680, 44_574_464, 8_292_166_656),
        (Qwen3VLBackboneConfig(), 415_891_440, 160_496_896, 8_767_123_696),
        (InternVL3BackboneConfig(), 304_012_288, 27_540_480, 7_944_373_760),
    ],
)
def test_a_published_checkpoint_has_the_parameters_that_its_headers_count(
    section: Any, tower: int, connector: int, total: int
) -> None:
    model = find_architecture(section)
    assert model is not None and model.total == total
    assert (model.parameters["tower"], model.parameters["connector"]) == (tower, connector)
    assert all(parameter.is_meta for parameter in model.backbone.model.parameters())


def test_the_model_of_a_section_is_built_once_and_draws_no_number() -> None:
    state = torch.get_rng_state()
    model = find_architecture(InternVL25BackboneConfig(train_tiles=5))
    assert model is not None and model is find_architecture(InternVL25BackboneConfig(train_tiles=5))
    counted = model.prepared(FitConfig(method="lora"), "bf16-mixed")
    assert counted is model.prepared(
        FitConfig(method="lora", micro_batch_size=1, activation_checkpointing=True), "bf16-mixed"
    )
    assert counted != model.prepared(FitConfig(method="lora", freeze_layers=1), "bf16-mixed")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_picture_takes_the_tokens_of_its_size_in_a_plan_too() -> None:
    for section, most in (
        (InternVL25BackboneConfig(), 13 * 256 + 3),
        (Qwen2VLBackboneConfig(), 1026),
        (Qwen3VLBackboneConfig(), 1026),
    ):
        model = find_architecture(section)
        assert model is not None and model.tokens_of is not None
        assert model.image_tokens[1] == most >= model.tokens_of(4000, 3000)
        # three tiles and a thumbnail; 3 x 1 tokens of 28 x 28 pixels, and of 32 x 32
        by_size = {
            "InternVL25BackboneConfig": 4 * 256 + 3,
            "Qwen2VLBackboneConfig": 3 + 2,
            "Qwen3VLBackboneConfig": 84 * 28 / 32**2 + 2,
        }
        assert model.tokens_of(84, 28) == by_size[type(section).__name__]


@pytest.mark.parametrize(
    "config", ["no json", '{"model_type": "llama"}', '{"model_type": "qwen2_vl", "vision_config": 3}']
)
def test_what_is_not_known_without_opening_it_has_no_architecture(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    assert find_architecture(Qwen2VLBackboneConfig(path=str(tmp_path))) is None
    assert find_architecture(Qwen2VLBackboneConfig(path="somebody/qwen2-vl")) is None
    assert find_architecture({"_target_": "my.own.Backbone", "path": "Qwen/Qwen2-VL-7B-Instruct"}) is None


def test_a_config_of_ten_million_layers_is_not_built_for_a_plan(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl", "num_hidden_layers": 10000000}')
    assert find_architecture(Qwen2VLBackboneConfig(path=str(tmp_path))) is None


# --- a fit ------------------------------------------------------------------------------------------------------------

MODES = {
    "full": FitConfig(),
    "frozen": FitConfig(freeze=["tower", "connector"]),
    "frozen_lower": FitConfig(freeze=["tower", "connector"], freeze_layers=1),
    "frozen_lower_below_a_connector": FitConfig(freeze=["tower"], freeze_layers=1),
    "lora_above": FitConfig(method="lora", freeze_layers=1),
    "lora": FitConfig(method="lora"),
    "lora_everywhere": FitConfig(method="lora", lora=AdapterConfig(scopes=["language", "tower"])),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("family", ["qwen2vl", "qwen2_5_vl", "qwen3_vl", "internvl2_5", "internvl3", "cogvlm2"])
@pytest.mark.parametrize("mode", MODES)
def test_a_planned_fit_is_what_the_open_model_is_counted_to(
    family: str, mode: str, precision: str, tmp_path: Path
) -> None:
    backbone = built(family)
    backbone.model.config.save_pretrained(tmp_path)
    if mode.startswith("lora") and precision == "bf16-mixed":
        backbone.model.to(torch.bfloat16)
    row = solve_row(backbone.prompt_style, problems(1)[0], problems(1)[0].solution)
    longest = backbone.encode([row])[0]
    settings = replace(MODES[mode], micro_batch_size=2)
    modes.prepare(backbone, settings, precision, seed=0)  # type: ignore[arg-type]
    counted = memory.estimate(backbone, longest, 2, precision, checkpointing=False)
    eager = backbone.model.config.get_text_config()._attn_implementation == "eager"
    model = find_architecture(SECTIONS[family](path=str(tmp_path), attention="eager" if eager else "sdpa"))
    assert model is not None
    image = (longest.ids.count(backbone.image_id) if hasattr(backbone, "image_id") else model.image_tokens[0], 0)
    patches = (memory.count_patches(backbone.model.config, longest.features), 0)
    model = replace(model, image_tokens=image, patches=patches)
    response = len(longest.response)
    size = RowSize(len(longest.ids) - response - image[0], response)
    planned = estimate_training(model, settings, TrainerConfig(precision=precision), size).device  # type: ignore[arg-type]
    assert planned["weights"] == counted.weights
    assert (planned["gradients"], planned["optimiser"]) == (counted.gradients, counted.optimiser)
    assert planned["activations"] + planned["loss"] == pytest.approx(counted.activations, rel=0.15)


def test_weights_gradients_and_moments_of_a_7b_model_by_hand() -> None:
    model, row = find_architecture(Qwen2VLBackboneConfig()), RowSize(256, 768)
    assert model is not None
    adapters = 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))  # q, o; k, v; gate, up, down
    assert adapters == 40_370_176  # as peft makes them
    lora = estimate_training(model, FitConfig(method="lora", micro_batch_size=1), GPU, row).device
    assert lora["weights"] == 2 * 8_291_375_616 + 4 * adapters
    assert (lora["gradients"], lora["optimiser"]) == (4 * adapters, 8 * adapters)
    # 16 bytes a trained weight, 4 a frozen one: tower 631M and connector 45M of 8.29B are frozen
    full = estimate_training(model, FitConfig(freeze=["tower", "connector"], micro_batch_size=1), GPU, row).device
    held = sum(full[name] for name in ("weights", "gradients", "optimiser"))
    assert held == 16 * 7_615_616_512 + 4 * (631_183_360 + 44_575_744)
    eight = replace(GPU, strategy="fsdp2", devices=8)
    sharded = estimate_training(model, FitConfig(freeze=["tower", "connector"], micro_batch_size=1), eight, row).device
    assert sum(sharded[name] for name in ("weights", "gradients", "optimiser")) == held // 8
    assert sharded["gathered"] > 2 * 2 * 152064 * 3584  # embedding and head are whole in bfloat16 during a pass
    quantised = estimate_training(model, FitConfig(method="qlora", micro_batch_size=1), GPU, row).device
    assert 5.5 * GIB < quantised["weights"] < 7.5 * GIB  # 6.5B in 4 bit, the rest (tower, embedding, head) in bfloat16


def test_the_loss_is_bounded_by_its_chunks_and_checkpointing_keeps_inputs_alone() -> None:
    model = find_architecture(Qwen2VLBackboneConfig())
    assert model is not None
    row, fit = RowSize(256, 2048), FitConfig(method="lora", micro_batch_size=1)
    whole = estimate_training(model, fit, GPU, row).device
    assert whole["loss"] == GIB // 2 < 2048 * 152064 * 14
    head = 4 * 152064 * 3584  # bytes of a trained head's gradient, where there is a second one
    for trainer, second in (
        (GPU, 0),
        (replace(GPU, precision="bf16-true"), head),
        (replace(GPU, strategy="deepspeed", devices=2), head),
        (replace(GPU, strategy="fsdp2", devices=2), 0),  # gathered
    ):
        assert estimate_training(model, FitConfig(micro_batch_size=1), trainer, row).device["loss"] == GIB // 2 + second
    light = estimate_training(model, replace(fit, activation_checkpointing=True), GPU, row).device
    assert light["activations"] < whole["activations"] / 10


def test_a_bound_on_tokens_bounds_the_rows_and_what_loaders_hold() -> None:
    model, row = find_architecture(Qwen2VLBackboneConfig()), RowSize(256, 768)  # 2,050 tokens with the picture's 1,026
    assert model is not None and needs.LOADER_PREFETCH == loader.AHEAD
    trainer = replace(GPU, workers=4)
    two = estimate_training(model, FitConfig(method="lora", micro_batch_size=2), trainer, row)
    bounded = estimate_training(
        model, FitConfig(method="lora", micro_batch_size=64, tokens_per_micro_batch=4200), trainer, row
    )
    assert bounded == two
    assert two.host["loader"] == 4 * 2 * 2 * 4096 * 1176 * 2  # workers, ahead, rows, patches, numbers, bytes


def test_whole_gradients_wait_for_the_last_pass_where_a_card_has_room_for_them() -> None:
    model, row = find_architecture(Qwen2VLBackboneConfig()), RowSize(256, 768)
    assert model is not None
    fit = FitConfig(freeze=["tower", "connector"], batch_size=16, micro_batch_size=1, activation_checkpointing=True)
    eight = replace(GPU, strategy="fsdp2", devices=8)
    roomy = estimate_training(model, fit, eight, row, 80 * GIB).device
    assert roomy["whole gradients"] == 4 * 7_615_616_512
    for device in (
        estimate_training(model, fit, eight, row, 40 * GIB).device,  # no room
        estimate_training(model, fit, eight, row).device,  # a CPU
        estimate_training(model, replace(fit, batch_size=8), eight, row, 80 * GIB).device,  # a step is one pass
        estimate_training(model, fit, replace(eight, strategy="ddp"), row, 80 * GIB).device,
    ):
        assert "whole gradients" not in device


def test_of_a_fits_ranks_the_first_alone_holds_the_model_in_the_machines_memory() -> None:
    model, row = find_architecture(CogVLM2BackboneConfig()), RowSize(256, 768)
    assert model is not None
    single = 4 * 19_503_105_280
    for strategy, copies in (("ddp", 1), ("fsdp2", 1), ("deepspeed", 8)):
        trainer = replace(GPU, strategy=strategy, devices=8)
        assert estimate_training(model, FitConfig(), trainer, row).host["model"] == copies * single
    eight = replace(GPU, devices=8)
    assert (
        estimate_sampling(model, eight, on_gpu=True, sequences=1, prompts=1, row=row).on_host == 0
    )  # read onto the GPUs
    assert estimate_sampling(model, eight, on_gpu=False, sequences=1, prompts=1, row=row).host["model"] == 8 * single


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SECTIONS)
def test_the_kv_cache_is_that_of_the_model_to_the_byte(family: str, tmp_path: Path) -> None:
    backbone = built(family)
    backbone.model.config.save_pretrained(tmp_path)
    model = find_architecture(SECTIONS[family](path=str(tmp_path)))
    assert model is not None
    row = solve_row(backbone.prompt_style, problems(1)[0])
    batch = backbone.pad(backbone.encode([row]))
    del batch["labels"]
    cache = DynamicCache(config=backbone.model.config.get_text_config())
    with torch.inference_mode():
        backbone.model(**batch, past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == model.decoder.cache_bytes(batch["input_ids"].shape[1], 4)


def test_sampling_from_the_large_backbones_by_hand() -> None:
    a_tokens = (
        (Qwen2VLBackboneConfig(), 56),
        (Qwen25VLBackboneConfig(), 56),
        (Qwen3VLBackboneConfig(), 144),
        (InternVL3BackboneConfig(), 56),
        (InternVL25BackboneConfig(), 128),
    )  # KiB
    for section, a_token in [(section, kib * 1024) for section, kib in (*a_tokens, (CogVLM2BackboneConfig(), 128))]:
        model = find_architecture(section)
        assert model is not None and model.decoder.cache_bytes(1, 2) == a_token
        tokens = model.image_tokens[1] + 256 + 2048
        need = estimate_sampling(model, GPU, True, 16, 16, RowSize(256, 2048)).device
        assert need["weights"] == 2 * model.total
        assert need["KV cache"] == pytest.approx(16 * tokens * a_token, rel=0.04)
    assert need["KV cache"] > 9 * GIB  # CogVLM2, 16 sequences of 4,610 tokens
    alone = estimate_sampling(model, GPU, False, 16, 16, RowSize(256, 2048)).device
    assert alone["weights"] == 4 * model.total  # a CPU samples in float32


def test_amounts_are_short() -> None:
    assert [needs.format_bytes(n) for n in (0, 1023, 1024, 150 * GIB)] == ["0 B", "1023 B", "1.0 KiB", "150 GiB"]
