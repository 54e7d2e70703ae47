"""Qwen2-VL's own outputs, reproduced through what this backbone hands to the model: ids, pixels, positions, masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from mathse.models import silence_transformers
from mathse.models.base import IGNORED
from mathse.models.checkpoint import open_model
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.tiny import build_processor

silence_transformers()


@pytest.fixture(scope="module")
def published(fixtures) -> Path:
    folder = fixtures / "backbones" / "qwen2vl"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, the outputs of transformers itself")
    return folder


@pytest.fixture(scope="module")
def backbone(published) -> Qwen2VLBackbone:
    """The fixture's model; it comes without a tokenizer, and none is asked here."""
    model = open_model(Qwen2VLForConditionalGeneration, published, dtype=torch.float32).eval()
    return Qwen2VLBackbone(model, build_processor(784, 12544))


@pytest.fixture(scope="module")
def tensors(published) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Inputs, expected outputs, meta.json."""
    meta = json.loads((published / "meta.json").read_text())
    return load_file(published / "inputs.safetensors"), load_file(published / "expected.safetensors"), meta


def features(given: dict[str, Tensor], which: str) -> dict[str, Tensor]:
    names = ("pixel_values", "image_grid_thw")
    return {n: given[f"{which}_{n}"] for n in names if f"{which}_{n}" in given}


@torch.no_grad()
def logits(backbone: Qwen2VLBackbone, given: dict[str, Tensor], which: str, **more: Tensor) -> Tensor:
    return backbone.model(input_ids=given[f"{which}_input_ids"], **features(given, which), **more).logits


def test_our_positions_are_those_of_the_reference(backbone, tensors) -> None:
    given, expected, _ = tensors
    ids = given["image_input_ids"][0].tolist()
    ours = backbone.positions(ids, features(given, "image"))
    assert torch.equal(ours, expected["image_position_ids"][:, 0])


def test_a_fits_forward_pass_gives_the_reference_logits(backbone, tensors) -> None:
    given, expected, meta = tensors
    for which in ("image", "text"):
        ids = given[f"{which}_input_ids"][0].tolist()
        extras = backbone.extras(ids, [], features(given, which))
        positions = extras["position_ids"][:, None]
        ours = logits(backbone, given, which, position_ids=positions)
        assert (ours - expected[f"{which}_logits"]).abs().max() < meta["tolerance"]


def test_the_loss_is_the_references(backbone, tensors) -> None:
    given, expected, meta = tensors
    labels = given["image_labels"]
    ids = given["image_input_ids"]
    batch = {"input_ids": ids, "labels": labels, **features(given, "image")}
    batch["position_ids"] = backbone.positions(ids[0].tolist(), features(given, "image"))[:, None]
    with torch.no_grad():
        found, targets = backbone.answer_logits(batch)
    assert len(targets) == int((labels[:, 1:] != IGNORED).sum())
    assert abs(torch.nn.functional.cross_entropy(found, targets) - expected["image_loss"]) < meta["tolerance"]


def sampling_inputs(backbone: Qwen2VLBackbone, given: dict[str, Tensor], which: str) -> dict[str, Tensor]:
    ids = given[f"{which}_input_ids"]
    return {
        "attention_mask": given[f"{which}_attention_mask"],
        "mm_token_type_ids": (ids == backbone.image_id).int(),
    }


def test_a_left_padded_batch_gives_the_reference_logits_where_it_is_not_padding(backbone, tensors) -> None:
    given, expected, meta = tensors
    ours = logits(backbone, given, "batch", **sampling_inputs(backbone, given, "batch"))
    kept = given["batch_attention_mask"].bool()
    assert (ours[kept] - expected["batch_logits"][kept]).abs().max() < meta["tolerance"]


def test_greedy_sampling_with_a_cache_writes_the_reference_ids(backbone, tensors) -> None:
    given, expected, meta = tensors
    for which in ("image", "text"):
        prompt = given[f"{which}_input_ids"]
        said = backbone.model.generate(
            input_ids=prompt,
            **features(given, which),
            **sampling_inputs(backbone, given, which),
            max_new_tokens=meta["greedy_tokens"],
            do_sample=False,
        )
        assert torch.equal(said[:, prompt.shape[1] :], expected[f"{which}_greedy_ids"])


def test_the_towers_features_are_the_references(backbone, tensors) -> None:
    given, expected, meta = tensors
    with torch.no_grad():
        found = backbone.model.get_image_features(
            given["vision_pixel_values"], image_grid_thw=given["vision_image_grid_thw"]
        ).pooler_output
    assert (torch.cat(list(found)) - expected["vision_features"]).abs().max() < meta["tolerance"]


def plain_positions(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1]).expand(3, 1, -1)


def swapped(positions: Tensor) -> Tensor:
    return positions[[0, 2, 1]]


def started_late(positions: Tensor) -> Tensor:
    return torch.cat([positions[..., :1], positions[..., 1:] + 1], dim=-1)


@pytest.mark.parametrize("mistake", [lambda p: plain_positions(p[0]), swapped, started_late])
def test_a_mistake_in_the_positions_would_show(backbone, tensors, mistake: Callable[[Tensor], Tensor]) -> None:
    given, expected, meta = tensors
    right = expected["image_position_ids"]
    if torch.equal(mistake(right), right):
        pytest.skip("this fixture's image has as many rows as columns")
    ours = logits(backbone, given, "image", position_ids=mistake(right))
    assert (ours - expected["image_logits"]).abs().max() > meta["tolerance"]


def test_a_mask_that_ignores_the_padding_would_show(backbone, tensors) -> None:
    given, expected, meta = tensors
    inputs = sampling_inputs(backbone, given, "batch")
    inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    kept = given["batch_attention_mask"].bool()
    assert (logits(backbone, given, "batch", **inputs)[kept] - expected["batch_logits"][kept]).abs().max() > 1e-3
