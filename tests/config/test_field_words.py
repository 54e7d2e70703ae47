"""The field's names for our settings, and options spelt otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mathse.config.compose import compose_train
from mathse.config.field_words import ELSEWHERE, FIELD_WORDS, OF_HYDRA, suggest_name
from mathse.config.options import list_groups
from mathse.config.overrides import correct_spelling
from mathse.config.rules.files import check_checkpoint
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.config.sections import list_key_paths
from mathse.errors import ConfigError

SETTINGS = {*list_key_paths(TrainConfig), *list_key_paths(EvaluateConfig), *OF_HYDRA}


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
    assert suggest_name(name, list_key_paths(TrainConfig)) == f"; did you mean {setting}?"


def test_an_option_may_be_spelt_otherwise() -> None:
    spelt = correct_spelling(
        ["backbone=InternVL2.5", "+backbone@orm.backbone=Qwen2-VL", "backbone=gpt", "name=Qwen2VL"]
    )
    assert spelt == [
        "backbone=internvl2_5", "+backbone@orm.backbone=qwen2vl", "backbone=gpt", "name=Qwen2VL",
    ]  # fmt: skip


def test_options_may_be_spelt_otherwise_in_lists_and_sweeps() -> None:
    assert correct_spelling(["benchmark=[MathVista, MATHVERSE]", "teacher=OpenAI,replay", "judge=glob(*)"]) == [
        "benchmark=[mathvista, mathverse]", "teacher=openai,replay", "judge=glob(*)",
    ]  # fmt: skip


def test_flags_may_stand_among_settings() -> None:
    assert correct_spelling(["seed=1,2", "-m", "judge=answer", "--config-dir", "mine", "name=a"]) == [
        "-m", "--config-dir", "mine", "seed=1,2", "judge=answer", "name=a"
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["lora", "LoRA"])
def test_a_choice_may_be_spelt_otherwise_and_what_follows_it_follows(method: str) -> None:
    config, _ = compose_train(["backbone=qwen2vl", f"sft.method={method}", "trainer.precision=BF16-Mixed"])
    assert (config.sft.method, config.orm.fit.method, config.trainer.precision) == ("lora", "lora", "bf16-mixed")
    assert config.sft.optimizer.lr == 1e-4  # an adapter's, of conf/sft


def test_a_run_or_stage_folder_in_the_place_of_its_checkpoint_is_understood(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "final" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    for folder in (checkpoint.parent, checkpoint.parents[1]):
        (sentence,) = check_checkpoint("checkpoint", str(folder), "a checkpoint folder of a run")
        assert sentence.endswith(f"but it has no config.json; did you mean {checkpoint}?")


@pytest.mark.parametrize(
    ("setting", "ours"),
    [
        ("model=qwen", "backbone=NAME"), ("max_epochs=3", "did you mean sft.epochs?"), ("ckpt_path=x", "resume=last"),
        ("tags=[a]", "name=NAME"), ("task_name=x", "did you mean name?"), ("paths=default", "hydra.run.dir=DIR"),
        ("paths.output_dir=x", "hydra.run.dir=DIR"), ("debug=default", "experiment=smoke"),
        ("hparams_search=x", "hydra/sweeper=tpe"), ("logger=many_loggers", "logger=[wandb,tensorboard]"),
        ("accumulate_grad_batches=2", "sft.micro_batch_size"), ("devices=2", "did you mean trainer.devices?"),
        ("trainer.max_epochs=3", "did you mean sft.epochs?"), ("trainer.gradient_clip_val=1", "sft.optimizer.clip?"),
        ("trainer.accumulate_grad_batches=2", "sft.micro_batch_size"), ("model.optimizer.lr=1", "backbone.path=DIR"),
        ("trainer.callbacks.x=1", "+lightning_callbacks.NAME._target_=CLASS"), ("cutoff_len=2048", "sft.max_length?"),
        ("finetuning_type=lora", "did you mean sft.method?"), ("model_name_or_path=x", "did you mean backbone.path?"),
    ],
)  # fmt: skip
def test_what_users_of_other_programs_type_is_answered_with_our_name(setting: str, ours: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_train([setting])
    (sentence,) = str(caught.value).splitlines()
    assert sentence.startswith(setting.partition("=")[0]) and ours in sentence


@pytest.mark.parametrize("sentence", ELSEWHERE.values())
def test_a_sentence_for_another_programs_word_names_settings_that_there_are(sentence: str) -> None:
    names = re.findall(r"[\w./]+(?==)", sentence)
    known = {*SETTINGS, *list_groups(), "hydra/sweeper", "lightning_callbacks.NAME._target_"}
    assert set(names) <= known, set(names) - known
