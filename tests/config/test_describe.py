"""--help and the page of settings: each setting has a line, taken from where it is declared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from mathse.config.compose import help_page
from mathse.config.data import JsonlData
from mathse.config.describe import allowed, comments
from mathse.config.evolution import Reflect
from mathse.config.fits import Fit
from mathse.config.schema import OPTIONS, EvaluateConfig, TrainConfig


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
    assert {f.name for f in fields(schema)} - {"_target_", *sections, *OPTIONS} <= {*comments(schema)}


def test_a_comment_stands_beside_its_field_or_right_above_it() -> None:
    assert comments(Reflect)["row"].startswith("what a rewrite is an answer to in D_SFT: the question (Alg. 1), or ")
    assert comments(JsonlData)["test_share"] == "of all rows; never trained on"  # inherited


def test_what_a_setting_may_be_is_what_its_reading_enforces() -> None:
    of = {(schema, f.name): f for schema in (Reflect, Fit, JsonlData) for f in fields(schema)}
    assert allowed(Reflect, of[Reflect, "when"]) == "last | every | never"
    assert allowed(Fit, of[Fit, "epochs"]) == "> 0 or null"
    assert allowed(JsonlData, of[JsonlData, "test_share"]) == ">= 0 and <= 1"
    assert allowed(JsonlData, of[JsonlData, "path"]) == ""


def test_help_has_a_line_for_each_setting_with_its_value_its_choices_and_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")  # lines are broken at a terminal's width
    lines = [" ".join(line.split()) for line in help_page(["seed=7"], TrainConfig).splitlines()]
    assert "seed=7 (>= 0) of everything that is drawn by chance" in lines
    assert "data.seed=${seed} of the problems" in lines
    assert any(line.startswith("evolution.reflect.when=last (last | every | never) ") for line in lines)
    shown = {line.partition("=")[0] for line in lines}
    assert {"sft.optimizer.lr", "trainer.devices", "evolution.round.sample_size", "generator.top_p"} <= shown


def test_help_shows_the_settings_of_the_options_that_are_chosen() -> None:
    page = help_page(["teacher=openai", "logger=wandb", "~callbacks.reflect"], TrainConfig)
    assert "teacher.budget_usd=null" in page and "logger.entity=null" in page
    assert "benchmark.mathvista.rule=released" in help_page(["benchmark=[mathvista,mathverse]"], EvaluateConfig)


def test_help_of_settings_that_are_wrong_shows_them_as_they_are() -> None:
    assert "seed=-1" in help_page(["seed=-1"], TrainConfig)


def test_help_breaks_its_lines_at_a_terminals_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    settings = help_page([], TrainConfig).partition("Settings (")[2].partition("Common commands")[0]
    assert max(map(len, settings.splitlines()[1:])) <= 90
