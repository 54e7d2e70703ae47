"""Each kind of stage may train for a length, batch and rate of its own, and depends on its own section alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mathse.config.compose import train_config
from mathse.config.fits import SFT, FitStage, StageFit
from mathse.evolution.keys import flatten_for_identity, list_fitting_keys
from mathse.runs.settings import config_slice

CONFIG, _ = train_config([])


def depends_on(sft: SFT, stage: FitStage) -> dict[str, object]:
    config = replace(CONFIG, sft=sft)
    return config_slice(flatten_for_identity(config), list_fitting_keys(config, stage))


def test_a_stage_takes_its_own_epochs_in_place_of_the_steps_of_all() -> None:
    sft = SFT(max_steps=300, distill=StageFit(epochs=4), round=StageFit(max_steps=7, batch_size=8, lr=1e-5))
    assert (sft.of_stage("distill").epochs, sft.of_stage("distill").max_steps) == (4, None)
    round_ = sft.of_stage("round")
    assert (round_.max_steps, round_.batch_size, round_.optimizer.lr) == (7, 8, 1e-5)
    assert sft.of_stage("distill").steps(250) == round(4 * 250 / 64)
    assert sft.of_stage("final") == sft and sft.of_stage(None) is sft


@pytest.mark.parametrize("stage", ["distill", "round", "final"])
def test_a_stage_depends_on_its_own_section_and_on_no_other(stage: FitStage) -> None:
    plain = depends_on(CONFIG.sft, stage)
    for changed in ("distill", "round", "final"):
        differs = depends_on(replace(CONFIG.sft, **{changed: StageFit(epochs=2)}), stage) != plain
        assert differs == (changed == stage)


def test_a_stage_depends_on_what_runs_without_these_sections_recorded() -> None:
    recorded = flatten_for_identity(CONFIG)
    later = tuple(f"sft.{stage}." for stage in ("distill", "round", "final"))
    before = {key: value for key, value in recorded.items() if not key.startswith(later)}
    keys = list_fitting_keys(CONFIG, "round")
    assert config_slice(recorded, keys) == config_slice(before, (*keys, "sft"))
