"""Frozen lower layers and their kept hidden states: what stays as it is, what a fit learns, and what a row's states are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import pytorch_lightning as pl
from safetensors.torch import load_file
from small import picture
from torch import Tensor

from mathse.commands.tiny import BUILDERS
from mathse.config.fits import Fit, Lora, Optimizer
from mathse.config.schema import Trainer
from mathse.models.base import Backbone
from mathse.models.lower_layers import layer_number
from mathse.models.row import Row
from mathse.training.fit import FitJob, fit

SETTINGS = Fit(
    max_steps=6,
    batch_size=4,
    micro_batch_size=2,
    freeze=["tower", "connector"],
    freeze_layers=1,
    optimizer=Optimizer(lr=1e-3),
    val_every=3,
)


def family(name: str, seed: int = 0) -> Backbone:
    module, _, builder = BUILDERS[name].rpartition(".")
    backbone: Backbone = getattr(import_module(module), builder)(seed)
    return backbone


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Six rows, of which two have no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for k, size in enumerate([(84, 28), (56, 56), (100, 60)]):
        picture(*size, seed=k).save(folder / f"{k}.png")
    shown = [[0], [1], [], [2], [], [0]]
    return [
        Row(
            id=str(k),
            question=f"What is {k * 37} + 5?",
            images=[folder / f"{i}.png" for i in images],
            response=f"It is {k * 37 + 5}{'!' * k}",
        )
        for k, images in enumerate(shown)
    ]


def rows_for(name: str, pictured: list[Row]) -> list[Row]:
    return [{**row, "images": []} for row in pictured] if name == "causal_lm" else pictured


def fitted(
    folder: Path,
    rows: Sequence[Row],
    settings: Fit = SETTINGS,
    *,
    name: str = "causal_lm",
    store: Path | None = None,
    gb: float = 1.0,
    callbacks: Sequence[pl.Callback] = (),
    say: Callable[[str], object] = print,
    **job: object,
) -> dict[str, Tensor]:
    """The weights after a fit."""
    trainer = Trainer(
        precision="32-true",
        checkpoint_every=2,
        log_every=1,
        tower_features_folder=str(store or folder.parent / "store"),
        tower_features_gb=gb,
    )
    done = fit(family(name), FitJob(folder, rows, 0, settings, trainer, rows[:3], **job), callbacks, say=say)  # type: ignore[arg-type]
    return load_file(done / "model.safetensors")


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("loss", "val_loss") if name in line]


def stored(store: Path) -> list[Path]:
    return sorted(store.glob("*/*.safetensors"))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_fit_on_kept_states_learns_the_same_and_runs_no_lower_layer(
    name: str, method: str, pictured: list[Row], tmp_path: Path
) -> None:
    rows = rows_for(name, pictured)
    settings = replace(SETTINGS, method=method, lora=Lora(rank=2, alpha=4))
    plain = fitted(tmp_path / "plain", rows, settings, name=name, gb=1e-9)
    assert not stored(tmp_path / "store")
    kept = fitted(tmp_path / "kept", rows, settings, name=name)
    assert len(stored(tmp_path / "store")) == len(rows)
    # a row by itself and a row in a batch differ by the order of sums in a product of matrices
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    before = family(name)
    frozen = {
        key for key, weight in before.model.state_dict().items() if (layer_number(before, key) == 0)
    }
    assert frozen
    print(sorted(kept)[:5], plain.keys() - kept.keys())
