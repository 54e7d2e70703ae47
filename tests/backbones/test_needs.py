"""The memory that a model needs, from its shape alone: beside the models themselves, and beside arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from small import problems
from transformers import DynamicCache, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.internvl import InternVLForConditionalGeneration

from mathse.commands.tiny import BUILDERS
from mathse.config import build
from mathse.config.backbones import CogVLM2, InternVL25, Qwen2VL, TinyBackbone
from mathse.config.fits import Fit, Lora
from mathse.config.schema import Trainer
from mathse.inference.rows import solve_row
from mathse.models import memory, modes, needs
from mathse.models.base import Backbone
from mathse.models.cogvlm2 import CogVLM2Config, CogVLM2ForConditionalGeneration
from mathse.models.cogvlm2.backbone import CogVLM2Backbone
from mathse.models.internvl2_5 import InternVL25Backbone
from mathse.models.internvl2_5.published import native_config
from mathse.models.needs import RowSize, of_fit, of_sampling
from mathse.models.parts import named_parts
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.shapes import PUBLISHED, shape_of
from mathse.training import loader

SECTIONS: dict[str, Any] = {"qwen2vl": Qwen2VL, "internvl2_5": InternVL25, "cogvlm2": CogVLM2, "tiny": TinyBackbone}
GIB = 2**30
GPU = Trainer(accelerator="gpu")


def built(family: str) -> Backbone:
    module, _, name = BUILDERS[family].rpartition(".")
    backbone: Backbone = getattr(import_module(module), name)(0)
    return backbone


def counts(backbone: Any) -> dict[str, int]:
    parts = {"tower": 0, "connector": 0, "language": 0}
    for part, _, parameter in named_parts(backbone):
        parts[part] += parameter.numel()
    return parts


@pytest.mark.parametrize("family", sorted(SECTIONS))
def test_a_folders_config_tells_the_parameters_of_each_part(family: str, tmp_path: Path) -> None:
    backbone = built(family)
    backbone.model.config.save_pretrained(tmp_path)
    shape = shape_of(SECTIONS[family](path=str(tmp_path)))
    assert shape is not None and shape.parameters == counts(backbone)
    assert shape.vocabulary == backbone.model.config.get_text_config().vocab_size


@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 64, "layers": 2, "heads": 2, "vision_layers": 2}])
def test_the_tiny_backbone_of_random_weights_is_known_from_its_settings(sizes: dict[str, int]) -> None:
    settings = TinyBackbone(**sizes)
    shape = shape_of(settings)
    assert shape is not None and shape.parameters == counts(build(settings))


def published_models() -> dict[str, Any]:
    qwen, internvl, cogvlm2 = (PUBLISHED[SECTIONS[family]().path] for family in ("qwen2vl", "internvl2_5", "cogvlm2"))
    text = {k: v for k, v in qwen.items() if isinstance(v, int)}
    vision = {**qwen["vision_config"], "hidden_size": qwen["hidden_size"]}
    more = {"architectures": ["InternLM2ForCausalLM"], "hidden_act": "silu", "max_position_embeddings": 32768}
    said = {
        **internvl,
        "llm_config": {**internvl["llm_config"], **more, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
        "vision_config": {**internvl["vision_config"], "qk_normalization": False, "norm_type": "layer_norm"},
        "template": "internvl2_5",
        "ps_version": "v2",
        "downsample_ratio": 0.5,
    }
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    tied = {"tie_word_embeddings": False}
    return {
        "qwen2vl": lambda: Qwen2VLForConditionalGeneration(
            Qwen2VLConfig(text_config={**text, "rope_parameters": rotary, **tied}, vision_config=vision, **tied)
        ),
        "internvl2_5": lambda: InternVLForConditionalGeneration(native_config(said, image_token_id=9, where="here")),
        "cogvlm2": lambda: CogVLM2ForConditionalGeneration(CogVLM2Config(**cogvlm2)),
    }


@pytest.mark.parametrize(
    ("family", "backbone", "total"),
    [
        ("qwen2vl", Qwen2VLBackbone, 8_291_375_616),
        ("internvl2_5", InternVL25Backbone, 8_075_365_376),
        ("cogvlm2", CogVLM2Backbone, 19_503_105_280),
    ],
)
def test_a_published_checkpoint_has_the_parameters_of_the_model_on_the_meta_device(
    family: str, backbone: Any, total: int
) -> None:
    shape = shape_of(SECTIONS[family]())
    assert shape is not None and shape.total == total
    with torch.device("meta"):
        model = published_models()[family]()
    opened = type("Opened", (), {"model": model, "parts": backbone.parts})()
    assert shape.parameters == counts(opened)


def test_what_is_not_known_without_opening_it_has_no_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl", "vision_config": {}}')
    assert shape_of(Qwen2VL(path=str(tmp_path))) is None
    assert shape_of(Qwen2VL(path="somebody/qwen2-vl")) is None
    assert shape_of({"_target_": "my.own.Backbone", "path": "Qwen/Qwen2-VL-7B-Instruct"}) is None


# --- a fit ------------------------------------------------------------------------------------------------------------

MODES = {
    "full": Fit(),
    "frozen": Fit(freeze=["tower", "connector"]),
    "frozen_lower": Fit(freeze=["tower", "connector"], freeze_layers=1),
    "frozen_lower_below_a_connector": Fit(freeze=["tower"], freeze_layers=1),
    "lora_above": Fit(method="lora", freeze_layers=1),
    "lora": Fit(method="lora"),
    "lora_everywhere": Fit(method="lora", lora=Lora(scopes=["language", "tower"])),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("family", ["qwen2vl", "internvl2_5", "cogvlm2"])
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
    shape = shape_of(SECTIONS[family](path=str(tmp_path)))
    assert shape is not None
    image = (longest.ids.count(backbone.image_id) if hasattr(backbone, "image_id") else shape.image_tokens[0], 0)
    patches = (memory.patches(backbone.model.config, longest.features), 0)
    eager = backbone.model.config.get_text_config()._attn_implementation == "eager"
    shape = replace(shape, image_tokens=image, patches=patches, decoder=replace(shape.decoder, eager=eager))
    response = len(longest.response)
    size = RowSize(len(longest.ids) - response - image[0], response)
    planned = of_fit(shape, settings, Trainer(precision=precision), size).device  # type: ignore[arg-type]
    assert planned["weights"] == counted.weights
    assert (planned["gradients"], planned["optimiser"]) == (counted.gradients, counted.optimiser)
    assert planned["activations"] + planned["loss"] == pytest.approx(counted.activations, rel=0.15)


def test_weights_gradients_and_moments_of_a_7b_model_by_hand() -> None:
    shape, row = shape_of(Qwen2VL()), RowSize(256, 768)
    assert shape is not None
    adapters = 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))  # q, o; k, v; gate, up, down
    assert adapters == 40_370_176  # as peft makes them
    lora = of_fit(shape, Fit(method="lora", micro_batch_size=1), GPU, row).device
    assert lora["weights"] == 2 * 8_291_375_616 + 4 * adapters
    assert (lora["gradients"], lora["optimiser"]) == (4 * adapters, 8 * adapters)
    # 16 bytes a trained weight, 4 a frozen one: tower 631M and connector 45M of 8.29B are frozen
    full = of_fit(shape, Fit(freeze=["tower", "connector"], micro_batch_size=1), GPU, row).device
    held = sum(full[name] for name in ("weights", "gradients", "optimiser"))
    assert held == 16 * 7_615_616_512 + 4 * (631_183_360 + 44_575_744)
    eight = replace(GPU, strategy="fsdp2", devices=8)
    sharded = of_fit(shape, Fit(freeze=["tower", "connector"], micro_batch_size=1), eight, row).device
    assert sum(sharded[name] for name in ("weights", "gradients", "optimiser")) == held // 8
    assert sharded["gathered"] > 2 * 2 * 152064 * 3584  # embedding and head are whole in bfloat16 during a pass
    quantised = of_fit(shape, Fit(method="qlora", micro_batch_size=1), GPU, row).device
    assert 5.5 * GIB < quantised["weights"] < 7.5 * GIB  # 6.5B in 4 bit, the rest (tower, embedding, head) in bfloat16


def test_the_loss_is_bounded_by_its_chunks_and_checkpointing_keeps_inputs_alone() -> None:
    shape = shape_of(Qwen2VL())
    assert shape is not None
    row, fit = RowSize(256, 2048), Fit(method="lora", micro_batch_size=1)
    whole = of_fit(shape, fit, GPU, row).device
    assert whole["loss"] == GIB // 2 < 2048 * 152064 * 14
    head = 4 * 152064 * 3584  # bytes of a trained head's gradient, where there is a second one
    for trainer, second in (
        (GPU, 0),
        (replace(GPU, precision="bf16-true"), head),
        (replace(GPU, strategy="deepspeed", devices=2), head),
        (replace(GPU, strategy="fsdp2", devices=2), 0),  # gathered
    ):
        assert of_fit(shape, Fit(micro_batch_size=1), trainer, row).device["loss"] == GIB // 2 + second
    light = of_fit(shape, replace(fit, activation_checkpointing=True), GPU, row).device
    assert light["activations"] < whole["activations"] / 10


def test_a_bound_on_tokens_bounds_the_rows_and_what_loaders_hold() -> None:
    shape, row = shape_of(Qwen2VL()), RowSize(256, 768)  # 2,050 tokens with the picture's 1,026
    assert shape is not None and needs.AHEAD == loader.AHEAD
    trainer = replace(GPU, workers=4)
    two = of_fit(shape, Fit(method="lora", micro_batch_size=2), trainer, row)
    bounded = of_fit(shape, Fit(method="lora", micro_batch_size=64, tokens_per_micro_batch=4200), trainer, row)
    assert bounded == two
    assert two.host["loader"] == 4 * 2 * 2 * 4096 * 1176 * 2  # workers, ahead, rows, patches, numbers, bytes


def test_whole_gradients_wait_for_the_last_pass_where_a_card_has_room_for_them() -> None:
    shape, row = shape_of(Qwen2VL()), RowSize(256, 768)
    assert shape is not None
    fit = Fit(freeze=["tower", "connector"], batch_size=16, micro_batch_size=1, activation_checkpointing=True)
    eight = replace(GPU, strategy="fsdp2", devices=8)
    roomy = of_fit(shape, fit, eight, row, 80 * GIB).device
    assert roomy["whole gradients"] == 4 * 7_615_616_512
    for device in (
        of_fit(shape, fit, eight, row, 40 * GIB).device,  # no room
        of_fit(shape, fit, eight, row).device,  # a CPU
        of_fit(shape, replace(fit, batch_size=8), eight, row, 80 * GIB).device,  # a step is one pass
        of_fit(shape, fit, replace(eight, strategy="ddp"), row, 80 * GIB).device,
    ):
        assert "whole gradients" not in device


def test_of_a_fits_ranks_the_first_alone_holds_the_model_in_the_machines_memory() -> None:
    shape, row = shape_of(CogVLM2()), RowSize(256, 768)
    assert shape is not None
    single = 4 * 19_503_105_280
    for strategy, copies in (("ddp", 1), ("fsdp2", 1), ("deepspeed", 8)):
        trainer = replace(GPU, strategy=strategy, devices=8)
        assert of_fit(shape, Fit(), trainer, row).host["model"] == copies * single
    eight = replace(GPU, devices=8)
    assert of_sampling(shape, eight, on_gpu=True, sequences=1, prompts=1, row=row).on_host == 0  # read onto the GPUs
    assert of_sampling(shape, eight, on_gpu=False, sequences=1, prompts=1, row=row).host["model"] == 8 * single


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["tiny", "qwen2vl", "internvl2_5", "cogvlm2"])
def test_the_kv_cache_is_that_of_the_model_to_the_byte(family: str, tmp_path: Path) -> None:
    backbone = built(family)
    backbone.model.config.save_pretrained(tmp_path)
    shape = shape_of(SECTIONS[family](path=str(tmp_path)))
    assert shape is not None
    row = solve_row(backbone.prompt_style, problems(1)[0])
    batch = backbone.pad(backbone.encode([row]))
    del batch["labels"]
    cache = DynamicCache(config=backbone.model.config.get_text_config())
    with torch.inference_mode():
        backbone.model(**batch, past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == shape.decoder.cache_bytes(batch["input_ids"].shape[1], 4)


def test_sampling_from_the_large_backbones_by_hand() -> None:
    for section, a_token in ((Qwen2VL(), 56 * 1024), (InternVL25(), 128 * 1024), (CogVLM2(), 128 * 1024)):
        shape = shape_of(section)
        assert shape is not None and shape.decoder.cache_bytes(1, 2) == a_token
        tokens = shape.image_tokens[1] + 256 + 2048
        need = of_sampling(shape, GPU, True, 16, 16, RowSize(256, 2048)).device
        assert need["weights"] == 2 * shape.total
        assert need["KV cache"] == pytest.approx(16 * tokens * a_token, rel=0.04)
    assert need["KV cache"] > 9 * GIB  # CogVLM2, 16 sequences of 4,610 tokens
    alone = of_sampling(shape, GPU, False, 16, 16, RowSize(256, 2048)).device
    assert alone["weights"] == 4 * shape.total  # a CPU samples in float32


def test_amounts_are_short() -> None:
    assert [needs.in_bytes(n) for n in (0, 1023, 1024, 150 * GIB)] == ["0 B", "1023 B", "1.0 KiB", "150 GiB"]
