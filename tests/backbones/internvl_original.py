"""Writes small random checkpoints in the published InternVL2.5 layout, for tests; shares no code with the converter."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

CHAT_TOKENS = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
BEHIND = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
UNUSED = [f"[UNUSED_TOKEN_{k}]" for k in range(141, 147)]

TEXTS = [
    "The area of the triangle is \\frac{1}{2} \\times 3 \\times 4 = 6, so the answer is \\boxed{6}.",
    "Step 1: 2x + 3 = 11. Step 2: 2x = 8. Step 3: x = 4.",
    "    indented  text,   with   runs of spaces\tand tabs",
    "求三角形的面积。已知圆的半径为三，求阴影部分的面积。答案是六。",
    "x = y == z === w; aaaa bbbb 1111 2222",
]


def train_pieces(**options: Any) -> bytes:
    """A small sentencepiece BPE on ``TEXTS``, as bytes of its file."""
    import sentencepiece

    draw = random.Random(0)
    lines = [*TEXTS * 4, *("".join(draw.choices("".join(TEXTS), k=40)) for _ in range(100))]
    wanted: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 480,
        "byte_fallback": True,
        "character_coverage": 0.98,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": UNUSED,
    }
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, minloglevel=2, **{**wanted, **options}
    )
    return written.getvalue()


def write_tokenizer(folder: Path, pieces: bytes) -> int:
    """The published tokenizer files; how many ids there are."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    ids = {token: model.piece_to_id(old) for token, old in zip(CHAT_TOKENS, UNUSED, strict=True)}
    ids |= {token: len(model) + k for k, token in enumerate(BEHIND)}
    (folder / "tokenizer.model").write_bytes(pieces)
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    described = {**named, "additional_special_tokens": list(ids), "tokenizer_class": "InternLM2Tokenizer"}
    _json(folder / "tokenizer_config.json", described)
    _json(folder / "special_tokens_map.json", {**named, "additional_special_tokens": list(ids)})
    _json(folder / "added_tokens.json", ids)
    _json(folder / "generation_config.json", {"eos_token_id": [ids["<|im_end|>"], ids["<|im_start|>"]]})
    return len(model) + len(BEHIND)


def describe(vocabulary: int, **changes: Any) -> dict[str, Any]:
    """A published ``config.json`` at a small size; ``text_x`` and ``vision_x`` change x in the two parts."""
    text: dict[str, Any] = {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlm2",
        "bias": False,
        "hidden_act": "silu",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "rope_theta": 1000000,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "vocab_size": vocabulary,
    }
    vision: dict[str, Any] = {
        "hidden_act": "gelu",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
        "layer_norm_eps": 1e-6,
        "norm_type": "layer_norm",
        "qk_normalization": False,
        "qkv_bias": True,
    }
    top = {key: value for key, value in changes.items() if not key.startswith(("text_", "vision_"))}
    return {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "force_image_size": 28,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "llm_config": text | {k.removeprefix("text_"): v for k, v in changes.items() if k.startswith("text_")},
        "vision_config": vision | {k.removeprefix("vision_"): v for k, v in changes.items() if k.startswith("vision_")},
        **top,
    }


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published checkpoint with this config."""
    text, vision = config["llm_config"], config["vision_config"]
    found: dict[str, tuple[int, ...]] = {}
    wide, width = text["hidden_size"], vision["hidden_size"]
    patch, cells = vision["patch_size"], (vision["image_size"] // vision["patch_size"]) ** 2
    merged = width * int(1 / config["downsample_ratio"]) ** 2

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        found[f"{name}.weight"] = (rows, columns)
        if bias:
            found[f"{name}.bias"] = (rows,)

    def norm(name: str, size: int, bias: bool) -> None:
        found[f"{name}.weight"] = (size,)
        if bias:
            found[f"{name}.bias"] = (size,)

    found["vision_model.embeddings.class_embedding"] = (1, 1, width)
    found["vision_model.embeddings.position_embedding"] = (1, cells + 1, width)
    found["vision_model.embeddings.patch_embedding.weight"] = (width, 3, patch, patch)
    found["vision_model.embeddings.patch_embedding.bias"] = (width,)
    for k in range(vision["num_hidden_layers"]):
        layer, layer_norm = f"vision_model.encoder.layers.{k}", vision["norm_type"] == "layer_norm"
        found[f"{layer}.ls1"] = found[f"{layer}.ls2"] = (width,)
        norm(f"{layer}.norm1", width, layer_norm)
        norm(f"{layer}.norm2", width, layer_norm)
        linear(f"{layer}.attn.qkv", 3 * width, width, vision["qkv_bias"])
        linear(f"{layer}.attn.proj", width, width, True)
        if vision["qk_normalization"]:
            norm(f"{layer}.attn.q_norm", width, False)
            norm(f"{layer}.attn.k_norm", width, False)
        linear(f"{layer}.mlp.fc1", vision["intermediate_size"], width, True)
        linear(f"{layer}.mlp.fc2", width, vision["intermediate_size"], True)
    norm("mlp1.0", merged, True)
    linear("mlp1.1", wide, merged, True)
    linear("mlp1.3", wide, wide, True)
    head = wide // text["num_attention_heads"]
    rows = (text["num_attention_heads"] + 2 * text["num_key_value_heads"]) * head
    found["language_model.model.tok_embeddings.weight"] = (text["vocab_size"], wide)
    for k in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{k}"
        linear(f"{layer}.attention.wqkv", rows, wide, text["bias"])
        linear(f"{layer}.attention.wo", wide, wide, text["bias"])
        for w in ("w1", "w3"):
            linear(f"{layer}.feed_forward.{w}", text["intermediate_size"], wide, False)
        linear(f"{layer}.feed_forward.w2", wide, text["intermediate_size"], False)
        norm(f"{layer}.attention_norm", wide, False)
        norm(f"{layer}.ffn_norm", wide, False)
    norm("language_model.model.norm", wide, False)
    linear("language_model.output", text["vocab_size"], wide, False)
    return found


def write_original(
    folder: Path,
    pieces: bytes,
    *,
    shards: int = 1,
    pickled: bool = False,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> dict[str, Tensor]:
    """A whole published folder with random weights, which are returned."""
    folder.mkdir(parents=True, exist_ok=True)
    config = describe(write_tokenizer(folder, pieces), **changes)
    _json(folder / "config.json", config)
    draw = torch.Generator().manual_seed(0)
    tensors = {name: (torch.randn(shape, generator=draw) * 0.2).to(dtype) for name, shape in shapes(config).items()}
    names = list(tensors)
    stem, ending = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    held: dict[str, str] = {}
    for k in range(shards):
        file = f"{stem}-{k + 1:05}-of-{shards:05}.{ending}" if shards > 1 else f"{stem}.{ending}"
        part = {name: tensors[name] for name in names[k::shards]}
        held |= dict.fromkeys(part, file)
        if pickled:
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file)
    if shards > 1:
        _json(folder / f"{stem}.{ending}.index.json", {"metadata": {}, "weight_map": held})
    return tensors


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
