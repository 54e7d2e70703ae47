"""What a run holds in memory at a time: a student, or the ORM, or the model of a fit."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from e2e.runs import SIZES, WORLD, run
from transformers import PreTrainedModel

from mathse.models.base import Backbone
from mathse.models.model_spec import ModelSpec


@pytest.fixture
def alive_at_opening(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the run's models are in memory whenever it opens one, that one included."""
    opened: list[weakref.ref[PreTrainedModel]] = []
    counts: list[int] = []
    really_open = ModelSpec.open

    def watched(spec: ModelSpec, device: torch.device | None = None) -> Backbone:
        backbone = really_open(spec, device)
        opened.append(weakref.ref(backbone.model))
        counts.append(sum(model() is not None for model in opened))
        return backbone

    monkeypatch.setattr(ModelSpec, "open", watched)
    return counts


@pytest.mark.parametrize(
    "settings",
    [
        ("distill.judge=orm", "judge=orm"),
        ("distill.judge=answer", "judge=orm_and_answer", "evolution.reflect.when=every", "evolution.rounds=2"),
        ("distill.judge=answer", "judge=random", "evolution.reflect.feedback=orm", "teacher=student"),
        ("distill.judge=answer", "judge=random", "sft.method=lora", "evolution.reflect.feedback=orm"),
    ],
    ids=["orm", "every round", "own teacher", "lora"],
)
def test_a_run_has_one_model_in_memory_at_a_time(
    alive_at_opening: list[int], tmp_path: Path, settings: tuple[str, ...]
) -> None:
    run(tmp_path / "run", *SIZES, *WORLD, *settings)
    assert len(alive_at_opening) > 6 and set(alive_at_opening) == {1}, alive_at_opening
