"""Rules of fits (the student's and the ORM's) and of the devices that they run on."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, get_args

from mathse.config.backbones import (
    CausalLMBackboneConfig,
    CogVLM2BackboneConfig,
    HFBackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen2VLBackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
    SmolLM2BackboneConfig,
    SmolLM2VisionBackboneConfig,
    TinyBackboneConfig,
)
from mathse.config.extras import explain_missing
from mathse.config.fits import FitConfig, FitStage, StageFitConfig
from mathse.config.mistakes import show
from mathse.config.schema import TrainConfig

# The same as in mathse.models.parts and in each family's ``lora_scopes``, which load torch; a test compares them.
PARTS = ("tower", "connector", "language")
SCOPES: dict[type, tuple[str, ...]] = {
    TinyBackboneConfig: ("language", "tower"),
    Qwen2VLBackboneConfig: ("language", "tower"),
    Qwen25VLBackboneConfig: ("language", "tower"),
    Qwen3VLBackboneConfig: ("language", "tower"),
    InternVL25BackboneConfig: ("language", "tower"),
    InternVL3BackboneConfig: ("language", "tower"),
    CogVLM2BackboneConfig: ("language", "vision_expert", "tower"),
    CausalLMBackboneConfig: ("language",),
    SmolLM2BackboneConfig: ("language",),
    HFBackboneConfig: ("language", "tower"),
    SmolLM2VisionBackboneConfig: ("language", "tower"),
}


def fits_have_one_length(config: TrainConfig) -> Iterator[str]:
    for path, fit in _fits(config):
        if fit.epochs is not None and fit.max_steps is not None:
            yield (
                f"{path}.epochs = {fit.epochs:g} and {path}.max_steps = {fit.max_steps}: exactly one is set; to count "
                f"in epochs, also pass {path}.max_steps=null"
            )
        if fit.epochs is None and fit.max_steps is None:
            yield f"{path}.epochs = null and {path}.max_steps = null: exactly one is set; pass one of them"
    for stage in get_args(FitStage):
        own: StageFitConfig = getattr(config.sft, stage)
        if own.epochs is not None and own.max_steps is not None:
            yield (
                f"sft.{stage}.epochs = {own.epochs:g} and sft.{stage}.max_steps = {own.max_steps}: at most one is set; "
                "leave one out"
            )


def devices_work_together(config: Any) -> Iterator[str]:
    trainer = config.trainer
    if trainer.strategy == "auto" and trainer.devices != 1:
        yield (
            f"trainer.devices = {trainer.devices}: several devices need a strategy; pass trainer=ddp or trainer=fsdp, "
            f"and trainer.devices={trainer.devices} after it"
        )
    if trainer.strategy == "deepspeed" and trainer.accelerator == "cpu":
        yield "trainer.strategy = 'deepspeed': needs GPUs, and trainer.accelerator = 'cpu'; pass trainer=fsdp"


def quantized_weights_are_not_sharded(config: TrainConfig) -> Iterator[str]:
    for path, fit in _different_fits(config, "method"):
        if fit.method == "qlora" and config.trainer.strategy in ("fsdp2", "deepspeed"):
            yield (
                f"{path}.method = 'qlora': 4-bit weights cannot be sharded, and trainer.strategy = "
                f"{show(config.trainer.strategy)}; pass trainer=ddp, or {path}.method=lora"
            )


def qlora_can_run(config: TrainConfig) -> Iterator[str]:
    """As far as it can be known without torch; the task asks for the GPU itself before it loads a model."""
    for path, fit in _different_fits(config, "method"):
        if fit.method == "qlora" and (sentence := explain_missing("qlora")):
            yield f"{path}.method = 'qlora': {sentence}, or pass {path}.method=lora"
        elif fit.method == "qlora" and config.trainer.accelerator == "cpu":
            yield (
                f"{path}.method = 'qlora': needs a CUDA GPU, and trainer.accelerator = 'cpu'; pass trainer=gpu, "
                f"or {path}.method=lora"
            )


def a_part_is_trained(config: TrainConfig) -> Iterator[str]:
    for path, fit in _different_fits(config, "freeze"):
        if unknown := [part for part in fit.freeze if part not in PARTS]:
            yield f"{path}.freeze = {fit.freeze}: there is no part {show(unknown[0])}; the parts are {', '.join(PARTS)}"
    for path, fit in _different_fits(config, "freeze", "method"):
        if fit.method == "full" and set(PARTS) <= set(fit.freeze):
            yield (
                f"{path}.freeze = {fit.freeze}: leaves nothing to train with {path}.method = 'full'; leave a part out, "
                f"or pass {path}.method=lora"
            )


def frozen_layers_have_trained_layers_above(config: TrainConfig) -> Iterator[str]:
    """Check without the model. mathse/evolution/memory.py compares freeze_layers with the model's layers."""
    for path, fit in _different_fits(config, "freeze_layers", "freeze"):
        if fit.freeze_layers and "language" in fit.freeze:
            yield (
                f"{path}.freeze_layers = {fit.freeze_layers} and {path}.freeze = {fit.freeze}: with the whole language "
                f"model frozen no layer of it trains; pass {path}.freeze_layers=0, or leave language out"
            )


def kept_features_come_from_a_frozen_tower(config: TrainConfig) -> Iterator[str]:
    for path, fit in _different_fits(config, "tower_features", "method", "freeze", "lora.scopes"):
        if not fit.tower_features:
            continue
        off = f"or pass {path}.tower_features=false"
        if fit.method == "full" and "tower" not in fit.freeze:
            yield (
                f"{path}.tower_features = true: only what a frozen tower sees can be kept, and {path}.freeze = "
                f"{fit.freeze} lets it train; pass {path}.freeze=[tower], {off}"
            )
        if fit.method != "full" and "tower" in fit.lora.scopes:
            yield (
                f"{path}.tower_features = true: only what a frozen tower sees can be kept, and {path}.lora.scopes = "
                f"{fit.lora.scopes} puts adapters on it; leave tower out, {off}"
            )
        backbone = config.orm.backbone if path == "orm.fit" and config.orm.backbone is not None else config.backbone
        if isinstance(backbone, HFBackboneConfig) and not isinstance(backbone, SmolLM2VisionBackboneConfig):
            yield f"{path}.tower_features = true: the tower of backbone=hf cannot be run by itself; pass false"
        if isinstance(backbone, InternVL25BackboneConfig) and backbone.jpeg:
            yield (
                f"{path}.tower_features = true: backbone.jpeg = true gives each row pixels of its own, so "
                f"nothing would be used twice; pass backbone.jpeg=false, {off}"
            )


def lora_scopes_exist(config: TrainConfig) -> Iterator[str]:
    fits = _fits(config) if config.orm.backbone is not None else _different_fits(config, "lora.scopes", "method")
    for path, fit in fits:
        backbone = config.orm.backbone if path == "orm.fit" and config.orm.backbone is not None else config.backbone
        known = SCOPES.get(type(backbone))
        if known is None or fit.method == "full":
            continue
        if not fit.lora.scopes or any(scope not in known for scope in fit.lora.scopes):
            yield f"{path}.lora.scopes = {fit.lora.scopes}: must name one or more of {', '.join(known)}"


def _fits(config: TrainConfig) -> list[tuple[str, FitConfig]]:
    return [("sft", config.sft), ("orm.fit", config.orm.fit)]


def _different_fits(config: TrainConfig, *keys: str) -> list[tuple[str, FitConfig]]:
    """Return the student's training settings, and the ORM's if one of ``keys`` differs: by default the ORM follows the
    student, and one mistake is one sentence."""
    values = attrgetter(*keys)
    return _fits(config) if values(config.sft) != values(config.orm.fit) else _fits(config)[:1]
