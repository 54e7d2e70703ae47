"""Frozen lower layers and their kept hidden states: what stays as it is, and what a fit on them learns."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from small import picture
from torch import Tensor

from mathse.commands.tiny import BUILDERS
from mathse.config.fits import Fit, Lora, Optimizer
from mathse.config.schema import Trainer
from mathse.config.updates import DPOUpdateConfig
from mathse.errors import ConfigError, DataError
from mathse.models import layer_states, modes
from mathse.models.base import Backbone
from mathse.models.feature_store import GIB, FeatureStore
from mathse.models.layer_states import LayerStates
from mathse.models.lower_layers import find_layers
from mathse.models.row import Row
from mathse.training.batches import EpochStream, MixedStream
from mathse.training.fit import FitJob, fit
from mathse.training.updates.preferences import DPOUpdate

FAMILIES = {**BUILDERS, "causal_lm": "mathse.models.tiny.tiny_causal_lm"}
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
    module, _, builder = FAMILIES[name].rpartition(".")
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


@contextmanager
def counted_runs(backbone: Backbone) -> Iterator[tuple[Backbone, list[int]]]:
    """How often the lowest layer did work: a number a run."""
    runs: list[int] = []
    _, layers = find_layers(backbone)
    with next(layers[0].children()).register_forward_pre_hook(lambda *_: runs.append(1)):
        yield backbone, runs


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_fit_on_kept_states_learns_the_same_and_runs_no_lower_layer(
    name: str, method: str, pictured: list[Row], tmp_path: Path
) -> None:
    rows = rows_for(name, pictured)
    settings = replace(SETTINGS, method=method, lora=Lora(rank=2, alpha=4))
    fitted(tmp_path / "plain", rows, settings, name=name, gb=1e-9)
    assert not stored(tmp_path / "store")
    kept = fitted(tmp_path / "kept", rows, settings, name=name)
    assert len(stored(tmp_path / "store")) == len(rows)
    # a row by itself and a row in a batch differ by the order of sums in a product of matrices
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    adapted = (
        load_file(tmp_path / "kept" / "checkpoint" / "adapter" / "adapter_model.safetensors")
        if method == "lora"
        else {}
    )
    assert not any(re.search(r"layers\.0\.(self_attn|mlp)", key) for key in adapted if "vision" not in key)
    with counted_runs(family(name)) as (again, runs):
        trainer = Trainer(precision="32-true", tower_features_folder=str(tmp_path / "store"))
        fit(again, FitJob(tmp_path / "again", rows, 0, settings, trainer, rows[:3]))
    kinds = len({bool(row["images"]) for row in rows})
    assert len(runs) == 3 * kinds  # the trial before the first step
    weights = load_file(tmp_path / "again" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(weights[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_embeddings_and_lower_layers_stay_as_they_are_and_the_others_train(name: str) -> None:
    backbone = family(name)
    modes.prepare(backbone, SETTINGS, "32-true", seed=0)
    prefix, _ = find_layers(backbone)
    trained = {key for key, parameter in backbone.model.named_parameters() if parameter.requires_grad}
    assert any(key.startswith(f"{prefix}.1.") for key in trained)
    assert not any(key.startswith(f"{prefix}.0.") or "embed_tokens" in key for key in trained)


def test_a_step_on_kept_states_is_bit_for_bit_the_step_without_them_where_no_row_has_company(
    pictured: list[Row], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, micro_batch_size=1)
    plain = fitted(tmp_path / "plain", pictured, settings, name="qwen2vl", gb=1e-9)
    kept = fitted(tmp_path / "kept", pictured, settings, name="qwen2vl")
    assert losses(tmp_path / "kept") == losses(tmp_path / "plain")
    assert all(torch.equal(plain[key], kept[key]) for key in plain)


def test_a_fit_on_kept_states_that_is_cut_short_ends_with_the_same_bytes(pictured: list[Row], tmp_path: Path) -> None:
    class Stopped(Exception): ...

    class StopAt(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 4:
                raise Stopped

    rows = rows_for("causal_lm", pictured)
    whole = fitted(tmp_path / "whole", rows)
    with pytest.raises(Stopped):
        fitted(tmp_path / "cut", rows, callbacks=[StopAt()])
    shutil.rmtree(tmp_path / "store")  # whatever was kept in between is made anew
    resumed = fitted(tmp_path / "cut", rows)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_next_fit_of_a_run_finds_the_states_of_the_same_lower_layers(pictured: list[Row], tmp_path: Path) -> None:
    rows = rows_for("causal_lm", pictured)
    weights = fitted(tmp_path / "first", rows)
    files = stored(tmp_path / "store")
    student = family("causal_lm")
    student.model.load_state_dict({**student.model.state_dict(), **weights})
    trainer = Trainer(precision="32-true", tower_features_folder=str(tmp_path / "store"))
    fit(student, FitJob(tmp_path / "second", rows[:4], 1, SETTINGS, trainer))
    assert stored(tmp_path / "store") == files
    fit(family("causal_lm", seed=1), FitJob(tmp_path / "other", rows, 1, SETTINGS, trainer))
    assert len(stored(tmp_path / "store")) == 2 * len(files)  # other weights below


def test_a_fit_that_trains_below_the_layers_only_freezes_them_and_says_so(pictured: list[Row], tmp_path: Path) -> None:
    sentences: list[str] = []
    settings = replace(SETTINGS, freeze=["tower"])
    base = family("tiny")
    base.save(tmp_path / "base")
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = fitted(tmp_path / "fit", pictured, settings, name="tiny", say=sentences.append)
    (sentence,) = sentences
    assert "the lower 1 layers are frozen" in sentence and "trained weights are below them too" in sentence
    assert not stored(tmp_path / "store")
    assert all(torch.equal(after[key], before[key]) for key in after if ".layers.0." in key and "visual" not in key)


def test_rows_that_are_made_up_on_the_way_have_no_kept_states(pictured: list[Row], tmp_path: Path) -> None:
    sentences: list[str] = []
    rows = rows_for("causal_lm", pictured)
    stream = MixedStream(EpochStream(rows, 4, 0), lambda draw: rows[0], 0.3, 6)
    fitted(tmp_path / "fit", rows, stream=stream, say=sentences.append)
    assert "rows are made in each step" in sentences[0] and not stored(tmp_path / "store")


def test_both_paths_of_a_pair_have_their_states(pictured: list[Row], tmp_path: Path) -> None:
    pairs: list[Row] = [{**row, "rejected": "It is 1."} for row in rows_for("causal_lm", pictured)]
    settings = replace(SETTINGS, val_rows=0)
    fitted(tmp_path / "plain", pairs, settings, gb=1e-9, update=DPOUpdate(DPOUpdateConfig()))
    fitted(tmp_path / "kept", pairs, settings, update=DPOUpdate(DPOUpdateConfig()))
    assert len(stored(tmp_path / "store")) == 2 * len(pairs)
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


def test_nothing_is_random_below_the_layers_that_train(pictured: list[Row], tmp_path: Path) -> None:
    rows = rows_for("causal_lm", pictured)
    modes_seen: list[list[bool]] = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
            _, layers = find_layers(module.backbone)  # type: ignore[arg-type]
            modes_seen.append([layer.training for layer in layers])

    fitted(tmp_path / "fit", rows, gb=1e-9, callbacks=[Look()])
    assert modes_seen == [[False, True]] * 6


def test_a_file_that_is_gone_in_the_middle_of_a_fit_stops_it_with_a_sentence(
    pictured: list[Row], tmp_path: Path
) -> None:
    backbone = family("causal_lm")
    modes.prepare(backbone, SETTINGS, "32-true", seed=0)
    store = FeatureStore(tmp_path / "store", GIB)
    kept = layer_states.prepare(backbone, rows_for("causal_lm", pictured), store, "32-true")
    assert isinstance(kept, LayerStates)
    with pytest.raises(DataError, match="start the same command again"):
        kept.read(0)


def test_more_layers_than_there_are_and_all_of_them_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"freeze_layers = 2: the language model has 2 layers.*pass 1 or less"):
        modes.prepare(family("causal_lm"), replace(SETTINGS, freeze_layers=2), "32-true", seed=0)
