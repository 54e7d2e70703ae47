"""--help and the page of settings: each setting has a line, taken from where it is declared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from mathse.config.compose import format_help
from mathse.config.data import JsonlDataConfig, SplitConfig
from mathse.config.evolution import EvolutionConfig, ReflectConfig
from mathse.config.fits import FitConfig
from mathse.config.schema import OPTIONS, EvaluateConfig, TrainConfig
from mathse.config.setting import describe_allowed, settings_of


def schemas_below(schema: type) -> Iterator[type]:
    yield schema
    for f in fields(schema):
        if is_dataclass(value := getattr(schema(), f.name)):
            yield from schemas_below(type(value))


SCHEMAS = {s for top in (TrainConfig, EvaluateConfig) for s in schemas_below(top)}
SCHEMAS |= {s for options in OPTIONS.values() for option in options for s in schemas_below(option)}


@pytest.mark.parametrize("schema", sorted(SCHEMAS, key=lambda s: s.__name__), ids=lambda s: s.__name__)
def test_every_setting_says_what_it_is(schema: type) -> None:
    sections = {f.name for f in fields(schema) if is_dataclass(getattr(schema(), f.name))}
    for name in {f.name for f in fields(schema)} - {"_target_", *sections, *OPTIONS}:
        description = settings_of(schema)[name].description or ""
        assert description[:1].isupper() and description.endswith((".", ").")), f"{schema.__name__}.{name}: a sentence"


def test_an_inherited_setting_keeps_its_description() -> None:
    assert settings_of(JsonlDataConfig)["test_share"].description == settings_of(SplitConfig)["test_share"].description


def test_what_a_setting_may_be_is_what_its_reading_enforces() -> None:
    assert describe_allowed(settings_of(ReflectConfig)["when"]) == "last | every | never"
    assert describe_allowed(settings_of(FitConfig)["epochs"]) == "> 0 or null"
    assert describe_allowed(settings_of(EvolutionConfig)["keep"]) == "one | all | balanced | >= 1"
    assert describe_allowed(settings_of(JsonlDataConfig)["test_share"]) == ">= 0 and <= 1"
    assert describe_allowed(settings_of(JsonlDataConfig)["path"]) == ""


def test_help_has_a_line_for_each_setting_with_its_value_its_choices_and_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")  # lines are broken at a terminal's width
    lines = [" ".join(line.split()) for line in format_help(["seed=7"], TrainConfig).splitlines()]
    assert "seed=7 (>= 0) Random seed of all sampling, shuffling and initialisation." in lines
    assert "data.seed=${seed} Random seed of the problems." in lines
    assert any(line.startswith("evolution.reflect.when=last (last | every | never) ") for line in lines)
    shown = {line.partition("=")[0] for line in lines}
    assert {"sft.optimizer.lr", "trainer.devices", "evolution.round.sample_size", "generator.top_p"} <= shown


def test_help_shows_the_settings_of_the_options_that_are_chosen() -> None:
    page = format_help(["teacher=openai", "logger=wandb", "~callbacks.reflect"], TrainConfig)
    assert "teacher.budget_usd=null" in page and "logger.entity=null" in page
    assert "benchmark.mathvista.rule=released" in format_help(["benchmark=[mathvista,mathverse]"], EvaluateConfig)


def test_help_of_settings_that_are_wrong_shows_them_as_they_are() -> None:
    assert "seed=-1" in format_help(["seed=-1"], TrainConfig)


def test_help_breaks_its_lines_at_a_terminals_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    settings = format_help([], TrainConfig).partition("Settings (")[2].partition("Common commands")[0]
    assert max(map(len, settings.splitlines()[1:])) <= 90
