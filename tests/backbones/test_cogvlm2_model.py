"""Opening, saving, generating and misusing CogVLM2."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cogvlm2_reference import Reference, apart
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from mathse.errors import DataError
from mathse.models.cogvlm2 import CogVLM2Config, CogVLM2ForConditionalGeneration, attention, licence, modeling

ATOL = 1e-5  # logits of order 1, in float32, summed in another order


@pytest.fixture(scope="module")
def reference(fixtures: Path) -> Reference:
    return Reference(fixtures / "backbones" / "cogvlm2")


@pytest.fixture(scope="module")
def model(reference: Reference) -> CogVLM2ForConditionalGeneration:
    return reference.model()


def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


# --- files ----------------------------------------------------------------------------------------------------------


def test_the_published_size_is_reached_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = CogVLM2ForConditionalGeneration(CogVLM2Config())
    assert sum(p.numel() for p in model.parameters()) == 19_503_105_280
    assert len(model.state_dict()) == 1221 - 32  # without the stored frequencies of each layer


def test_a_published_folder_opens_whole(reference: Reference) -> None:
    assert "model_type" not in json.loads((reference.folder / "config.json").read_text())
    _, loaded = CogVLM2ForConditionalGeneration.from_pretrained(reference.folder, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_sharded_folder_opens_as_the_whole_one(
    reference: Reference, model: CogVLM2ForConditionalGeneration, tmp_path: Path
) -> None:
    tensors = load_file(reference.folder / "model.safetensors")
    names, total = sorted(tensors), 3
    where = {name: f"model-{i % total + 1:05}-of-{total:05}.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: tensors[n] for n in names if where[n] == file}, tmp_path / file, {"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (tmp_path / "config.json").write_bytes((reference.folder / "config.json").read_bytes())
    sharded, loaded = CogVLM2ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not loaded["missing_keys"] and not loaded["unexpected_keys"]
    assert all(torch.equal(a, b) for a, b in zip(sharded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("shard", ["5GB", "300KB"])
def test_saving_writes_the_published_names_and_opens_again(
    reference: Reference, model: CogVLM2ForConditionalGeneration, tmp_path: Path, shard: str
) -> None:
    model.save_pretrained(tmp_path, max_shard_size=shard)
    published = load_file(reference.folder / "model.safetensors")
    written: dict[str, Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        written |= load_file(file)
    assert written.keys() == {name for name in published if not name.endswith("inv_freq")}
    assert all(torch.equal(written[name], published[name]) for name in written)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(again) is CogVLM2ForConditionalGeneration
    assert torch.equal(logits(again, reference.given("image")), logits(model, reference.given("image")))


def test_a_saved_config_is_known_to_transformers_and_names_no_remote_code(
    reference: Reference, model: CogVLM2ForConditionalGeneration, tmp_path: Path
) -> None:
    model.config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    published = json.loads((reference.folder / "config.json").read_text())
    assert "auto_map" in published and "auto_map" not in written
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is CogVLM2Config
    assert again.to_json_string() == model.config.to_json_string()
    kept = ("vocab_size", "num_multi_query_heads", "pad_token_id", "template_version")
    assert all(written[name] == published[name] for name in kept)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"rope_precision": "bfloat16"}, "rope_precision = 'bfloat16': must be one of float32, model"),
        ({"num_multi_query_heads": 3}, "3 key and value heads do not fit"),
        ({"vision_config": {"image_size": 448}}, "num_positions = 9217, but an image of 448 pixels"),
    ],
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CogVLM2Config(**wrong)


def test_the_licence_is_shown_once_a_process(
    reference: Reference, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(licence, "_shown", False)
    with caplog.at_level(logging.WARNING):
        reference.model()
        reference.model()
    said = [record.message for record in caplog.records if "licence" in record.message]
    assert said == [licence.TERMS]


# --- attention ------------------------------------------------------------------------------------------------------


def test_the_tower_gets_the_attention_that_was_asked_for(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    interface = attention.ALL_ATTENTION_FUNCTIONS

    def note(name: str, default: Any) -> Any:
        used.append(name)
        return interface.get_interface(name, default)

    def seen(model: Any) -> list[str]:
        used.clear()
        logits(model, reference.given("image"))
        return used.copy()

    monkeypatch.setattr(attention, "ALL_ATTENTION_FUNCTIONS", SimpleNamespace(get_interface=note))
    model = reference.model(attn_implementation="eager")
    tower, decoder = len(model.model.vision.transformer.layers), len(model.model.layers)
    assert seen(model) == ["eager"] * (tower + decoder)
    model.set_attn_implementation("sdpa")
    assert seen(model) == ["sdpa"] * (tower + decoder)
    mixed = reference.model(attn_implementation={"": "eager", "vision_config": "sdpa"})
    assert seen(mixed) == ["sdpa"] * tower + ["eager"] * decoder


def test_attention_weights_are_given_by_eager_attention(reference: Reference) -> None:
    inputs = reference.given("image")
    with torch.no_grad():
        out = reference.model(attn_implementation="eager")(**inputs, output_attentions=True)
    length = inputs["input_ids"].shape[1]
    assert len(out.attentions) == out.attentions[0].shape[0] * len(reference.model().model.layers)
    assert out.attentions[0].shape[-2:] == (length, length)
    assert torch.equal(out.attentions[0].triu(1), torch.zeros_like(out.attentions[0]))  # causal, patches included


# --- images ---------------------------------------------------------------------------------------------------------


def test_features_of_an_image_include_its_begin_and_end(
    reference: Reference, model: CogVLM2ForConditionalGeneration
) -> None:
    pixels = reference.inputs["vision_pixel_values"]
    with torch.no_grad():
        features = model.get_image_features(pixels).pooler_output
    assert features.shape == (len(pixels), reference.meta["image_tokens"], model.config.hidden_size)
    assert model.config.vision_config.image_tokens == reference.meta["image_tokens"]
    assert torch.equal(features[0, 0], model.model.vision.boi[0, 0])
    assert torch.equal(features[-1, -1], model.model.vision.eoi[0, 0])


def test_encoded_images_can_stand_for_pixels(reference: Reference, model: CogVLM2ForConditionalGeneration) -> None:
    inputs = reference.given("batch")
    expected = logits(model, inputs)
    with torch.no_grad():
        image = model.get_image_features(inputs.pop("pixel_values"))
        assert torch.equal(model(**inputs, mm_encoder_outputs={"image": image}).logits, expected)


def test_an_image_goes_to_its_own_row(reference: Reference, model: CogVLM2ForConditionalGeneration) -> None:
    inputs = reference.given("batch")
    expected = logits(model, inputs)
    for image, row in enumerate(inputs["token_type_ids"].any(1).nonzero()[:, 0].tolist()):
        pixels = inputs["pixel_values"].clone()
        pixels[image] = -pixels[image]
        changed = logits(model, {**inputs, "pixel_values": pixels})
        differs = [apart(a[-1], b[-1]) > ATOL for a, b in zip(changed, expected, strict=True)]
        assert differs == [r == row for r in range(len(expected))]


def test_right_padding_changes_no_row_and_needs_no_mask(
    reference: Reference, model: CogVLM2ForConditionalGeneration
) -> None:
    image, text = reference.given("image"), reference.given("text")
    missing = image["input_ids"].shape[1] - text["input_ids"].shape[1]
    both = {
        name: torch.cat([image[name], torch.nn.functional.pad(text[name], (0, missing), value=value)])
        for name, value in (("input_ids", model.config.pad_token_id), ("token_type_ids", 0))
    }
    out = logits(model, {**both, "pixel_values": image["pixel_values"]})
    assert apart(out[:1], logits(model, image)) <= ATOL
    assert apart(out[1:, : text["input_ids"].shape[1]], logits(model, text)) <= ATOL


def _second_image(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}


def _two_in_a_row(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    twice = {k: torch.cat([v[:, 1:], v], dim=1) for k, v in inputs.items() if k != "pixel_values"}
    return {**twice, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}


def _no_pixels(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in inputs.items() if k != "pixel_values"}


def _no_types(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in inputs.items() if k != "token_type_ids"}


def _cut_image(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v if k == "pixel_values" else v[:, 2:] for k, v in inputs.items()}


@pytest.mark.parametrize(
    "change, says",
    [
        (_second_image, "one image in a row"),
        (_two_in_a_row, "one image in a row"),
        (_no_types, "one image in a row, with token_type_ids"),
        (_cut_image, "one image in a row"),
        (_no_pixels, "no pixel_values"),
    ],
)
def test_images_and_image_tokens_that_do_not_fit_are_refused(
    reference: Reference, model: CogVLM2ForConditionalGeneration, change: Any, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        logits(model, change(reference.given("image")))


# --- generation -----------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(model: CogVLM2ForConditionalGeneration) -> Any:
    """How many images each call of the tower gets."""
    calls: list[int] = []
    hook = model.model.vision.register_forward_hook(lambda module, given, out: calls.append(len(given[0])))
    yield calls
    hook.remove()


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "num_return_sequences": 4},
        {"do_sample": False, "num_beams": 3},
        {"do_sample": True, "num_return_sequences": 2, "use_cache": False},
        {"do_sample": True, "num_return_sequences": 2, "cache_implementation": "static"},
    ],
    ids=str,
)
def test_each_image_is_encoded_once(
    reference: Reference, model: CogVLM2ForConditionalGeneration, encoded: list[int], options: dict[str, Any]
) -> None:
    model.generate(**reference.given("batch"), max_new_tokens=5, **options)
    assert encoded == [len(reference.inputs["batch_pixel_values"])]


def test_samples_of_a_row_see_their_own_image(reference: Reference, model: CogVLM2ForConditionalGeneration) -> None:
    inputs = reference.given("batch")
    start = inputs["input_ids"].shape[1]
    greedy = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    colder = model.generate(**inputs, do_sample=True, temperature=1e-4, num_return_sequences=3, max_new_tokens=6)
    assert torch.equal(colder[:, start:], greedy[:, start:].repeat_interleave(3, dim=0))


def test_samples_of_a_row_differ(reference: Reference, model: CogVLM2ForConditionalGeneration) -> None:
    torch.manual_seed(0)
    out = model.generate(**reference.given("image"), do_sample=True, num_return_sequences=4, max_new_tokens=6)
    assert len({tuple(row) for row in out.tolist()}) > 1


def test_beams_find_what_is_at_least_as_likely_as_greedy(
    reference: Reference, model: CogVLM2ForConditionalGeneration
) -> None:
    inputs, steps = reference.given("image"), 4
    found = [
        model.generate(**inputs, do_sample=False, num_beams=n, max_new_tokens=steps, eos_token_id=None) for n in (1, 8)
    ]
    scores = [likelihood(model, inputs, tokens) for tokens in found]
    assert scores[1] >= scores[0]
    batch = model.generate(
        **reference.given("batch"), do_sample=False, num_beams=8, max_new_tokens=steps, eos_token_id=None
    )
    row = reference.meta["batch_rows"].index("image")
    assert torch.equal(batch[row, -steps:], found[1][0, -steps:])


def likelihood(model: Any, inputs: dict[str, Tensor], tokens: Tensor) -> float:
    """Log-probability of what follows the prompt."""
    start, new = inputs["input_ids"].shape[1], tokens.shape[1] - inputs["input_ids"].shape[1]
    types = torch.nn.functional.pad(inputs["token_type_ids"], (0, new))
    whole = {"input_ids": tokens, "token_type_ids": types, "pixel_values": inputs["pixel_values"]}
    chances = logits(model, whole)[:, start - 1 : -1].log_softmax(-1)
    return chances.gather(-1, tokens[:, start:, None]).sum().item()


def test_cached_steps_are_the_steps_of_a_whole_pass(
    reference: Reference, model: CogVLM2ForConditionalGeneration
) -> None:
    inputs = reference.given("batch")
    options = {"do_sample": False, "max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    cached, whole, static = (
        model.generate(**inputs, **options, **kind)
        for kind in ({}, {"use_cache": False}, {"cache_implementation": "static"})
    )
    for other in (whole, static):
        assert torch.equal(cached.sequences, other.sequences)
        assert apart(torch.stack(cached.logits), torch.stack(other.logits)) <= ATOL


def test_a_cache_is_known_by_both_its_names(reference: Reference, model: CogVLM2ForConditionalGeneration) -> None:
    inputs = reference.given("text")
    ids = inputs["input_ids"]
    expected = logits(model, {"input_ids": ids})[:, -1]
    at = torch.tensor([[ids.shape[1] - 1]])
    for name in ("cache", "past_key_values"):
        with torch.no_grad():
            out = model(input_ids=ids[:, :-1], use_cache=True)
            step = model(input_ids=ids[:, -1:], position_ids=at, **{name: out[modeling.CACHE]})
        assert apart(step.logits[:, -1], expected) <= ATOL
    with pytest.raises(ValueError, match="needs position_ids"):
        model(input_ids=ids[:, -1:], cache=out[modeling.CACHE])


def test_an_image_in_pieces_is_refused(reference: Reference, model: CogVLM2ForConditionalGeneration) -> None:
    inputs = reference.given("image")
    with torch.no_grad():
        out = model(**inputs, use_cache=True)
        with pytest.raises(DataError, match="one pass"):
            model(**inputs, position_ids=inputs["token_type_ids"], cache=out[modeling.CACHE])
