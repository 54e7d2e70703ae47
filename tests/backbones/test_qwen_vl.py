"""Qwen2.5-VL and Qwen3-VL: positions, features and pixel bounds are those of transformers' own classes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from small import picture

from mathse import models
from mathse.commands.tiny import BUILDERS
from mathse.commands.tiny import main as make
from mathse.models.base import join
from mathse.models.flops import count_forward_flops
from mathse.models.lower_layers import STATES, compute_states, find_reason_against_states, freeze_lower
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.row import Row

NAMES = ("qwen2_5_vl", "qwen3_vl")


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest) -> Qwen2VLBackbone:
    module, _, name = BUILDERS[request.param].rpartition(".")
    made: Qwen2VLBackbone = getattr(import_module(module), name)(0)
    return made


ROW = Row(
    question="Is <image> larger than <image>?",
    images=[picture(150, 100, 1), picture(70, 200, 2)],
    marked=True,
    response="No, it is smaller.",
)


def test_positions_of_several_pictures_are_the_models_own(backbone: Qwen2VLBackbone) -> None:
    [encoded] = backbone.encode([ROW])
    ids = torch.tensor([encoded.ids])
    expected, _ = backbone.model.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == backbone.image_id).int(),
        image_grid_thw=encoded.features["image_grid_thw"],
    )
    assert torch.equal(encoded.extras["position_ids"], expected[:, 0])


def test_features_of_a_picture_are_in_the_order_of_its_tokens(backbone: Qwen2VLBackbone) -> None:
    """Five by four tokens: the windows of Qwen2.5-VL at the right and the lower edge are not whole."""
    backbone.processor.image_processor.size = {"shortest_edge": 784, "longest_edge": 10**6}
    prepared = join(backbone.prepare([picture(160, 128) if backbone.family == "qwen3_vl" else picture(140, 112)]))
    with torch.no_grad():
        expected = backbone.model.model.get_image_features(**prepared).pooler_output[0]
        seen = backbone.tower(prepared)
        tokens = backbone.connector(seen)
    assert torch.allclose(tokens[:, : expected.shape[1]], expected, atol=1e-6)
    assert len(seen) == 4 * len(expected)


def test_deepstack_goes_along_with_kept_features() -> None:
    module, _, name = BUILDERS["qwen3_vl"].rpartition(".")
    backbone = getattr(import_module(module), name)(0)
    prepared = join(backbone.prepare([picture(96, 64)]))
    with torch.no_grad():
        whole = backbone.model.model.get_image_features(**prepared)
        tokens = backbone.connector(backbone.tower(prepared))
    assert torch.allclose(tokens[:, 64:], whole.deepstack_features[0][0], atol=1e-6)


@pytest.mark.parametrize(("layers", "kept"), [(1, False), (2, True)])
def test_hidden_states_are_kept_above_the_layers_that_deepstack_adds_to(layers: int, kept: bool) -> None:
    module, _, name = BUILDERS["qwen3_vl"].rpartition(".")
    backbone = getattr(import_module(module), name)(0)
    config = deepcopy(backbone.model.config)
    config.text_config.num_hidden_layers, config.vision_config.deepstack_visual_indexes = 3, [0, 1]
    torch.manual_seed(0)
    backbone.model = type(backbone.model)(config).eval()
    backbone.model.model.visual.requires_grad_(False)
    freeze_lower(backbone, layers)
    [encoded] = backbone.encode([ROW])
    with torch.no_grad():
        states = compute_states(backbone, backbone.pad([encoded]))
    stored = replace(encoded, features={}, extras={**encoded.extras, STATES: states[0].T})
    with torch.no_grad():
        reason = find_reason_against_states(backbone, backbone.pad([encoded]), backbone.pad([stored]))
    assert (reason is None) == kept, reason
    if not kept:
        assert reason == "the upper layers of Qwen3VLForConditionalGeneration read more than these states"


@pytest.mark.parametrize("name", NAMES)
def test_pixel_bounds_of_the_settings_hold_and_null_leaves_the_checkpoints(name: str, tmp_path: Path) -> None:
    assert make([name, str(tmp_path / name)]) == 0
    token = 28 * 28 if name == "qwen2_5_vl" else 32 * 32  # pixels
    bounded = models.load(name, tmp_path / name, min_pixels=4 * token, max_pixels=4 * token)
    assert bounded.image_tokens(500, 500) == bounded.image_tokens(30, 30) == bounded.max_image_tokens == 4
    free = models.load(name, tmp_path / name, min_pixels=None, max_pixels=None)
    assert free.max_image_tokens == 16


def test_layers_within_windows_cost_their_windows_alone() -> None:
    module, _, name = BUILDERS["qwen2_5_vl"].rpartition(".")
    backbone = getattr(import_module(module), name)(0)
    width = backbone.model.config.vision_config.hidden_size
    operations = count_forward_flops(backbone)
    assert operations.patch_square == 4 * width  # of two layers, one sees the whole picture
    backbone.model.config.vision_config.fullatt_block_indexes = [0, 1]
    whole = count_forward_flops(backbone)
    assert whole.patch_square == 2 * operations.patch_square
    assert operations.patch - whole.patch == 4 * width * 16  # a window of 56 x 56 pixels has 4 x 4 patches
