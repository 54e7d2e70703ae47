"""What must hold of the checkpoints that settings name (see ``mathse.config.rules``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mathse.config.backbones import CogVLM2, InternVL25, Qwen2VL, TinyBackbone
from mathse.config.bind import show
from mathse.config.data_rules import HUB_ID
from mathse.config.schema import TrainConfig

MODEL_TYPES: dict[type, tuple[str | None, ...]] = {  # config.json's model_type; the published CogVLM2 has none
    TinyBackbone: ("qwen2_vl",),
    Qwen2VL: ("qwen2_vl",),
    InternVL25: ("internvl", "internvl_chat"),
    CogVLM2: ("cogvlm2", None),
}


def backbone_weights_are_somewhere(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        value = getattr(backbone, "path", None)
        if not isinstance(value, str):
            continue
        if Path(value).is_dir():
            yield from checkpoint_problems(f"{path}.path", value, "a model's folder")
        elif not HUB_ID.fullmatch(value):
            yield (
                f"{path}.path = {show(value)}: neither a folder that exists nor a hub id of the form org/name; "
                "pass one of them, or null"
            )


def backbone_folder_is_of_its_family(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        expected = MODEL_TYPES.get(type(backbone))
        if expected is None or not backbone.path or not (file := Path(backbone.path, "config.json")).is_file():
            continue
        try:
            described = json.loads(file.read_text(encoding="utf-8"))
            found = described.get("model_type")
        except (ValueError, AttributeError, OSError):
            yield f"{path}.path = {show(backbone.path)}: its config.json cannot be read as a JSON object"
            continue
        if found not in expected:
            yield (
                f"{path}.path = {show(backbone.path)}: holds a model of type {show(found)}, and this backbone's is "
                f"{' or '.join(show(name) for name in expected)}; choose the folder's own backbone"
            )


def backbone_sizes_fit(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        if isinstance(backbone, TinyBackbone) and backbone.hidden_size % backbone.heads:
            yield f"{path}.hidden_size = {backbone.hidden_size}: must be divisible by {path}.heads = {backbone.heads}"
        if not isinstance(backbone, (TinyBackbone, Qwen2VL)):
            continue
        least, most = backbone.min_pixels, backbone.max_pixels
        if least is not None and most is not None and most < least:
            yield f"{path}.max_pixels = {most}: must be >= {path}.min_pixels = {least}"


def _backbones(config: Any) -> list[tuple[str, Any]]:
    orm = ("orm", config.orm.backbone) if isinstance(config, TrainConfig) else ("judge", config.judge.backbone)
    return [("backbone", config.backbone), (f"{orm[0]}.backbone", orm[1])]


def checkpoint_problems(path: str, value: str | None, what: str) -> Iterator[str]:
    if value is None or Path(value, "config.json").is_file():
        return
    lacks = "it has no config.json" if Path(value).is_dir() else "there is no such folder"
    yield f"{path} = {show(value)}: must be {what}, but {lacks}"
