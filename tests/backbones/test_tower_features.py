"""Kept features of a frozen tower: what they are, when they are used, and that a store of them can be relied on."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
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
from mathse.config.fits import AdapterConfig, FitConfig, OptimizerConfig
from mathse.config.schema import TrainerConfig
from mathse.errors import DataError
from mathse.models import modes
from mathse.models.base import TOWER_FEATURES, Backbone
from mathse.models.feature_store import GIB, FeatureStore
from mathse.models.needs import find_frozen_parts
from mathse.models.parts import iterate_parameters
from mathse.models.row import Row
from mathse.models.tower_features import TowerFeatures, count_bytes, list_pictures
from mathse.training.fit import FitJob, fit
from mathse.training.sft import SFTModule

CPU = torch.device("cpu")
DEPTHS = {"tower": ("tower",), "connector": ("tower", "connector")}
SETTINGS = FitConfig(
    max_steps=6,
    batch_size=4,
    micro_batch_size=2,
    freeze=["tower"],
    tower_features=True,
    optimizer=OptimizerConfig(lr=1e-3),
    val_every=3,
)


def family(name: str, seed: int = 0) -> Backbone:
    module, _, builder = BUILDERS[name].rpartition(".")
    backbone: Backbone = getattr(import_module(module), builder)(seed)
    return backbone


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", GIB)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Six rows on four pictures (files), one of them without a picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for k, size in enumerate([(84, 28), (56, 56), (100, 60), (28, 84)]):
        picture(*size, seed=k).save(folder / f"{k}.png")
    shown = [[0], [1], [2], [], [3], [0]]
    return [
        Row(question=f"What is {k} + 5?", images=[folder / f"{i}.png" for i in images], response=f"It is {k + 5}.")
        for k, images in enumerate(shown)
    ]


@contextmanager
def tower_runs(backbone: Backbone) -> Iterator[list[int]]:
    """How often the tower ran: a number a run."""
    runs: list[int] = []
    towers = {"qwen": "model.visual", "tiny": "model.visual", "internvl": "model.vision_tower"}
    names = (tower for family, tower in towers.items() if backbone.family.startswith(family))
    module = backbone.model.get_submodule(next(names, "model.vision.transformer"))
    with module.register_forward_pre_hook(lambda *_: runs.append(1)):
        yield runs


def loss_of(backbone: Backbone, rows: Sequence[Row]) -> float:
    logits, targets = backbone.answer_logits(backbone.pad(backbone.encode(rows)))
    return torch.nn.functional.cross_entropy(logits, targets).item()


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def fitted(
    folder: Path,
    rows: Sequence[Row],
    settings: FitConfig = SETTINGS,
    *,
    store: FeatureStore | None = None,
    name: str = "tiny",
    callbacks: Sequence[pl.Callback] = (),
    say: Callable[[str], object] = print,
) -> dict[str, Tensor]:
    """The weights after a fit, with features kept in ``store`` if there is one."""
    backbone = family(name)
    if store is not None:
        backbone.tower_features = TowerFeatures(store, find_frozen_parts(settings))
    trainer = TrainerConfig(precision="32-true", checkpoint_every=2, log_every=1)
    done = fit(backbone, FitJob(folder, rows, 0, settings, trainer, rows[:2]), callbacks, say=say)
    return load_file(done / "model.safetensors")


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_tower_and_connector_apart_are_what_the_model_makes_of_a_picture(name: str, rows: list[Row]) -> None:
    backbone = family(name)
    (prepared,) = backbone.prepare([backbone.open_picture(rows[0]["images"][0])])
    with torch.no_grad():
        whole = backbone.model.model.get_image_features(**prepared, return_dict=True).pooler_output
        apart = backbone.pooled(backbone.connector(backbone.tower(prepared)), prepared)
    assert all(torch.equal(one, other) for one, other in zip(whole, apart, strict=True))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_kept_features_change_a_loss_by_bfloat16s_rounding_alone(
    name: str, depth: str, rows: list[Row], store: FeatureStore
) -> None:
    backbone = family(name)
    backbone.model.eval()
    expected = loss_of(backbone, rows)
    backbone.tower_features = features = TowerFeatures(store, DEPTHS[depth])
    with features.use("fill"):
        first = loss_of(backbone, rows)
    with features.use("read"), tower_runs(backbone) as runs:
        assert loss_of(backbone, rows) == first
    assert not runs
    assert first == pytest.approx(expected, rel=1e-4)  # measured: 2e-7 to 3e-5
    assert loss_of(backbone, rows) == expected  # and off is as before


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_samples_from_kept_features_are_those_of_features_that_are_just_made(
    name: str, rows: list[Row], store: FeatureStore
) -> None:
    asked = [Row(question=row["question"], images=row["images"]) for row in rows]
    backbone = family(name)
    backbone.tower_features = TowerFeatures(store, ("tower",))
    with tower_runs(backbone) as runs:
        made = backbone.generate(asked, n=2, max_new_tokens=6, temperature=1.0, seed=3)
        assert len(runs) == 4  # pictures
        kept = backbone.generate(asked, n=2, max_new_tokens=6, temperature=1.0, seed=3)
        assert len(runs) == 4
    assert made == kept
    assert backbone.tower_features.mode == "off"


def test_a_picture_is_known_by_its_content_and_by_all_that_made_its_features(rows: list[Row], tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", GIB)

    def name(backbone: Backbone, image: Path, parts: tuple[str, ...] = ("tower", "connector")) -> str:
        backbone.tower_features = features = TowerFeatures(store, parts)
        return features._file(backbone, image).name

    image = rows[0]["images"][0]
    assert isinstance(image, Path)
    moved = tmp_path / "moved.png"
    shutil.copy(image, moved)
    one = name(family("tiny"), image)
    assert name(family("tiny"), moved) == one
    others = [name(family("tiny"), image, ("tower",)), name(family("tiny", seed=1), image)]
    for part in ("tower", "connector"):  # one weight changed
        changed = family("tiny")
        weight = next(p for of, _, p in iterate_parameters(changed) if of == part)
        weight.data.view(-1)[0] += 1
        others.append(name(changed, image))
    larger = family("tiny")
    larger.processor.image_processor.size = {"shortest_edge": 784, "longest_edge": 784}
    others.append(name(larger, image))
    halves = family("tiny")
    halves.model.bfloat16()
    others.append(name(halves, image))
    assert len({one, *others}) == 1 + len(others)
    language = family("tiny")
    next(p for of, _, p in iterate_parameters(language) if of == "language").data += 1
    assert name(language, image) == one


def test_tiles_to_train_on_and_to_answer_from_are_kept_apart(rows: list[Row], store: FeatureStore) -> None:
    backbone = family("internvl2_5")
    features = TowerFeatures(store, ("tower",))
    image = rows[2]["images"][0]
    assert features._file_of(backbone, (image, True)) != features._file_of(backbone, (image, False))


# --- in fits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_optimiser_holds_no_frozen_weight(name: str) -> None:
    backbone = family(name)
    modes.prepare(backbone, SETTINGS, "32-true", seed=0)
    optimizer = SFTModule(backbone, steps=1, optimizer=OptimizerConfig(lr=1e-3)).configure_optimizers()["optimizer"]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert all((id(p) in held) == (part != "tower") for part, _, p in iterate_parameters(backbone))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny", SETTINGS),
        ("qwen2vl", replace(SETTINGS, freeze=["tower", "connector"])),
        ("internvl2_5", SETTINGS),
        ("internvl3", replace(SETTINGS, method="lora", lora=AdapterConfig(rank=2, alpha=4), freeze=[])),
        ("qwen2_5_vl", SETTINGS),
        ("qwen3_vl", SETTINGS),
        ("qwen3_vl", replace(SETTINGS, freeze=["tower", "connector"])),
        ("cogvlm2", SETTINGS),
        ("cogvlm2", replace(SETTINGS, method="lora", lora=AdapterConfig(rank=2, alpha=4), freeze=[])),
    ],
)
def test_a_fit_on_kept_features_runs_no_tower_and_learns_the_same(
    name: str, settings: FitConfig, rows: list[Row], store: FeatureStore, tmp_path: Path
) -> None:
    plain = fitted(tmp_path / "plain", rows, settings, name=name)
    kept = fitted(tmp_path / "kept", rows, settings, name=name, store=store)
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
    assert len(list(store.folder.glob("*/*.safetensors"))) == 4
    again = family(name)
    again.tower_features = TowerFeatures(store, find_frozen_parts(settings))
    with tower_runs(again) as runs:
        trainer = TrainerConfig(precision="32-true", checkpoint_every=2, log_every=1)
        fit(again, FitJob(tmp_path / "again", rows, 0, settings, trainer, rows[:2]))
    assert not runs
    weights = load_file(tmp_path / "again" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(weights[key], kept[key]) for key in kept)
    of_tower = [key for key in plain if re.search(r"visual\.blocks|vision_tower|vision\.transformer", key)]
    assert of_tower and all(torch.equal(plain[key], kept[key]) for key in of_tower)


def test_a_fit_on_kept_features_that_is_cut_short_ends_with_the_same_bytes(
    rows: list[Row], store: FeatureStore, tmp_path: Path
) -> None:
    class Stopped(Exception): ...

    class StopAt(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 4:
                raise Stopped

    whole = fitted(tmp_path / "whole", rows, store=store)
    with pytest.raises(Stopped):
        fitted(tmp_path / "cut", rows, store=store, callbacks=[StopAt()])
    shutil.rmtree(store.folder)  # whatever was kept in between is made anew
    resumed = fitted(tmp_path / "cut", rows, store=store)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_fit_whose_features_do_not_fit_says_so_and_is_the_fit_without_a_store(
    rows: list[Row], tmp_path: Path
) -> None:
    sentences: list[str] = []
    small = FeatureStore(tmp_path / "store", 4000)
    plain = fitted(tmp_path / "plain", rows)
    other = fitted(tmp_path / "other", rows, store=small, say=sentences.append)
    assert all(torch.equal(plain[key], other[key]) for key in plain)
    (sentence,) = sentences
    assert "features of 4 pictures would take" in sentence and "raise trainer.tower_features_gb" in sentence
    assert not list(small.folder.glob("*/*.safetensors"))


def test_a_fit_that_trains_the_tower_uses_no_kept_features(
    rows: list[Row], store: FeatureStore, tmp_path: Path
) -> None:
    backbone = family("tiny")
    backbone.tower_features = TowerFeatures(store, ("tower",))
    settings = replace(SETTINGS, freeze=[], max_steps=1)
    fit(backbone, FitJob(tmp_path / "fit", rows, 0, settings, TrainerConfig(precision="32-true")))
    assert not store.folder.exists()


def test_a_file_that_is_damaged_in_the_middle_of_a_fit_stops_it_with_a_sentence(
    rows: list[Row], store: FeatureStore
) -> None:
    backbone = family("tiny")
    backbone.tower_features = features = TowerFeatures(store, ("tower",))
    features.fill(backbone, rows, CPU, "32-true", slice(None))
    spoil(features._file_of(backbone, (rows[0]["images"][0], True)))
    with features.use("read"), pytest.raises(DataError, match="start the same command again"):
        backbone.encode(rows)


# --- the store ------------------------------------------------------------------------------------------------------


def spoil(file: Path) -> None:
    """Flip the last byte, which belongs to a tensor."""
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another's", "no features"])
def test_a_damaged_or_foreign_file_is_computed_anew(
    damage: str, rows: list[Row], store: FeatureStore, tmp_path: Path
) -> None:
    backbone = family("tiny")
    backbone.tower_features = features = TowerFeatures(store, ("tower",))
    features.fill(backbone, rows, CPU, "32-true", slice(None))
    one, other = (features._file_of(backbone, picture) for picture in list_pictures(rows)[:2])
    whole = one.read_bytes()
    if damage == "flipped":
        spoil(one)
    elif damage == "another's":
        shutil.copy(other, one)
    else:
        one.write_bytes({"cut": whole[:-7], "empty": b"", "no features": b"not a tensor"}[damage])
    with tower_runs(backbone) as runs:
        features.fill(backbone, rows, CPU, "32-true", slice(None))
    assert len(runs) == 1
    (tmp_path / one.name).write_bytes(whole)
    expected, anew = store.read(tmp_path / one.name), store.read(one)
    assert expected is not None and anew is not None
    assert all(torch.equal(anew[key], expected[key]) for key in expected)


def test_files_that_were_used_longest_ago_make_room(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 4000)
    files = [tmp_path / "tower" / f"{k}.safetensors" for k in range(3)]
    for k, file in enumerate(files):
        store.write(file, {TOWER_FEATURES: torch.zeros(400, dtype=torch.bfloat16)})
        os.utime(file, (k, k))
    assert store.has(files[0])  # used now
    assert store.make_room(2000, keep=set()) >= 2000
    assert [file.exists() for file in files] == [True, False, True]
    assert store.make_room(4001, keep=set()) < 4001  # cannot be: nothing goes in vain
    assert [file.exists() for file in files] == [True, False, True]
    assert store.make_room(3000, keep={files[0]}) >= 3000
    assert [file.exists() for file in files] == [True, False, False]


def test_nothing_is_removed_while_a_fit_relies_on_the_store(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 1000)
    file = tmp_path / "tower" / "0.safetensors"
    store.write(file, {TOWER_FEATURES: torch.zeros(300, dtype=torch.bfloat16)})
    with store.protect_files(), store.protect_files():  # several at a time
        assert store.make_room(900, keep=set()) < 900
    assert file.exists()
    assert store.make_room(900, keep=set()) >= 900
    assert not file.exists()


def test_writers_of_one_file_leave_a_whole_one_and_nothing_else(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, GIB)
    file = tmp_path / "tower" / "0.safetensors"
    tensors = {TOWER_FEATURES: torch.arange(5000, dtype=torch.bfloat16)}
    seen: list[bool] = []

    def work() -> None:
        for _ in range(20):
            store.write(file, tensors)
            read = store.read(file)
            seen.append(read is not None and torch.equal(read[TOWER_FEATURES], tensors[TOWER_FEATURES]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80 and all(seen)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_sampling_with_a_full_store_goes_on_with_pixels(rows: list[Row], tmp_path: Path) -> None:
    asked = [Row(question=row["question"], images=row["images"]) for row in rows]
    backbone = family("tiny")
    expected = backbone.generate(asked, max_new_tokens=4)
    backbone.tower_features = TowerFeatures(FeatureStore(tmp_path / "store", 10), ("tower",))
    with tower_runs(backbone) as runs:
        assert backbone.generate(asked, max_new_tokens=4) == expected
        assert backbone.generate(asked, max_new_tokens=4) == expected
    assert len(runs) == 3  # one to see that there is no room, and a batch's each time


def test_sizes_are_bytes_in_bfloat16(rows: list[Row], store: FeatureStore) -> None:
    backbone = family("cogvlm2")
    backbone.tower_features = features = TowerFeatures(store, ("tower",))
    with features.use("fill"):
        (one,) = features.of(backbone, rows[0]["images"]) or ()
    vision = backbone.model.config.vision_config
    assert count_bytes(one) == 2 * (vision.grid**2 + 1) * vision.hidden_size
