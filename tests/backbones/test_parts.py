"""Which part a weight belongs to, what is frozen, and which modules an adapter's pattern hits: at the published sizes,
on the meta device, where a model takes no memory."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2VLConfig
from transformers import Qwen2VLForConditionalGeneration as Qwen2VL

from mathse.commands.tiny import BUILDERS
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
from mathse.config.rules.fits import PARTS as PARTS_IN_RULES
from mathse.config.rules.fits import SCOPES
from mathse.errors import ConfigError
from mathse.models import adapters
from mathse.models.base import Backbone
from mathse.models.cogvlm2 import CogVLM2Config, CogVLM2ForConditionalGeneration
from mathse.models.cogvlm2.backbone import CogVLM2Backbone
from mathse.models.internvl2_5.backbone import InternVL25Backbone
from mathse.models.internvl3 import InternVL3Backbone
from mathse.models.parts import PARTS, find_part, freeze, iterate_parameters, lora_pattern
from mathse.models.qwen2_5_vl import Qwen25VLBackbone
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.qwen3_vl import Qwen3VLBackbone

QWEN2VL_7B = Qwen2VLConfig(  # the class's own defaults are larger
    text_config={
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    vision_config={"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 3584},
)
INTERNVL2_5_8B = InternVLConfig(
    text_config={
        "model_type": "llama",
        "vocab_size": 92553,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    vision_config={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "attention_bias": True,
        "image_size": [448, 448],
    },
    tie_word_embeddings=False,
)
# family: its backbone, its model at the published size, its parameters, and millions of them in tower and connector
FAMILIES: dict[str, tuple[type[Backbone], Any, Any, int, float, float]] = {
    "qwen2vl": (Qwen2VLBackbone, Qwen2VL, lambda: QWEN2VL_7B, 8_291_375_616, 631.2, 44.6),
    "internvl2_5": (
        InternVL25Backbone,
        InternVLForConditionalGeneration,
        lambda: INTERNVL2_5_8B,
        8_075_365_376,
        304.0,
        33.6,
    ),
    "cogvlm2": (CogVLM2Backbone, CogVLM2ForConditionalGeneration, CogVLM2Config, 19_503_105_280, 4297.0, 196.4),
}
SMALL = sorted(BUILDERS)


def published(family: str) -> Backbone:
    """A backbone whose model has the published shapes and no contents."""
    backbone_class, model_class, config, *_ = FAMILIES[family]
    backbone = backbone_class.__new__(backbone_class)
    with torch.device("meta"):
        backbone.model = model_class(config())
    return backbone


def small(family: str) -> Backbone:
    module, _, name = BUILDERS[family].rpartition(".")
    backbone: Backbone = getattr(import_module(module), name)(0)
    return backbone


def adapted(backbone: Backbone) -> list[str]:
    return [name for name, module in backbone.model.named_modules() if isinstance(module, LoraLayer)]


def put_on(backbone: Backbone, *scopes: str) -> None:
    adapters.attach(backbone, rank=16, alpha=32, dropout=0.0, scopes=list(scopes), seed=0)


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_tower_and_connector_have_the_published_sizes_and_all_else_is_language(family: str) -> None:
    backbone, (*_, whole, tower, connector) = published(family), FAMILIES[family]
    counts: Counter[str] = Counter()
    for part, _, parameter in iterate_parameters(backbone):
        counts[part] += parameter.numel()
    assert round(counts["tower"] / 1e6, 1) == tower
    assert round(counts["connector"] / 1e6, 1) == connector
    assert set(counts) == set(PARTS) and counts.total() == whole
    assert find_part(backbone, "lm_head.weight") == "language"
    embeddings = next(name for name, _ in backbone.model.named_parameters() if "embed_tokens" in name)
    assert find_part(backbone, embeddings) == "language"


@pytest.mark.parametrize("family", SMALL)
def test_a_frozen_part_asks_for_no_gradient_and_the_others_do(family: str) -> None:
    for frozen in (["tower"], ["connector"], ["tower", "connector"], ["language"]):
        backbone = small(family)
        freeze(backbone, frozen)
        for part, name, parameter in iterate_parameters(backbone):
            assert parameter.requires_grad == (part not in frozen), name


def test_an_unknown_part_is_refused_and_so_is_freezing_all() -> None:
    with pytest.raises(ConfigError, match="no part 'vision'; the parts are tower, connector, language"):
        freeze(small("tiny"), ["vision"])
    with pytest.raises(ConfigError, match="every part of the model is frozen"):
        freeze(small("tiny"), ["language", "tower", "connector"])


# --- adapters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "scopes", "modules", "millions"),
    [
        ("qwen2vl", ["language"], 196, 40.37),
        ("qwen2vl", ["tower"], 32 * 4, None),
        ("internvl2_5", ["language"], 224, 41.94),
        ("internvl2_5", ["tower"], 24 * 6, None),
        ("cogvlm2", ["language"], 160, 37.75),
        ("cogvlm2", ["language", "vision_expert"], 320, 75.50),
        ("cogvlm2", ["tower"], 63 * 4, None),
    ],
)
def test_a_scope_hits_its_modules_and_no_others_at_the_published_size(
    family: str, scopes: list[str], modules: int, millions: float | None
) -> None:
    backbone = published(family)
    put_on(backbone, *scopes)
    found = adapted(backbone)
    assert len(found) == modules
    expected_part = "tower" if scopes == ["tower"] else "language"
    assert {find_part(backbone, name) for name in found} == {expected_part}
    if millions is not None:
        trained = sum(p.numel() for p in backbone.model.parameters() if p.requires_grad)
        assert round(trained / 1e6, 2) == millions


@pytest.mark.parametrize("family", SMALL)
def test_adapters_are_all_that_trains_and_touch_no_tower_unless_asked(family: str) -> None:
    backbone = small(family)
    put_on(backbone, "language")
    trained = [(part, name) for part, name, p in iterate_parameters(backbone) if p.requires_grad]
    assert trained and all(part == "language" and ".lora_" in name for part, name in trained)
    backbone = small(family)
    put_on(backbone, *backbone.lora_scopes)
    assert {find_part(backbone, name) for name in adapted(backbone)} == {"tower", "language"}


@pytest.mark.parametrize(("family", "suffixes"), [("internvl2_5", ["q_proj"]), ("cogvlm2", ["dense", "gate_proj"])])
def test_what_the_patterns_are_anchored_against_plain_suffixes_hit_the_vision_side(
    family: str, suffixes: list[str]
) -> None:
    backbone = small(family)
    names = [name for name, _ in backbone.model.named_modules()]
    for suffix in suffixes:
        assert any(find_part(backbone, n) != "language" for n in names if n.endswith(f".{suffix}")), suffix


def test_an_unknown_scope_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"lora.scopes = \['vision_expert'\]: must name one or more of language, tower"
    ):
        lora_pattern(small("tiny"), ["vision_expert"])
    with pytest.raises(ConfigError, match=r"lora.scopes = \[\]"):
        lora_pattern(small("tiny"), [])


def test_the_settings_know_the_parts_and_scopes_of_each_family() -> None:
    assert PARTS_IN_RULES == PARTS
    families = {
        TinyBackboneConfig: Qwen2VLBackbone,
        Qwen2VLBackboneConfig: Qwen2VLBackbone,
        Qwen25VLBackboneConfig: Qwen25VLBackbone,
        Qwen3VLBackboneConfig: Qwen3VLBackbone,
        InternVL25BackboneConfig: InternVL25Backbone,
        InternVL3BackboneConfig: InternVL3Backbone,
        CogVLM2BackboneConfig: CogVLM2Backbone,
    }
    asked = {
        CausalLMBackboneConfig,
        SmolLM2BackboneConfig,
        SmolLM2VisionBackboneConfig,
        HFBackboneConfig,
    }  # their scopes are found in each model
    assert {schema: tuple(family.lora_scopes) for schema, family in families.items()} == {
        schema: scopes for schema, scopes in SCOPES.items() if schema not in asked
    }
