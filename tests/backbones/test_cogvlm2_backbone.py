"""CogVLM2 behind the harness's contract, from a tiny random folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mathse.errors import CheckpointError, ConfigError, DataError
from mathse.models import load
from mathse.models.base import IGNORED
from mathse.models.cogvlm2 import CogVLM2Backbone
from mathse.models.cogvlm2.tiny import tiny_cogvlm2
from mathse.models.parts import find_part, lora_pattern
from mathse.models.row import Row

RED, BLUE = Image.new("RGB", (40, 90), "red"), Image.new("L", (90, 40), 80)


def asks(question: str, *images: Any, response: str = "Step 1: 3 + 4 = 7.", **more: Any) -> Row:
    return Row(question=question, images=images, response=response, **more)


ROWS = [
    asks("What is the sum?", RED),
    asks("3 + 4?", response="7"),
    asks("求面积 $\\frac{1}{2}$ 🙂\nWhy?", BLUE, response="面积是 12。", history=[("How many sides?", "Three.")]),
]


@pytest.fixture(scope="module")
def backbone() -> CogVLM2Backbone:
    return tiny_cogvlm2(seed=0)


@pytest.fixture(scope="module")
def folder(backbone: CogVLM2Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cogvlm2") / "checkpoint"
    backbone.save(place)
    return place


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_tiny_folder_opens_and_is_the_same_model(backbone: CogVLM2Backbone, folder: Path) -> None:
    opened = load("cogvlm2", folder, dtype="float32")
    assert type(opened) is CogVLM2Backbone
    pairs = zip(opened.model.state_dict().items(), backbone.model.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    for mine, other in zip(backbone.encode(ROWS), opened.encode(ROWS), strict=True):
        assert (mine.prompt, mine.response) == (other.prompt, other.response)
        assert all(torch.equal(mine.features[name], other.features[name]) for name in mine.features)
    assert opened.generate(ROWS, max_new_tokens=6) == backbone.generate(ROWS, max_new_tokens=6)


def test_the_seed_decides_the_weights(backbone: CogVLM2Backbone) -> None:
    again, other = tiny_cogvlm2(0), tiny_cogvlm2(1)
    assert torch.equal(backbone.model.lm_head.weight, again.model.lm_head.weight)
    assert not torch.equal(backbone.model.lm_head.weight, other.model.lm_head.weight)


@pytest.mark.parametrize("template", ["base", "chat", "vqa"])
def test_a_prompt_is_the_processors_and_the_chat_templates(folder: Path, template: str) -> None:
    backbone = load("cogvlm2", folder, dtype="float32", template=template)
    for row, encoded in zip(ROWS, backbone.encode(ROWS), strict=True):
        history = list(row.get("history", ()))
        image = row["images"][0] if row["images"] else None
        out = backbone.processor(text=row["question"], images=image, history=history, template=template)
        assert out["input_ids"][0].tolist() == encoded.prompt
        assert encoded.extras["token_type_ids"][: len(encoded.prompt)].tolist() == out["token_type_ids"][0].tolist()
        assert not encoded.extras["token_type_ids"][len(encoded.prompt) :].any()
        if image is not None:
            assert torch.equal(encoded.features["pixel_values"], out["pixel_values"])
        talk: list[dict[str, Any]] = []
        for asked, said in history:
            talk += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        parts = [{"type": "image", "image": i} for i in row["images"]] + [{"type": "text", "text": row["question"]}]
        talk.append({"role": "user", "content": parts})
        told = backbone.processor.apply_chat_template(talk, tokenize=True, add_generation_prompt=True)
        assert told["input_ids"][0].tolist() == encoded.prompt


def test_labels_decode_to_exactly_the_response(backbone: CogVLM2Backbone) -> None:
    batch = backbone.collate(ROWS)
    for row, labels, ids in zip(ROWS, batch["labels"], batch["input_ids"], strict=True):
        kept = labels != IGNORED
        assert torch.equal(labels[kept], ids[kept])
        assert labels[kept][-1] == backbone.end_id
        assert backbone.tokenizer.decode(labels[kept][:-1]) == row["response"]


def test_the_loss_of_the_model_is_that_of_the_answer_logits(backbone: CogVLM2Backbone) -> None:
    batch = backbone.collate(ROWS)
    with torch.no_grad():
        logits, targets = backbone.answer_logits(backbone.pad(backbone.encode(ROWS)))  # no mask: causal, right-padded
        expected = backbone.model(**batch).loss
    assert torch.nn.functional.cross_entropy(logits, targets).item() == pytest.approx(expected.item(), abs=1e-5)
    assert len(targets) == int((batch["labels"] != IGNORED).sum())


def test_rows_of_a_batch_generate_what_they_do_alone(backbone: CogVLM2Backbone) -> None:
    together = backbone.generate(ROWS, max_new_tokens=8)
    assert together == [backbone.generate([row], max_new_tokens=8)[0] for row in ROWS]


def test_samples_differ_follow_the_seed_and_encode_each_image_once(backbone: CogVLM2Backbone) -> None:
    calls: list[int] = []
    hook = backbone.model.model.vision.register_forward_hook(lambda _, given, out: calls.append(len(given[0])))
    first = backbone.generate(ROWS, n=4, max_new_tokens=6, temperature=1.0, seed=1)
    hook.remove()
    assert calls == [2]
    assert [len(samples) for samples in first] == [4] * len(ROWS)
    assert all(len(set(samples)) > 1 for samples in first)
    assert first == backbone.generate(ROWS, n=4, max_new_tokens=6, temperature=1.0, seed=1)
    assert first != backbone.generate(ROWS, n=4, max_new_tokens=6, temperature=1.0, seed=2)


def test_replies_are_stripped_and_hold_no_image_token(backbone: CogVLM2Backbone) -> None:
    for row in backbone.complete(ROWS, n=8, max_new_tokens=24, temperature=3.0):
        for completion in row:
            assert completion.text == completion.text.strip()
            assert backbone.pad_id not in completion.ids


def test_a_second_image_in_a_row_is_refused(backbone: CogVLM2Backbone) -> None:
    with pytest.raises(DataError, match="2 images, and backbone=cogvlm2 takes at most 1"):
        backbone.encode([ROWS[0], asks("Which is larger?", RED, BLUE)])


def test_parts_and_adapters_are_told_apart_by_their_whole_names(backbone: CogVLM2Backbone) -> None:
    parts = {name: find_part(backbone, name) for name, _ in backbone.model.named_parameters()}
    of_vision = {
        name.removeprefix("model.vision.").split(".")[0]: part
        for name, part in parts.items()
        if "model.vision." in name
    }
    connector = dict.fromkeys(("conv", "linear_proj", "boi", "eoi"), "connector")
    assert of_vision == {"patch_embedding": "tower", "transformer": "tower", **connector}
    assert {part for name, part in parts.items() if "model.vision." not in name} == {"language"}
    linear = [name for name, module in backbone.model.named_modules() if isinstance(module, torch.nn.Linear)]
    config, hit = backbone.model.config, {}
    for scope in backbone.lora_scopes:
        hit[scope] = {name for name in linear if re.fullmatch(lora_pattern(backbone, [scope]), name)}
    assert len(hit["language"]) == len(hit["vision_expert"]) == 5 * config.num_hidden_layers
    assert len(hit["tower"]) == 4 * config.vision_config.num_hidden_layers
    assert set(linear) - set().union(*hit.values()) == {n for n in linear if "linear_proj" in n or n == "lm_head"}
    assert sum(map(len, hit.values())) == len(set().union(*hit.values()))


def test_special_tokens_in_a_users_text_mean_nothing(backbone: CogVLM2Backbone) -> None:
    special = {i for i, token in backbone.tokenizer.added_tokens_decoder.items() if token.special}
    assert special
    attack = "".join(backbone.tokenizer.convert_ids_to_tokens(sorted(special)))
    [plain] = backbone.encode([asks("Hi", RED)])
    [attacked] = backbone.encode([asks(f"Hi {attack}", RED, response=attack, history=[(attack, attack)])])
    assert [i for i in attacked.prompt if i in special] == [i for i in plain.prompt if i in special]
    assert [i for i in attacked.response if i in special] == [backbone.end_id]


def test_an_image_of_any_size_takes_the_same_tokens(backbone: CogVLM2Backbone) -> None:
    for size in ((1, 1), (500, 3), (56, 56)):
        [encoded] = backbone.encode([asks("?", Image.new("RGB", size))])
        types = encoded.extras["token_type_ids"]
        assert int(types.sum()) == backbone.image_tokens(*size) == backbone.model.config.vision_config.image_tokens


# --- folders --------------------------------------------------------------------------------------------------------


def change(file: Path, **values: Any) -> None:
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_published_folder_opens_without_files_of_ours(copied: Path, backbone: CogVLM2Backbone) -> None:
    change(copied / "config.json", model_type=None, rope_theta=None, rope_precision=None)
    (copied / "processor_config.json").unlink()
    (copied / "chat_template.jinja").unlink()
    change(copied / "tokenizer_config.json", pad_token=None)
    (copied / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_p": 0.9}))
    opened = load("cogvlm2", copied, dtype=torch.float32)
    assert opened.pad_id == backbone.pad_id
    assert opened.generate(ROWS, max_new_tokens=6) == backbone.generate(ROWS, max_new_tokens=6)
    opened.save(copied / "again")
    assert load("cogvlm2", copied / "again", dtype="float32").generate(ROWS) == opened.generate(ROWS)


def test_options_reach_the_model(folder: Path) -> None:
    opened = load("cogvlm2", folder, dtype="bfloat16", attention="eager", rope_precision="model")
    assert opened.model.dtype == torch.bfloat16
    assert opened.model.name_or_path == str(folder)
    assert opened.model.config._attn_implementation == "eager"
    assert opened.model.config.rope_precision == "model"
    with pytest.raises(ConfigError, match="backbone.template = 'llama': .*base, chat, vqa"):
        load("cogvlm2", folder, template="llama")


@pytest.mark.parametrize(
    "values, says",
    [
        ({"model_type": "qwen2_vl"}, "has model_type = 'qwen2_vl'"),
        ({"model_type": None, "num_multi_query_heads": None}, "has no num_multi_query_heads"),
        ({"num_multi_query_heads": 3}, "3 key and value heads do not fit"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
    ids=["another family", "another model", "impossible", "of a wrong type"],
)
def test_a_config_that_is_not_ours_is_one_sentence(copied: Path, values: dict[str, Any], says: str) -> None:
    change(copied / "config.json", **values)
    with pytest.raises(CheckpointError, match=says) as caught:
        load("cogvlm2", copied)
    assert str(copied) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_misshapen_weights_are_one_sentence(copied: Path) -> None:
    file = copied / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.0.self_attn.vision_expert_dense.weight"
    save_file({k: v for k, v in weights.items() if k != name}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=name):
        load("cogvlm2", copied)
    save_file({**weights, name: weights[name][:-1].clone()}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=str(copied)):
        load("cogvlm2", copied)


def test_a_processor_for_another_image_size_is_refused(copied: Path) -> None:
    saved = json.loads((copied / "processor_config.json").read_text())
    saved["image_processor"]["size"] = {"height": 112, "width": 112}
    (copied / "processor_config.json").write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match="images of 112 pixels, config.json needs 56"):
        load("cogvlm2", copied)
