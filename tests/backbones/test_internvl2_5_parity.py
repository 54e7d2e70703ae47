"""The published InternVL2.5 code's own outputs, reproduced from a published folder; and undone quirk by quirk."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from mathse import models
from mathse.errors import CheckpointError
from mathse.models import silence_transformers
from mathse.models.checkpoint import open_model
from mathse.models.internvl2_5 import InternVL25Backbone, weights
from mathse.models.internvl2_5 import published as published_folder

load = partial(models.load, "internvl2_5")

silence_transformers()


@pytest.fixture(scope="module")
def published(fixtures) -> Path:
    folder = fixtures / "backbones" / "internvl2_5"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, the outputs of the published code")
    return folder


@pytest.fixture(scope="module")
def native(published, tmp_path_factory) -> Path:
    """The same in transformers' layout."""
    folder = tmp_path_factory.mktemp("internvl") / "native"
    load(published, dtype="float32").save(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(published) -> InternVL25Backbone:
    return load(published, dtype="float32")


@pytest.fixture(scope="module")
def tensors(published) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Inputs, expected outputs, tolerance."""
    tolerance = json.loads((published / "meta.json").read_text())["tolerance"]
    return load_file(published / "inputs.safetensors"), load_file(published / "expected.safetensors"), tolerance


@torch.no_grad()
def outputs(model: Any, given: dict[str, Any], steps: int) -> dict[str, Any]:
    """What the fixture has expectations of, by the same names."""
    image = {
        "input_ids": given["image_input_ids"],
        "attention_mask": given["image_attention_mask"],
        "pixel_values": given["image_pixel_values"],
    }
    text = {"input_ids": given["text_input_ids"], "attention_mask": given["text_attention_mask"]}
    batch = {
        "input_ids": given["batch_input_ids"],
        "attention_mask": given["batch_attention_mask"],
        "pixel_values": given["batch_pixel_values"],
    }
    positions = (batch["attention_mask"].cumsum(-1) - 1).masked_fill(batch["attention_mask"] == 0, 1)
    row = model(**image, labels=given["image_labels"], output_hidden_states=True)
    valid = batch["attention_mask"][..., None]
    greedy = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None}
    return {
        "vision_tower": model.model.vision_tower(given["vision_pixel_values"]).last_hidden_state,
        "vision_features": model.get_image_features(given["vision_pixel_values"]).pooler_output,
        "image_logits": row.logits,
        "image_loss": row.loss[None],
        "image_hidden_states": torch.cat(row.hidden_states),
        "text_logits": model(**text).logits,
        "batch_position_ids": positions,
        "batch_logits": model(**batch, position_ids=positions).logits * valid,
        "image_greedy_ids": model.generate(**image, **greedy)[:, image["input_ids"].shape[1] :],
        "text_greedy_ids": model.generate(**text, **greedy)[:, text["input_ids"].shape[1] :],
    }


def farthest(model: Any, tensors: tuple[dict[str, Any], dict[str, Any], float]) -> dict[str, float]:
    """The largest difference from each expected tensor."""
    given, expected, _ = tensors
    found = outputs(model, given, expected["image_greedy_ids"].shape[1])
    shapes = {name: (found[name].shape, value.shape) for name, value in expected.items()}
    assert all(a == b for a, b in shapes.values()), shapes
    return {name: float((found[name] - value).abs().max()) for name, value in expected.items()}


@pytest.mark.parametrize("layout", ["published", "native"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_expected_tensor_is_reproduced_and_greedy_ids_are_equal(request, tensors, attention, layout):
    model = load(request.getfixturevalue(layout), dtype="float32", attention=attention).model
    assert model.config.text_config._attn_implementation == attention
    differences = farthest(model, tensors)
    assert set(differences) == set(tensors[1])
    assert {name: d for name, d in differences.items() if d > tensors[2]} == {}
    assert differences["image_greedy_ids"] == differences["text_greedy_ids"] == 0


def test_generating_with_a_cache_gives_the_ids_of_generating_without(backbone, tensors):
    given, expected, _ = tensors
    inputs = {name.removeprefix("image_"): given[name] for name in ("image_input_ids", "image_attention_mask")}
    made = backbone.model.generate(
        **inputs,
        pixel_values=given["image_pixel_values"],
        max_new_tokens=expected["image_greedy_ids"].shape[1],
        do_sample=False,
        use_cache=False,
        eos_token_id=None,
    )
    assert torch.equal(made[:, given["image_input_ids"].shape[1] :], expected["image_greedy_ids"])


# --- each quirk, undone ----------------------------------------------------------------------------------------------


def _ungrouped(rows, kv_heads, heads):
    size = rows.shape[0] // (heads + 2 * kv_heads)
    return rows.split([heads * size, kv_heads * size, kv_heads * size])


def _exchanged(rows, kv_heads, heads):
    groups = rows.unflatten(0, (kv_heads, heads // kv_heads + 2, -1))
    return groups[:, :-2].flatten(0, 2), groups[:, -1].flatten(0, 1), groups[:, -2].flatten(0, 1)


def _w1_for_w3(monkeypatch):
    """The list that transformers holds, with two target names exchanged, until the test is over."""
    names = InternVLConfig.model_type, get_checkpoint_conversion_mapping(InternVLConfig.model_type)
    exchanged = {"gate_proj": "up_proj", "up_proj": "gate_proj"}
    changed = []
    for conversion in names[1]:
        part = next((part for part in exchanged if f".{part}." in conversion.target_patterns[0]), None)
        if part is not None:
            target = conversion.target_patterns[0].replace(part, exchanged[part])
            conversion = weights.ReadOnlyRenaming(conversion.source_patterns[0], target)
        changed.append(conversion)
    register_checkpoint_conversion_mapping(names[0], changed, overwrite=True)
    return lambda: register_checkpoint_conversion_mapping(*names, overwrite=True)


IN_OPENING: dict[str, Callable[[Any], Any]] = {
    "wqkv rows not grouped by kv head": lambda m: m.setattr(weights, "split_grouped", _ungrouped),
    "keys and values exchanged": lambda m: m.setattr(weights, "split_grouped", _exchanged),
    "w1 and w3 exchanged": _w1_for_w3,
    "rotary base of Llama": lambda m: m.setattr(
        published_folder, "_convert_rope", lambda text: {"rope_type": "default", "rope_theta": 10000.0}
    ),
}


@pytest.mark.parametrize("quirk", IN_OPENING)
def test_opening_without_this_quirk_is_found_out(published, tensors, monkeypatch, request, quirk):
    if (undo := IN_OPENING[quirk](monkeypatch)) is not None:
        request.addfinalizer(undo)
    differences = farthest(load(published, dtype="float32").model, tensors)
    assert differences["vision_tower"] <= tensors[2]
    assert min(differences[name] for name in ("image_logits", "text_logits", "batch_logits")) > tensors[2]


def _no_layer_scale(model):
    for layer in model.model.vision_tower.encoder.layer:
        torch.nn.init.ones_(layer.lambda_1)
        torch.nn.init.ones_(layer.lambda_2)


def _shuffle_v1(model):
    ordered = model.model.pixel_shuffle
    model.model.pixel_shuffle = lambda features, scale_factor: ordered(features, scale_factor).transpose(1, 2)


def _last_but_one(model):
    model.config.vision_feature_layer = -2


def _tanh_in_projector(model):
    model.model.multi_modal_projector.act = torch.nn.GELU(approximate="tanh")


def _tanh_in_tower(model):
    for layer in model.model.vision_tower.encoder.layer:
        layer.mlp.activation_fn = torch.nn.GELU(approximate="tanh")


@pytest.mark.parametrize("undo", [_no_layer_scale, _shuffle_v1, _last_but_one, _tanh_in_projector, _tanh_in_tower])
def test_a_tower_without_this_quirk_is_found_out(native, tensors, undo):
    model = open_model(InternVLForConditionalGeneration, native, dtype=torch.float32)
    undo(model)
    differences = farthest(model, tensors)
    assert differences["text_logits"] <= tensors[2]
    assert min(differences[name] for name in ("vision_features", "image_logits", "batch_logits")) > tensors[2]


def test_a_tower_with_a_norm_after_its_last_layer_does_not_open(native, tmp_path):
    other = tmp_path / "normed"
    other.mkdir()
    for file in native.iterdir():
        (other / file.name).symlink_to(file)
    config = json.loads((native / "config.json").read_text())
    config["vision_config"]["use_mean_pooling"] = False
    (other / "config.json").unlink()
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="missing"):
        load(other, dtype="float32")


# --- prompts and pixels ----------------------------------------------------------------------------------------------


def _question(text: str) -> str:
    return text.removeprefix("<image>\n")


def _pictures(tiles: list[int], side: int) -> list[Image.Image]:
    """Pictures that are cut into so many tiles, the thumbnail counted."""
    return [Image.new("RGB", (side * max(1, count - 1), side)) for count in tiles]


def test_every_case_of_the_published_conversation_has_its_ids(published):
    described = json.loads((published / "preprocess" / "prompts.json").read_text())
    side = json.loads((published / "config.json").read_text())["force_image_size"]
    assert described["cases"]
    for case in described["cases"]:
        spoken = load(published, dtype="float32", system=case["system"])
        row = {
            "question": _question(case["question"]),
            "images": _pictures(case["tiles"], side),
            "history": [(_question(question), answer) for question, answer in case["history"]],
        }
        prompt = spoken.encode([row])[0].prompt
        assert prompt == case["input_ids"]
        assert prompt.count(spoken.image_id) == case["n_img_context"]


def test_a_system_message_of_the_conversation_takes_the_place_of_the_default(published, backbone):
    described = json.loads((published / "preprocess" / "prompts.json").read_text())
    texts = [case for case in described["cases"] if case["system"] and not case["tiles"] and not case["history"]]
    for case in texts:
        messages = [{"role": "system", "content": case["system"]}, {"role": "user", "content": case["question"]}]
        ids = backbone.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
        assert list(ids[0]) == case["input_ids"]
    assert texts


def test_every_listed_string_has_its_ids(published, backbone):
    for listed in json.loads((published / "preprocess" / "prompts.json").read_text())["strings"]:
        assert backbone.tokenizer(listed["text"])["input_ids"] == listed["ids_with_bos"]
        assert backbone.tokenizer(listed["text"], add_special_tokens=False)["input_ids"] == listed["ids"]


def test_tiles_their_order_and_the_thumbnail_are_bit_equal_at_the_checkpoints_size(published):
    expected = load_file(published / "preprocess" / "expected.safetensors")
    with Image.open(published / "preprocess" / "image.png") as picture:
        for name, pixels in expected.items():
            if not name.startswith("pixel_values_max"):
                continue
            cut = load(published, dtype="float32", eval_tiles=int(name.removeprefix("pixel_values_max")))
            mine = cut.encode([{"question": "", "images": [picture]}])[0].features["pixel_values"]
            assert torch.equal(mine.to(pixels.dtype), pixels), name


def test_tiles_are_bit_equal_at_448_pixels(published, backbone):
    described = json.loads((published / "preprocess" / "expected.json").read_text())
    with Image.open(published / "preprocess" / described["image"]) as picture:
        for tiled in described["tiles"].values():
            size = {"height": tiled["tile_size"], "width": tiled["tile_size"]}
            cut = backbone.processor.image_processor(
                [picture],
                size=size,
                max_patches=tiled["max_num"],
                do_rescale=False,
                do_normalize=False,
                return_tensors="np",
            )["pixel_values"]
            hashes = [sha256(np.ascontiguousarray(tile.transpose(1, 2, 0)).tobytes()).hexdigest() for tile in cut]
            assert hashes == tiled["tile_sha256_uint8_rgb"]


def test_image_tokens_are_those_of_the_published_tiling(published):
    described = json.loads((published / "preprocess" / "expected.json").read_text())
    counting = load(published, dtype="float32")
    counting.processor.image_processor.size = {"height": 448, "width": 448}
    counting.processor.image_seq_length = 256
    for case in described["counts_448"]:
        counting.eval_tiles = case["max_num"]
        assert counting.image_tokens(case["width"], case["height"]) == case["image_tokens"]
        assert case["tokens_with_markers"] <= counting.max_image_tokens
