"""Published InternVL3 folders (``internvl_chat`` around Qwen2.5): opened as they are, checked before that, saved in
transformers' layout."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from internvl_original import describe, shapes
from safetensors.torch import load_file, save_file
from small import picture
from transformers import AutoModelForImageTextToText, InternVLForConditionalGeneration, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from mathse import models
from mathse.commands.convert import convert
from mathse.errors import CheckpointError
from mathse.models import silence_transformers
from mathse.models.internvl2_5.published import SYSTEM
from mathse.models.internvl3 import InternVL3Backbone
from mathse.models.row import Row

load = partial(models.load, "internvl3")
silence_transformers()

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the")]
OF_QWEN = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
BEHIND = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
ROW = Row(question="What is the sum?", images=[picture(84, 28)], response="It is 7.")


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Qwen2.5's files at a small size, with InternVL3's tokens behind them: the id of each token."""
    pieces = [*bytes_to_unicode().values(), *("".join(pair) for pair in MERGES)]
    ids = {piece: k for k, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES))
    added = {token: len(ids) + k for k, token in enumerate([*OF_QWEN, *BEHIND])}
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "added_tokens_decoder": {str(k): {"content": token, **flags} for token, k in added.items()},
        "additional_special_tokens": [*OF_QWEN[1:]],
        "model_max_length": 12288,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": added["<|im_end|>"]}))
    return ids | added


def write_published(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """A whole published folder with random weights, which are returned."""
    folder.mkdir()
    vocabulary = len(write_tokenizer(folder))
    language = {"text_architectures": ["Qwen2ForCausalLM"], "text_model_type": "qwen2", "text_hidden_size": 48}
    config = describe(vocabulary, **language, **changes)
    (folder / "config.json").write_text(json.dumps(config))
    vision = {n: s for n, s in shapes(config).items() if not n.startswith("language_model.")}
    text = config["llm_config"]
    wide, inner, kv = text["hidden_size"], text["intermediate_size"], text["num_key_value_heads"]
    keys = wide // text["num_attention_heads"] * kv
    named = {"embed_tokens.weight": (vocabulary, wide), "norm.weight": (wide,)}
    for k in range(text["num_hidden_layers"]):
        layer = f"layers.{k}"
        for name, rows in (("q", wide), ("k", keys), ("v", keys)):
            named[f"{layer}.self_attn.{name}_proj.weight"] = (rows, wide)
            named[f"{layer}.self_attn.{name}_proj.bias"] = (rows,)
        named[f"{layer}.self_attn.o_proj.weight"] = (wide, wide)
        named |= {f"{layer}.mlp.{name}_proj.weight": (inner, wide) for name in ("gate", "up")}
        named[f"{layer}.mlp.down_proj.weight"] = (wide, inner)
        named |= {f"{layer}.{norm}_layernorm.weight": (wide,) for norm in ("input", "post_attention")}
    language_model = {f"language_model.model.{name}": shape for name, shape in named.items()}
    language_model["language_model.lm_head.weight"] = (vocabulary, wide)
    draw = torch.Generator().manual_seed(0)
    tensors = {n: torch.randn(shape, generator=draw) * 0.2 for n, shape in (vision | language_model).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


@pytest.fixture
def original(tmp_path: Path) -> Path:
    write_published(tmp_path / "original")
    return tmp_path / "original"


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_every_published_weight_is_in_the_model_under_its_native_name(tmp_path: Path) -> None:
    tensors = write_published(tmp_path / "original")
    backbone = load(tmp_path / "original")
    assert isinstance(backbone, InternVL3Backbone) and backbone.model.config.text_config.model_type == "qwen2"
    state = backbone.model.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("language_model.model."):
            assert torch.equal(state[name.replace("language_model.model.", "model.language_model.")], tensor)
    assert torch.equal(state["lm_head.weight"], tensors["language_model.lm_head.weight"])
    queries, *_ = tensors["vision_model.encoder.layers.1.attn.qkv.weight"].chunk(3)
    assert torch.equal(state["model.vision_tower.encoder.layer.1.attention.q_proj.weight"], queries)
    assert torch.equal(state["model.multi_modal_projector.linear_2.weight"], tensors["mlp1.3.weight"])
    assert backbone.model.config.text_config.rope_parameters["rope_type"] == "dynamic"


def test_a_prompt_is_the_published_conversation_without_a_first_token_of_its_own(original: Path) -> None:
    backbone = load(original)
    text = backbone.tokenizer.decode(backbone.encode([ROW])[0].prompt)
    # a picture of 84 x 28 pixels: three tiles and a thumbnail, of four tokens each
    assert text == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<img>{'<IMG_CONTEXT>' * 16}</img>\n"
        "What is the sum?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = write_tokenizer(original)
    assert (backbone.end_id, backbone.end_ids) == (ids["<|im_end|>"], [ids["<|im_end|>"]])
    assert set(backbone.never_sampled) == {ids[token] for token in ("<img>", "</img>", "<IMG_CONTEXT>")}
    assert (
        load(original, system="You check geometry.").render(ROW).startswith("<|im_start|>system\nYou check geometry.")
    )


def test_the_tokenizer_is_qwens_own_with_the_tokens_of_pictures(original: Path) -> None:
    tokenizer: PreTrainedTokenizerFast = load(original).tokenizer
    ids = write_tokenizer(original)
    assert tokenizer("the the", add_special_tokens=False)["input_ids"] == [ids["the"], ids["Ġthe"]]
    for text in ("12 + 5 = 17", "求图中 x²。", "😀\n\n<tag>", "  two   spaces"):
        encoded = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(encoded) == text
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in BEHIND} == {t: ids[t] for t in BEHIND}


def test_a_converted_folder_is_opened_by_plain_transformers_and_answers_alike(original: Path, tmp_path: Path) -> None:
    folder = convert(original, tmp_path / "native")
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is InternVLForConditionalGeneration
    published, native = load(original), load(folder)
    assert native.encode([ROW])[0].ids == published.encode([ROW])[0].ids
    with torch.no_grad():
        one, other = (b.answer_logits(b.collate([ROW]))[0] for b in (published, native))
    assert torch.equal(one, other)
    saved = load_file(folder / "model.safetensors")
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in saved


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"architectures": ["InternLM3ForCausalLM"]},
            "'InternLM3ForCausalLM'.*name an InternVL3 checkpoint with a Qwen2.5",
        ),
        ({"architectures": ["InternLM2ForCausalLM"]}, "only .*Qwen2ForCausalLM.* is supported"),
    ],
)
def test_another_language_model_is_refused(original: Path, config: dict[str, Any], said: str) -> None:
    published = json.loads((original / "config.json").read_text())
    edit(original / "config.json", llm_config=published["llm_config"] | config)
    with pytest.raises(CheckpointError, match=said):
        load(original)


def test_an_internvl2_5_with_that_language_model_is_sent_to_its_own_name(original: Path) -> None:
    with pytest.raises(CheckpointError, match="Qwen2ForCausalLM"):
        models.load("internvl2_5", original)


def test_a_tokenizer_without_the_tokens_of_pictures_is_refused(original: Path) -> None:
    config = json.loads((original / "tokenizer_config.json").read_text())
    known = config["added_tokens_decoder"]
    edit(
        original / "tokenizer_config.json",
        added_tokens_decoder={k: token for k, token in known.items() if token["content"] != "<IMG_CONTEXT>"},
    )
    added = json.loads((original / "added_tokens.json").read_text())
    del added["<IMG_CONTEXT>"]
    (original / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(CheckpointError, match="<IMG_CONTEXT> is no token of its tokenizer"):
        load(original)


def test_a_tokenizer_that_cannot_be_read_is_refused(original: Path) -> None:
    (original / "merges.txt").write_text("#version: 0.2\nt h\nQ Q\n")
    with pytest.raises(CheckpointError, match=r"merges\.txt:3: 'Q Q' joins tokens that vocab\.json does not have"):
        load(original)
    for vocabulary in ("{", '["a"]', '{"a": "b"}'):
        (original / "vocab.json").write_text(vocabulary)
        with pytest.raises(CheckpointError, match=str(original)):
            load(original)
