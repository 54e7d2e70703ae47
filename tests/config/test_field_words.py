"""The field's names for our settings, and options spelt otherwise."""

from __future__ import annotations

import pytest

from mathse.config.bind import did_you_mean, key_paths
from mathse.config.field_words import FIELD_WORDS, OF_HYDRA
from mathse.config.overrides import as_spelt
from mathse.config.schema import EvaluateConfig, TrainConfig

SETTINGS = {*key_paths(TrainConfig()), *key_paths(EvaluateConfig()), *OF_HYDRA}


def test_every_word_of_the_field_leads_to_settings_that_there_are() -> None:
    assert {name for names in FIELD_WORDS.values() for name in names} <= SETTINGS


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("learning_rate", "sft.optimizer.lr"), ("gradient_accumulation_steps", "sft.micro_batch_size"),
        ("epochs", "sft.epochs"), ("K", "evolution.rounds"), ("gpus", "trainer.devices"), ("model", "backbone.path"),
        ("checkpoint", "backbone.path"), ("SFT.Max-Steps", "sft.max_steps"),
    ],
)  # fmt: skip
def test_a_word_of_the_field_is_understood(name: str, setting: str) -> None:
    assert did_you_mean(name, key_paths(TrainConfig())) == f"; did you mean {setting}?"


def test_an_option_may_be_spelt_otherwise() -> None:
    spelt = as_spelt(["backbone=InternVL2.5", "+backbone@orm.backbone=Qwen2-VL", "backbone=gpt", "name=Qwen2VL", "-m"])
    assert spelt == [
        "backbone=internvl2_5", "+backbone@orm.backbone=qwen2vl", "backbone=gpt", "name=Qwen2VL", "-m",
    ]  # fmt: skip
