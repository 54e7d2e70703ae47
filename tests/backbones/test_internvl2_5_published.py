"""Published InternVL2.5 folders: opened as they are, checked before that, saved in transformers' layout."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from e2e.runs import TINY, run
from internvl_original import describe, shapes, train_pieces, write_original  # noqa: E402
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, InternVLForConditionalGeneration

from mathse import models
from mathse.commands.convert import convert, main
from mathse.commands.export import export_model
from mathse.errors import CheckpointError
from mathse.evolution.models import RunModels
from mathse.models import silence_transformers
from mathse.models.checkpoint import Stored, expect_weights
from mathse.models.internvl2_5 import InternVL25Backbone
from mathse.models.internvl2_5.published import INTERNLM2, build_native_config
from mathse.models.row import Row
from mathse.runs.reader import read_run
from mathse.training.fit import save_checkpoint

load = partial(models.load, "internvl2_5")

silence_transformers()


@pytest.fixture(scope="module")
def pieces() -> bytes:
    return train_pieces()


@pytest.fixture
def original(tmp_path, pieces) -> Path:
    write_original(tmp_path / "original", pieces, shards=3)
    return tmp_path / "original"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def refused(folder: Path, *parts: str) -> None:
    """Opening says all of ``parts`` in one sentence, and so does converting, which leaves nothing behind."""
    for attempt in (lambda: load(folder), lambda: convert(folder, folder.parent / "refused")):
        with pytest.raises(CheckpointError) as error:
            attempt()
        assert all(part in str(error.value) for part in parts), str(error.value)
        assert "\n" not in str(error.value)
    assert [p.name for p in folder.parent.iterdir() if "refused" in p.name] == []


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# --- what is opened, and what is saved -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_plain_transformers_opens_with_nothing_missing_and_nothing_left_over(tmp_path, pieces, dtype):
    write_original(tmp_path / "original", pieces, shards=2, dtype=getattr(torch, dtype))
    folder = convert(tmp_path / "original", tmp_path / "native")
    model, loaded = InternVLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(loaded.values()), loaded
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}  # kept, and read back unasked
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is InternVLForConditionalGeneration
    opened = load(tmp_path / "original", dtype=dtype).model
    assert all(torch.equal(p, opened.get_parameter(name)) for name, p in model.named_parameters())


def test_weights_are_saved_under_the_names_that_transformers_gives_a_new_model(original, tmp_path):
    """And not under the published ones, as transformers does with a model that it converted while opening it."""
    opened = load(original)
    opened.save(tmp_path / "native")
    new = InternVLForConditionalGeneration(opened.model.config)
    new.load_state_dict(opened.model.state_dict())
    new.save_pretrained(tmp_path / "saved")
    saved, expected = weights(tmp_path / "native"), weights(tmp_path / "saved")
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in saved  # servers know these


def test_an_unchanged_base_refers_to_the_published_weights_and_is_opened_as_they_are(original, tmp_path):
    opened = load(original, dtype="bfloat16")
    folder = save_checkpoint(opened, tmp_path / "base" / "checkpoint", unchanged=True)
    for file in original.glob("*.safetensors"):
        assert (folder / file.name).is_symlink() and (folder / file.name).readlink() == file
    again = load(folder, dtype="bfloat16")
    assert all(torch.equal(p, opened.model.get_parameter(name)) for name, p in again.model.named_parameters())
    row = Row(question="What is 7 + 5?", images=[])
    assert again.encode([row])[0].prompt == opened.encode([row])[0].prompt
    with pytest.raises(ValueError, match="internvl_chat"):  # and no random weights
        AutoModelForImageTextToText.from_pretrained(folder)


def test_a_base_that_an_engine_opens_is_written_in_transformers_layout(original, tmp_path):
    folder = save_checkpoint(load(original), tmp_path / "base" / "checkpoint", unchanged=True, plain=True)
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is InternVLForConditionalGeneration
    refers = save_checkpoint(load(original), tmp_path / "other" / "checkpoint", unchanged=True)
    with pytest.raises(CheckpointError, match="published layout, which engines do not open"):
        RunModels.open_student(
            SimpleNamespace(served=object(), open_for_inference=load), SimpleNamespace(checkpoint=refers)
        )


@pytest.mark.slow
def test_a_run_goes_on_from_a_published_base_without_a_copy_and_exports_it_converted(original, tmp_path):
    settings = [setting for setting in TINY if not setting.startswith("backbone.")]
    settings += ["judge=answer", "evolution.rounds=0", "evolution.reflect.when=never", "sft.method=lora"]
    settings += ["backbone=internvl2_5", f"backbone.path={original}", "evaluation.max_new_tokens=2"]
    run(tmp_path / "run", *settings)
    base = tmp_path / "run" / "base" / "checkpoint"
    assert all(file.is_symlink() for file in base.glob("*.safetensors"))
    export_model(read_run(tmp_path / "run"), "base", tmp_path / "out")
    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    read = load(original, dtype=exported.dtype).model
    assert all(torch.equal(p, read.get_parameter(name)) for name, p in exported.named_parameters())
    assert (tmp_path / "out" / "README.md").is_file()


def test_what_the_weights_are_split_into_does_not_change_them(tmp_path, pieces):
    opened = []
    for shards in (1, 4):
        write_original(tmp_path / str(shards), pieces, shards=shards)
        opened.append(load(tmp_path / str(shards)).model.state_dict())
    assert opened[0].keys() == opened[1].keys()
    assert all(torch.equal(opened[1][name], tensor) for name, tensor in opened[0].items())


def test_opening_writes_nothing_anywhere(original, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in original.iterdir()}
    load(original)
    assert {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in original.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def test_a_checkpoint_in_transformers_layout_gives_the_prompts_and_logits_of_the_published_one(original, tmp_path):
    published = load(original)
    published.save(tmp_path / "native")
    rows = [{"question": "1 + 1?", "images": [Image.new("RGB", (56, 28))], "response": "2"}]
    logits = [backbone.answer_logits(backbone.collate(rows))[0] for backbone in (published, load(tmp_path / "native"))]
    assert torch.equal(*logits)


def test_another_dtype_is_written_when_asked_for(original, tmp_path):
    folder = convert(original, tmp_path / "native", dtype="bfloat16")
    assert {t.dtype for t in weights(folder).values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_queries_keys_and_values_of_every_head_are_found_in_their_group(tmp_path, pieces):
    """Rows of ``wqkv``: for each kv head the queries that share it, its key, its value; its bias likewise."""
    published = write_original(tmp_path / "original", pieces, text_bias=True)
    load(tmp_path / "original").save(tmp_path / "native")
    made = weights(tmp_path / "native")
    heads, kv, size = 6, 2, 48 // 6
    for kind in ("weight", "bias"):
        rows = published[f"language_model.model.layers.1.attention.wqkv.{kind}"].split(size)
        attention = {part: made[f"language_model.model.layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"}
        for head in range(heads):
            group, place = divmod(head, heads // kv)
            assert torch.equal(attention["q"].split(size)[head], rows[group * (heads // kv + 2) + place])
        for group in range(kv):
            last = (group + 1) * (heads // kv + 2)
            assert torch.equal(attention["k"].split(size)[group], rows[last - 2])
            assert torch.equal(attention["v"].split(size)[group], rows[last - 1])
    output = published["language_model.model.layers.1.attention.wo.bias"]
    assert torch.equal(made["language_model.model.layers.1.self_attn.o_proj.bias"], output)


@pytest.mark.parametrize(
    "changes",
    [
        {"text_bias": True},
        {"vision_qk_normalization": True, "vision_norm_type": "rms_norm", "vision_qkv_bias": False},
        {"force_image_size": 42},  # tiles larger than those of the position embedding
        {"text_num_key_value_heads": 6},
        {"text_rope_scaling": None, "text_rope_theta": 10000},
        {"select_layer": -2},
    ],
    ids=str,
)
def test_settings_are_the_sources_own(tmp_path, pieces, changes):
    """The model opens, and a picture has as many embeddings as tokens."""
    write_original(tmp_path / "original", pieces, **changes)
    backbone = load(tmp_path / "original", dtype="float32")
    side = changes.get("force_image_size", 28)
    batch = backbone.collate([{"question": "?", "images": [Image.new("RGB", (side * 2, side))], "response": "2"}])
    assert batch["pixel_values"].shape == (3, 3, side, side)
    assert backbone.model(**batch).loss.isfinite()
    text = backbone.model.config.text_config
    assert text.rope_parameters["rope_theta"] == changes.get("text_rope_theta", 1000000)
    assert text.attention_bias is changes.get("text_bias", False)
    assert backbone.model.config.vision_feature_layer == changes.get("select_layer", -1)


def test_the_layer_that_is_read_counts_from_the_end_as_published(tmp_path, pieces):
    """``select_layer`` -2 is what the last layer is given."""
    write_original(tmp_path / "original", pieces, select_layer=-2)
    model = load(tmp_path / "original", dtype="float32").model
    tiles = torch.randn(1, 3, 28, 28)
    given = []
    last = model.model.vision_tower.encoder.layer[-1]
    last.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    with torch.no_grad():
        found = model.get_image_features(tiles).pooler_output
        square = given[0][:, 1:].unflatten(1, (4, 4))
        shuffled = model.model.pixel_shuffle(square, scale_factor=0.5).flatten(1, 2)
        assert torch.allclose(found, model.model.multi_modal_projector(shuffled), atol=1e-6)


def test_responses_end_where_the_published_generation_config_says(original, tmp_path):
    ends = json.loads((original / "generation_config.json").read_text())["eos_token_id"]
    backbone = load(original, dtype="float32")
    assert backbone.model.generation_config.eos_token_id == ends
    assert backbone.model.generation_config.pad_token_id == 2
    turn = backbone.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert backbone.end_ids == sorted(ends)
    assert backbone.encode([{"question": "?", "images": [], "response": "6"}])[0].response[-1] == turn
    assert turn != backbone.tokenizer.eos_token_id
    backbone.save(tmp_path / "native")
    saved = InternVLForConditionalGeneration.from_pretrained(tmp_path / "native").generation_config
    assert saved.to_dict() == backbone.model.generation_config.to_dict()
    (original / "generation_config.json").unlink()
    assert load(original).model.generation_config.eos_token_id == ends


def test_the_beginning_of_text_is_written_once_however_a_prompt_is_encoded(original, tmp_path):
    folder = convert(original, tmp_path / "native")
    processor = AutoProcessor.from_pretrained(folder)
    messages = [{"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = list(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)[0])
    backbone = load(folder, dtype="float32")
    assert ids == backbone.encode([{"question": "1 + 1?", "images": []}])[0].prompt
    assert ids == backbone.tokenizer(text, add_special_tokens=False)["input_ids"]  # as a server encodes it
    assert ids.count(processor.tokenizer.bos_token_id) == 1 == ids.index(processor.tokenizer.bos_token_id) + 1


def test_a_template_that_leaves_the_beginning_to_the_tokenizer_gives_the_same_prompt(original, tmp_path):
    """As templates of checkpoints that others converted do."""
    folder = convert(original, tmp_path / "native")
    row = {"question": "1 + 1?", "images": []}
    ids = load(folder, dtype="float32").encode([row])[0].prompt
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template.replace("{{ bos_token }}", ""), encoding="utf-8")
    other = load(folder, dtype="float32")
    assert other.encode([row])[0].prompt == ids
    other.save(tmp_path / "saved")  # and what is exported renders it too
    assert load(tmp_path / "saved", dtype="float32").encode([row])[0].prompt == ids


def test_a_system_text_is_a_setting_and_is_exported(original, tmp_path):
    said = "You're a 'careful' tutor.\nUse \\LaTeX."
    backbone = load(original, dtype="float32", system=said)
    text = backbone.render({"question": "1 + 1?", "images": []})
    assert text == (
        f"<s><|im_start|>system\n{said}<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    )
    backbone.save(tmp_path / "saved")
    assert load(tmp_path / "saved", dtype="float32").render({"question": "1 + 1?", "images": []}) == text


def test_the_processor_reopens_with_the_checkpoints_tiles(original, tmp_path):
    processor = AutoProcessor.from_pretrained(convert(original, tmp_path / "native"))
    images = processor.image_processor
    assert (images.size.height, images.size.width, images.min_patches, images.max_patches) == (28, 28, 1, 12)
    assert processor.image_seq_length == (28 // 7 // 2) ** 2
    assert images.crop_to_patches


# --- whole or not at all ---------------------------------------------------------------------------------------------


def test_a_killed_conversion_leaves_no_folder_and_the_next_one_starts_clean(original, tmp_path, monkeypatch):
    destination = tmp_path / "native"
    child = os.fork()
    if child == 0:  # killed after its weights
        try:
            monkeypatch.setattr("mathse.runs.store.publish_folder", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            convert(original, destination)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".native.unfinished", "original"]
    (tmp_path / left[0] / "model-00099-of-00099.safetensors").write_bytes(b"stale")
    convert(original, destination)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["native", "original"]
    assert not (destination / "model-00099-of-00099.safetensors").exists()
    assert load(destination, dtype="float32").family == "internvl2_5"


def test_a_failed_conversion_leaves_nothing(original, tmp_path, monkeypatch):
    def full(self: InternVL25Backbone, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(InternVL25Backbone, "save", full)
    with pytest.raises(OSError, match="No space"):
        convert(original, tmp_path / "native")
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


def test_a_disk_without_room_is_named_before_a_weight_is_read(original, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(CheckpointError, match="make room"):
        convert(original, tmp_path / "native")


def test_a_folder_with_something_in_it_is_not_touched(original, tmp_path):
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        convert(original, tmp_path / "native")
    assert (tmp_path / "native" / "notes.txt").read_text() == "mine"
    (tmp_path / "native" / "notes.txt").unlink()
    assert convert(original, tmp_path / "native") == tmp_path / "native"  # an empty one is as good as none


# --- refused before a weight is read ---------------------------------------------------------------------------------


def test_a_missing_shard_is_named(original):
    (original / "model-00002-of-00003.safetensors").unlink()
    refused(original, "model-00002-of-00003.safetensors", "missing", "download")


def test_a_shard_that_was_cut_short_is_named(original):
    file = original / "model-00001-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(original, str(file), "download it again")


def test_a_folder_without_weights_is_refused(original):
    for file in original.glob("model*"):
        file.unlink()
    refused(original, str(original), "model.safetensors", "missing", "download")


def test_pickled_weights_are_named_and_not_run(tmp_path, pieces):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    write_original(tmp_path / "original", pieces, pickled=True)
    torch.save({"x": Trap()}, tmp_path / "original" / "pytorch_model.bin")
    refused(tmp_path / "original", "pytorch_model.bin", "pickles", "safetensors")
    assert not (tmp_path / "sprung").exists()


def _resaved(folder: Path, change) -> None:
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)


def test_an_unknown_tensor_is_named(original):
    _resaved(original, lambda t: t.update(extra=torch.zeros(1)) if "mlp1.1.weight" in t else None)
    refused(original, "extra", "no such tensor", "model-0000")


def test_a_tensor_that_is_in_two_files_is_named(original):
    _resaved(original, lambda t: t.update(extra=torch.zeros(1)))
    refused(original, "extra", "model-00001", "model-00002")


def test_a_missing_tensor_is_named_by_what_it_becomes(original):
    _resaved(original, lambda t: t.pop("mlp1.3.bias", None))
    refused(original, "model.multi_modal_projector.linear_2.bias", "1 missing", "download")


@pytest.mark.parametrize(
    ("name", "native"),
    [
        ("mlp1.1.weight", "model.multi_modal_projector.linear_1.weight"),
        (
            "language_model.model.layers.1.attention.wqkv.weight",
            "language_model.layers.1.self_attn.k_proj.weight",
        ),
        ("vision_model.encoder.layers.0.attn.qkv.bias", "model.vision_tower.encoder.layer.0.attention.v_proj.bias"),
    ],
)
def test_a_tensor_of_a_wrong_shape_is_named_by_what_it_becomes(original, name, native):
    _resaved(original, lambda t: t.update({name: t[name][:-1].clone()}) if name in t else None)
    refused(original, native, "shape", "download")


def test_nothing_is_read_of_a_checkpoint_that_is_refused(original, monkeypatch):
    _resaved(original, lambda t: t.pop("mlp1.3.bias", None))
    opened = InternVLForConditionalGeneration.from_pretrained
    folders: list[Any] = []
    monkeypatch.setattr(
        InternVLForConditionalGeneration,
        "from_pretrained",
        lambda folder, **options: (folders.append(folder), opened(folder, **options))[1],
    )
    refused(original, "1 missing")
    assert folders == [None, None]  # asked with shapes alone


def test_quantised_weights_are_refused(original):
    _resaved(original, lambda t: t.update({k: v.to(torch.int8) for k, v in t.items() if k == "mlp1.1.weight"}))
    refused(original, "mlp1.1.weight", "quantised")


def test_old_computed_frequencies_are_left_out(original, tmp_path):
    first = "language_model.model.layers.0.attention.rotary_emb.inv_freq"
    _resaved(original, lambda t: t.update({first: torch.zeros(4)}) if "mlp1.1.weight" in t else None)
    load(original).save(tmp_path / "native")
    assert not any("inv_freq" in name for name in weights(tmp_path / "native"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "qwen2_vl"}, "model_type"),
        ({"template": "Hermes-2"}, "template"),
        ({"ps_version": "v1"}, "ps_version"),
        ({"use_thumbnail": False}, "use_thumbnail"),
        ({"llm_config": {"architectures": ["InternLM3ForCausalLM"]}}, "InternLM3ForCausalLM"),
        ({"downsample_ratio": None}, "downsample_ratio"),
        ({"llm_config": []}, "config.json"),
        ({"select_layer": "last"}, "vision_feature_layer"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_config_of_another_kind_is_refused_by_its_setting(original, changes, named):
    described = json.loads((original / "config.json").read_text()) | changes
    (original / "config.json").write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
    refused(original, named)


def test_a_config_whose_sizes_do_not_go_together_is_refused(tmp_path, pieces):
    write_original(tmp_path / "original", pieces)
    config = json.loads((tmp_path / "original" / "config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 3
    (tmp_path / "original" / "config.json").write_text(json.dumps(config))
    refused(tmp_path / "original", "config.json", "num_heads")


def test_a_tokenizer_that_gives_the_image_token_no_id_is_refused(original):
    tokens = json.loads((original / "added_tokens.json").read_text())
    del tokens["<IMG_CONTEXT>"]
    (original / "added_tokens.json").write_text(json.dumps(tokens))
    refused(original, "<IMG_CONTEXT>", "tokenizer_config.json")


def test_tokens_that_do_not_belong_to_the_pieces_are_refused(original):
    tokens = json.loads((original / "added_tokens.json").read_text())
    edit(original / "added_tokens.json", **{"<img>": tokens["<img>"] + 100})
    refused(original, "do not belong together")


@pytest.mark.parametrize("content", [None, b"", b"not a model at all", b"\x0a\xff\xff"])
def test_a_damaged_tokenizer_is_named(original, content):
    if content is None:
        (original / "tokenizer.model").unlink()
    else:
        (original / "tokenizer.model").write_bytes(content)
    refused(original, "tokenizer.model", "download")


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(original):
    config = json.loads((original / "config.json").read_text())
    config["llm_config"]["vocab_size"] -= 1
    (original / "config.json").write_text(json.dumps(config))
    refused(original, "tokens", "rows")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_converts_and_refuses_what_needs_no_conversion(original, tmp_path, capsys):
    assert main([str(original), str(tmp_path / "native"), "--dtype", "bfloat16"]) == 0
    assert "native" in capsys.readouterr().out
    assert type(AutoTokenizer.from_pretrained(tmp_path / "native")).__name__ == "TokenizersBackend"
    with pytest.raises(CheckpointError, match="already"):
        main([str(tmp_path / "native"), str(tmp_path / "other")])


# --- the real size, without its weights ------------------------------------------------------------------------------

REAL = {
    "text_hidden_size": 4096,
    "text_intermediate_size": 14336,
    "text_num_hidden_layers": 32,
    "text_num_attention_heads": 32,
    "text_num_key_value_heads": 8,
    "text_max_position_embeddings": 32768,
    "vision_hidden_size": 1024,
    "vision_intermediate_size": 4096,
    "vision_num_hidden_layers": 24,
    "vision_num_attention_heads": 16,
    "vision_image_size": 448,
    "vision_patch_size": 14,
    "force_image_size": 448,
}


def test_the_8b_checkpoint_has_the_published_number_of_parameters_and_256_tokens_a_tile():
    described = describe(92553, **REAL)
    config = build_native_config(described, INTERNLM2, image_token_id=92546, where="config.json")
    assert config.image_seq_length == 256
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    assert sum(p.numel() for p in model.parameters()) == 8_075_365_376
    stored = {name: Stored(Path("x"), shape, "BF16") for name, shape in shapes(described).items()}
    assert sum(torch.Size(header.shape).numel() for header in stored.values()) == 8_075_365_376
    expect_weights(InternVLForConditionalGeneration, config, stored, Path("folder"))
    del stored["language_model.model.layers.31.attention.wqkv.weight"]
    with pytest.raises(CheckpointError, match="3 missing weights, among them model.language_model.layers.31.self_attn"):
        expect_weights(InternVLForConditionalGeneration, config, stored, Path("folder"))
