"""The InternVL2.5 backbone: rows to tiles and ids, sampling, adapters, saving; on a tiny random one."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mathse.config.backbones import InternVL25
from mathse.data.image_decoding import jpeg
from mathse.errors import CheckpointError, DataError
from mathse.models import load, silence_transformers
from mathse.models.base import IGNORED
from mathse.models.internvl2_5 import InternVL25Backbone
from mathse.models.internvl2_5.tiny import TILE, tiny_internvl2_5
from mathse.models.modes import checkpoint_activations

silence_transformers()


def picture(seed: int, columns: int = 1, rows: int = 1) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows * TILE, columns * TILE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def backbone() -> InternVL25Backbone:
    return tiny_internvl2_5(0)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [
        {"question": "What is the sum?", "images": [picture(0, 3)]},
        {"question": "1 + 1", "images": []},
        {"question": "Compare both.", "images": [picture(1), picture(2, 2, 2)]},
        {"question": "And now?", "images": [picture(3, 2)], "history": [("What is it?", "A digit.")]},
    ]


# --- tiles -----------------------------------------------------------------------------------------------------------


def test_a_row_that_is_trained_on_gets_6_tiles_and_one_that_is_answered_12(backbone):
    wide = picture(0, 10)
    answered, trained = backbone.encode(
        [{"question": "", "images": [wide]}, {"question": "", "images": [wide], "response": "x"}]
    )
    assert len(answered.features["pixel_values"]) == 10 + 1 == answered.prompt.count(backbone.image_id)
    assert len(trained.features["pixel_values"]) == 6 + 1 == trained.prompt.count(backbone.image_id)
    assert backbone.image_tokens(*wide.size) == 11
    assert backbone.image_tokens(*wide.size, trained=True) == 7


def test_the_number_of_tiles_is_a_setting(backbone):
    other = InternVL25Backbone(backbone.model, backbone.processor, InternVL25(train_tiles=1, eval_tiles=2))
    wide = picture(0, 10)
    answered, trained = other.encode(
        [{"question": "", "images": [wide]}, {"question": "", "images": [wide], "response": "x"}]
    )
    assert len(answered.features["pixel_values"]) == 3
    assert len(trained.features["pixel_values"]) == 1  # no thumbnail of a single tile
    assert other.max_image_tokens >= 3


def test_a_picture_from_a_file_is_not_given_the_other_uses_tiles(backbone, tmp_path):
    """Tiles of files are cached; those of training and of answering are kept apart."""
    picture(0, 10).save(tmp_path / "wide.png")
    row = {"question": "", "images": [str(tmp_path / "wide.png")]}
    trained = row | {"response": "x"}
    for _ in range(2):
        assert [len(e.features["pixel_values"]) for e in backbone.encode([row, trained, row])] == [11, 7, 11]


def test_a_prompt_has_the_same_ids_whether_it_is_trained_on_or_answered(backbone, rows):
    for row in rows:
        asked, taught = backbone.encode([row, row | {"response": "It is 3."}])
        assert asked.prompt == taught.prompt
        assert backbone.tokenizer.decode(taught.response) == "It is 3.<|im_end|>"


def test_tiles_go_row_by_row_and_the_thumbnail_is_last(backbone):
    cells = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    image = Image.new("RGB", (2 * TILE, 2 * TILE))
    for k, colour in enumerate(cells):
        image.paste(colour, (k % 2 * TILE, k // 2 * TILE, (k % 2 + 1) * TILE, (k // 2 + 1) * TILE))
    tiles = backbone.encode([{"question": "", "images": [image]}])[0].features["pixel_values"]
    shown = (tiles * 0.35 + 0.3)[:, :, TILE // 2, TILE // 2] * 255
    assert torch.allclose(shown[:4].round(), torch.tensor(cells).float(), atol=1)
    small = image.resize((TILE, TILE), Image.Resampling.BICUBIC)
    thumbnail = (tiles[4] * 0.35 + 0.3).permute(1, 2, 0).numpy() * 255
    assert np.abs(thumbnail - np.asarray(small)).max() < 1


def test_pictures_of_several_rows_keep_their_order_in_a_batch(backbone, rows):
    taught = [row | {"response": "x"} for row in rows]
    together = backbone.collate(taught)["pixel_values"]
    apart = [backbone.collate([row])["pixel_values"] for row in taught if row["images"]]
    assert torch.equal(together, torch.cat(apart))


# --- random JPEG compression -----------------------------------------------------------------------------------------


def pixels(backbone, row):
    return backbone.encode([row])[0].features["pixel_values"]


def test_training_pictures_are_compressed_when_asked_and_the_draw_is_the_rows_own(backbone):
    compressing = InternVL25Backbone(backbone.model, backbone.processor, InternVL25(jpeg=True, jpeg_seed=1))
    row = {"question": "q", "images": [picture(0)], "response": "r"}
    once = pixels(compressing, row)
    assert not torch.equal(once, pixels(backbone, row))
    assert torch.equal(once, pixels(compressing, row))  # a resumed fit sees the same
    draws = [pixels(compressing, row | {"response": str(k)}) for k in range(8)]
    assert any(not torch.equal(draw, once) for draw in draws)
    other = InternVL25Backbone(backbone.model, backbone.processor, InternVL25(jpeg=True, jpeg_seed=2))
    assert any(not torch.equal(a, pixels(other, row | {"response": str(k)})) for k, a in enumerate(draws))


def test_pictures_of_answered_rows_are_never_compressed(backbone):
    compressing = InternVL25Backbone(backbone.model, backbone.processor, InternVL25(jpeg=True))
    row = {"question": "q", "images": [picture(0)]}
    assert torch.equal(pixels(compressing, row), pixels(backbone, row))


def test_jpeg_draws_every_quality_between_the_two_and_only_those():
    image = picture(0, 2)
    expected = set()
    for quality in (75, 76, 77):
        from io import BytesIO

        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        expected.add(Image.open(file).convert("RGB").tobytes())
    assert {jpeg(image, 75, 77, seed).tobytes() for seed in range(40)} == expected
    assert jpeg(image, 75, 100, 3).tobytes() == jpeg(image, 75, 100, 3).tobytes()
    assert jpeg(image, 75, 100, 3).size == image.size


def test_an_image_that_has_no_jpeg_form_is_said_so():
    with pytest.raises(DataError, match="70000 x 1"):
        jpeg(Image.new("RGB", (70_000, 1)), 75, 100, 0)


# --- batches and sampling --------------------------------------------------------------------------------------------


def test_labels_decode_to_exactly_the_answers(backbone, rows):
    answers = ["It is 3.", "2", "求面积 = \\frac{1}{2}", "no"]
    batch = backbone.collate([row | {"response": a} for row, a in zip(rows, answers, strict=True)])
    for labels, ids, answer in zip(batch["labels"], batch["input_ids"], answers, strict=True):
        kept = labels != IGNORED
        assert torch.equal(labels[kept], ids[kept])
        assert backbone.tokenizer.decode(labels[kept]) == answer + "<|im_end|>"


@torch.no_grad()
def test_a_pad_left_batch_gives_each_row_the_logits_it_has_alone(backbone, rows):
    encoded = backbone.encode(rows)
    together = backbone.model(**backbone._pad_left(backbone._make_pieces(encoded))).logits
    for logits, one in zip(together, encoded, strict=True):
        alone = backbone.model(**backbone._pad_left(backbone._make_pieces([one]))).logits[0]
        assert torch.allclose(logits[-len(one.prompt) :], alone, atol=1e-5)


@torch.no_grad()
def test_a_training_batch_gives_each_row_the_logits_it_has_alone(backbone, rows):
    """It goes without an attention mask: right-padded and causal."""
    encoded = backbone.encode([row | {"response": "3"} for row in rows])
    batch = backbone.pad(encoded)
    assert "attention_mask" not in batch
    together = backbone.model(**batch).logits
    for logits, one in zip(together, encoded, strict=True):
        alone = backbone.model(**backbone.pad([one])).logits[0]
        assert torch.allclose(logits[: len(one.ids)], alone, atol=1e-5)


@torch.no_grad()
def test_greedy_sampling_with_a_cache_is_a_full_forward_pass_a_token(backbone, rows):
    row = rows[0]
    done = backbone.complete([row], max_new_tokens=6)[0][0]
    (one,) = backbone.encode([row])
    ids = list(one.prompt)
    for token in done.ids:
        logits = backbone.model(input_ids=torch.tensor([ids]), use_cache=False, **one.features).logits[0, -1]
        logits[backbone.never_sampled] = -torch.inf
        assert int(logits.argmax()) == token
        ids.append(token)
    assert len(ids) > len(one.prompt)


def test_rows_sampled_together_are_what_they_are_alone(backbone, rows):
    together = backbone.complete(rows, max_new_tokens=5)
    assert [c[0].ids for c in together] == [backbone.complete([row], max_new_tokens=5)[0][0].ids for row in rows]


def test_n_samples_encode_the_images_once(backbone, rows):
    seen = []
    handle = backbone.model.model.vision_tower.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    try:
        done = backbone.complete(rows, n=4, max_new_tokens=4, temperature=1.0)
    finally:
        handle.remove()
    assert seen == [sum(len(e.features.get("pixel_values", ())) for e in backbone.encode(rows))]
    assert [len(completions) for completions in done] == [4] * len(rows)
    assert any(len({tuple(c.ids) for c in completions}) > 1 for completions in done)


def test_a_token_of_an_image_is_never_sampled(rows):
    backbone = tiny_internvl2_5(3)
    marks = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>"]
    ids = backbone.tokenizer.convert_tokens_to_ids(marks)
    likely = torch.zeros(len(backbone.tokenizer)).index_fill(0, torch.tensor(ids), 100.0)
    backbone.model.lm_head.register_forward_hook(lambda module, args, logits: logits + likely)
    assert not {i for c in backbone.complete(rows, max_new_tokens=3) for i in c[0].ids} & set(ids)


def test_each_of_n_samples_sees_the_pictures_of_its_own_row(backbone):
    """The raw logits of the first token, which depend on the pictures alone: the questions are equal."""
    rows = [{"question": "?", "images": [picture(k, columns)]} for k, columns in enumerate((3, 1, 2))]
    sampling = {"max_new_tokens": 1, "temperature": 1.0, "watch": list(range(20, 40))}
    alone = [backbone.complete([row], n=1, **sampling)[0][0].watched for row in rows]
    together = backbone.complete(rows, n=3, **sampling)
    for completions, expected in zip(together, alone, strict=True):
        assert all(torch.allclose(c.watched, expected, atol=1e-5) for c in completions)
    assert not any(torch.allclose(alone[0], other, atol=1e-3) for other in alone[1:])


def test_loss_is_the_mean_over_the_answers_tokens_and_over_the_global_batch_when_told_its_size(backbone, rows):
    batch = backbone.collate([row | {"response": "It is 3."} for row in rows])
    targets = int((batch["labels"][:, 1:] != IGNORED).sum())
    with torch.no_grad():
        mean = backbone.model(**batch).loss
        summed = backbone.model(**batch, num_items_in_batch=2 * targets).loss
        logits, wanted = backbone.answer_logits({k: v for k, v in batch.items() if k != "attention_mask"})
    assert torch.allclose(torch.nn.functional.cross_entropy(logits, wanted), mean, atol=1e-5)
    assert torch.allclose(mean / 2, summed, atol=1e-5)


# --- parts, adapters, saving -----------------------------------------------------------------------------------------


def test_every_parameter_is_of_the_tower_the_connector_or_the_language_model(backbone):
    names = [name for name, _ in backbone.model.named_parameters()]
    for part, module in (("tower", "vision_tower"), ("connector", "multi_modal_projector")):
        matched = {name for name in names if re.match(backbone.parts[part], name)}
        assert matched == {name for name in names if name.startswith(f"model.{module}.")}
        assert matched


@pytest.mark.parametrize("scope", ["language", "tower"])
def test_an_adapter_touches_its_scope_alone_and_merging_it_changes_nothing(rows, scope):
    backbone = tiny_internvl2_5(1)
    layers = backbone.model.config.get_text_config().num_hidden_layers
    batch = {k: v for k, v in backbone.collate([row | {"response": "3"} for row in rows]).items() if k != "labels"}
    config = LoraConfig(r=4, lora_alpha=8, target_modules=backbone.lora_scopes[scope], init_lora_weights=False)
    adapted = get_peft_model(backbone.model, config)
    touched = {name.split(".lora_")[0] for name, p in adapted.named_parameters() if p.requires_grad}
    prefix = "language_model.layers" if scope == "language" else "vision_tower.encoder.layer"
    assert all(name.startswith(f"base_model.model.model.{prefix}.") for name in touched)
    assert len(touched) == {"language": 7 * layers, "tower": 6 * 2}[scope]
    with torch.no_grad():
        before = adapted(**batch).logits
        merged = adapted.merge_and_unload()(**batch).logits
        base = tiny_internvl2_5(1).model(**batch).logits
    assert (before - merged).abs().max() <= 1e-5
    assert (before - base).abs().max() > 1e-3


def test_an_adapter_learns_with_activations_worked_out_again(rows):
    backbone = tiny_internvl2_5(2)
    checkpoint_activations(backbone.model, True)
    adapted = get_peft_model(backbone.model, LoraConfig(r=4, target_modules=backbone.lora_scopes["language"]))
    adapted.train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    batch = backbone.collate([row | {"response": "It is 3."} for row in rows])
    losses = []
    for _ in range(8):
        loss = adapted(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_a_saved_backbone_opens_exactly_as_it_was(backbone, rows, tmp_path):
    backbone.save(tmp_path)
    again = load("internvl2_5", tmp_path, dtype="float32")
    mine, theirs = backbone.model.state_dict(), again.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    taught = [row | {"response": "It is 3."} for row in rows]
    one, other = backbone.collate(taught), again.collate(taught)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.complete(rows, max_new_tokens=4) == backbone.complete(rows, max_new_tokens=4)


def test_plain_transformers_opens_a_saved_backbone_and_renders_its_training_prompt(backbone, tmp_path):
    backbone.save(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    image = picture(0, 3)
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "Sum?"}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert inputs["input_ids"][0].tolist() == backbone.encode([{"question": "Sum?", "images": [image]}])[0].prompt
    made = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert made.shape[1] > inputs["input_ids"].shape[1]


def test_special_tokens_in_a_problem_are_text(backbone):
    row = {"question": "a<|im_end|>b<|image_pad|>c<|vision_start|>", "images": [], "response": "<|im_end|>"}
    (encoded,) = backbone.encode([row])
    special = set(backbone.tokenizer.all_special_ids)
    assert not special & set(encoded.response[:-1])
    assert backbone.image_id not in encoded.prompt


@pytest.mark.parametrize("family", ["qwen2vl", "cogvlm2"])
def test_a_checkpoint_of_another_family_is_refused(backbone, tmp_path, family):
    backbone.save(tmp_path)
    with pytest.raises(CheckpointError, match="internvl"):
        load(family, tmp_path)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load("internvl2_5", tmp_path)
