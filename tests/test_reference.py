"""A checkpoint by reference: the weights of an unchanged model are linked to, and whoever opens the folder follows."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest
import torch
from e2e.runs import TINY, run, stages
from safetensors import safe_open
from transformers import Qwen2VLForConditionalGeneration

from mathse.commands.export import export_model
from mathse.commands.tiny import BUILDERS
from mathse.errors import RunError
from mathse.models import load, reference
from mathse.models.base import Backbone
from mathse.runs import manifest
from mathse.runs.reader import read_run
from mathse.runs.store import read_json
from mathse.training.fit import save_checkpoint

ANSWERS = (*TINY, "judge=answer", "evolution.rounds=0", "evolution.reflect.when=never")


def published(folder: Path, family: str = "tiny") -> Path:
    """A model that was published in bfloat16."""
    module, _, builder = BUILDERS[family].rpartition(".")
    backbone: Backbone = getattr(import_module(module), builder)(0)
    backbone.model.bfloat16()
    backbone.save(folder)
    return folder


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_every_family_opens_a_reference_as_what_it_refers_to(family: str, tmp_path: Path) -> None:
    source = published(tmp_path / "source", family)
    opened = load(family, source, dtype="float32")
    folder = save_checkpoint(opened, tmp_path / "base" / "checkpoint", unchanged=True)
    weights = folder / "model.safetensors"
    assert weights.is_symlink() and weights.readlink() == source / "model.safetensors"
    assert sorted(f.name for f in folder.iterdir()) == sorted(f.name for f in source.iterdir())
    again = load(family, folder, dtype="float32")
    for name, tensor in opened.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    # what is in the files, not what the model was opened in
    assert '"dtype": "float32"' not in (folder / "config.json").read_text()


def test_plain_transformers_opens_a_reference(tmp_path: Path) -> None:
    source = published(tmp_path / "source")
    folder = save_checkpoint(load("tiny", source), tmp_path / "base" / "checkpoint", unchanged=True)
    assert Qwen2VLForConditionalGeneration.from_pretrained(folder).dtype == torch.bfloat16


def test_a_source_of_another_layout_and_random_weights_are_written(tmp_path: Path) -> None:
    source = published(tmp_path / "source")
    opened = load("tiny", source)
    config = (source / "config.json").read_text()
    (source / "config.json").write_text(config.replace('"model_type": "qwen2_vl"', '"model_type": "other"', 1))
    (tmp_path / "folder").mkdir()
    assert not reference.write(opened, tmp_path / "folder")
    assert not reference.write(load_random(), tmp_path / "folder") and not list((tmp_path / "folder").iterdir())


def load_random() -> Backbone:
    module, _, builder = BUILDERS["tiny"].rpartition(".")
    backbone: Backbone = getattr(import_module(module), builder)(0)
    return backbone


def test_a_run_refers_to_its_base_goes_on_with_it_and_exports_it_whole(tmp_path: Path) -> None:
    source = published(tmp_path / "source")
    settings = (*ANSWERS, f"backbone.path={source}")
    run(tmp_path / "run", *settings)
    weights = tmp_path / "run" / "base" / "checkpoint" / "model.safetensors"
    assert weights.is_symlink() and weights.lstat().st_size < 1000
    recorded = stages(tmp_path / "run")["base"]["outputs"]["checkpoint/model.safetensors"]
    assert recorded["bytes"] == (source / "model.safetensors").stat().st_size
    before = (source / "model.safetensors").stat()
    run(tmp_path / "run", *settings)
    after = (source / "model.safetensors").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, before.st_nlink)
    run(tmp_path / "run-2", *settings, "resume=branch", f"resume_from=[{tmp_path / 'run'}]")
    assert (tmp_path / "run-2" / "base" / "checkpoint" / "model.safetensors").is_symlink()
    export_model(read_run(tmp_path / "run"), "base", tmp_path / "out")
    out = tmp_path / "out" / "model.safetensors"
    assert not out.is_symlink()
    with safe_open(out, framework="pt") as tensors:
        assert len(tensors.keys()) > 10


def test_a_source_that_moved_or_changed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = published(tmp_path / "source")
    settings = (*ANSWERS, f"backbone.path={source}")
    run(tmp_path / "run", *settings)
    folder = tmp_path / "run" / "base"
    outputs = read_json(folder / "stage.json")["outputs"]

    weights = source / "model.safetensors"
    content = weights.read_bytes()
    refers = r"checkpoint/model.safetensors is a reference to .*source/model.safetensors, which "
    monkeypatch.setattr(manifest, "MAX_HASHED_BYTES", 100)  # as weights of many GB are: not read at each start
    manifest.verify(folder, outputs)
    weights.write_bytes(content[:-1] + b"\7")
    os.utime(weights, (2**32, 2**32))  # later than the stage
    with pytest.raises(RunError, match=refers + "has other contents than recorded .*put that file back"):
        manifest.verify(folder, outputs)
    weights.write_bytes(content)
    os.utime(weights, (2**32, 2**32))
    manifest.verify(folder, outputs)  # copied back
    source.rename(tmp_path / "moved")
    with pytest.raises(RunError, match=refers + "is missing; put that file back, or remove .*base"):
        manifest.verify(folder, outputs)
