"""How often a training run shows its rows, and what it warns of."""

from __future__ import annotations

import pytest

from mathse.evolution.training_rows import Exposure, warn_about_exposure, warn_about_loss


def test_a_run_of_fixed_steps_on_many_rows_is_warned_to_be_less_than_an_epoch() -> None:
    (warning,) = warn_about_exposure(Exposure(rows=386, own=100, seen=240), "sft.round", has_own=True)
    assert "0.62" in warning and "sft.round.epochs" in warning


def test_a_round_is_warned_where_its_own_rows_are_under_a_tenth() -> None:
    (warning,) = warn_about_exposure(Exposure(rows=400, own=28, seen=800), "sft.round", has_own=True)
    assert "28 of 400" in warning and "evolution.samples_per_problem" in warning
    assert not list(warn_about_exposure(Exposure(rows=400, own=0, seen=800), "sft.distill", has_own=False))


def log(*losses: float) -> list[dict[str, float]]:
    return [{"step": k, "loss": loss} for k, loss in enumerate(losses)]


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_a_loss_that_falls_by_half_at_the_end_is_warned_of(scale: float) -> None:
    falling = [scale * (12 - k) for k in range(12)]
    (warning,) = warn_about_loss(log(*falling), "sft.distill")
    assert "sft.distill.epochs" in warning


def test_a_flat_loss_and_one_of_few_lines_are_not() -> None:
    assert not list(warn_about_loss(log(*[1.0, 0.5] * 8), "sft"))
    assert not list(warn_about_loss(log(3, 2, 1, 0.5), "sft"))
