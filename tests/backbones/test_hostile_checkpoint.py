"""Checkpoint folders from anybody: each ends in one sentence, in bounded time, and none reads a file beside it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from mathse import models
from mathse.commands.tiny import main as make
from mathse.config.backbones import CausalLM
from mathse.errors import CheckpointError, ConfigError, DataError
from mathse.inference.llm.images import data_url
from mathse.models import adapters, trial
from mathse.models.causal_lm import load as load_causal_lm
from mathse.runs.layout import ADAPTER

INDEX = "model.safetensors.index.json"
DEEP = "[" * 100_000 + "]" * 100_000
LOOPS = "{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set x = namespace(s='a') %}{% for i in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) / "checkpoint" for name in ("causal_lm", "tiny")}
    for name, folder in made.items():
        assert make([name, str(folder)]) == 0
    return made


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "CPU_SECONDS", 2)
    monkeypatch.setattr(trial, "MEMORY_BYTES", 2**30)


def edited(file: str, **values: Any) -> Callable[[Path], None]:
    """Sets these keys of a JSON file, also below ``text_config``."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        for section in (content, content.get("text_config")):
            if isinstance(section, dict):
                section.update(values)
        (folder / file).write_text(json.dumps(content))

    return edit


def written(file: str, text: str) -> Callable[[Path], None]:
    return bytes_in(file, text.encode())


def pipe(file: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return edit


def bytes_in(file: str, data: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / file).write_bytes(data)

    return edit


def turned_into_a_folder(file: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return edit


def split(pattern: str, file: str = "tokenizer.json") -> Callable[[Path], None]:
    """A tokenizer that cuts its text by this regular expression."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        content["pre_tokenizer"] = {
            "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False
        }  # fmt: skip
        (folder / file).write_text(json.dumps(content))

    return edit


def index(value: Any) -> Callable[[Path], None]:
    return written(INDEX, value if isinstance(value, str) else json.dumps(value))


CASES: dict[str, Callable[[Path], None]] = {
    "index is a list": index([1, 2]),
    "index is deep": index(DEEP),
    "index has a list": index({"weight_map": [1]}),
    "index has numbers": index({"weight_map": {"a": 3}}),
    "index is empty": index({}),
    "index names a file above": index({"weight_map": {"a": "../secret.safetensors"}}),
    "index names an absolute file": index({"weight_map": {"a": "/etc/passwd"}}),
    "index is a pipe": pipe(INDEX),
    "config is a list": written("config.json", "[]"),
    "config is deep": written("config.json", DEEP),
    "config is no text": bytes_in("config.json", b"\xff\xfe\x00{"),
    "config is a pipe": pipe("config.json"),
    "config is a folder": turned_into_a_folder("config.json"),
    "width of 10^30": edited("config.json", hidden_size=10**30),
    "width of 10^15": edited("config.json", hidden_size=10**15),
    "width is negative": edited("config.json", hidden_size=-64),
    "width is text": edited("config.json", hidden_size="wide"),
    "no heads": edited("config.json", num_attention_heads=0),
    "no key heads": edited("config.json", num_key_value_heads=0),
    "heads are null": edited("config.json", num_attention_heads=None),
    "10^7 layers": edited("config.json", num_hidden_layers=10**7),
    "9,999 layers": edited("config.json", num_hidden_layers=9999),
    "an activation that there is not": edited("config.json", hidden_act="explode"),
    "rope is a list": edited("config.json", rope_parameters=[1]),
    "dtype that there is not": edited("config.json", dtype="float7", torch_dtype="float7"),
    "weights are a pipe": pipe("model.safetensors"),
    "weights are text": written("model.safetensors", "no tensors"),
    "weights with a long header": bytes_in("model.safetensors", b"\xff" * 64),
    "generation config is a list": written("generation_config.json", "[1]"),
    "generation config is deep": written("generation_config.json", DEEP),
    "tokenizer is a list": written("tokenizer.json", "[1]"),
    "tokenizer is deep": written("tokenizer.json", DEEP),
    "tokenizer is empty": written("tokenizer.json", "{}"),
    "tokenizer is a pipe": pipe("tokenizer.json"),
    "tokenizer's settings are a list": written("tokenizer_config.json", "[1]"),
    "tokenizer's settings are deep": written("tokenizer_config.json", DEEP),
    "tokenizer's settings are a pipe": pipe("tokenizer_config.json"),
    "tokenizer's expression does not end": split(r"(?:(?:x+x+)+)+y"),
    "tokenizer's expression is broken": split("(((("),
    "template is a pipe": pipe("chat_template.jinja"),
    "template loops": written("chat_template.jinja", LOOPS),
    "template doubles": written("chat_template.jinja", DOUBLING),
    "template is large": written("chat_template.jinja", "{{ 'a' * 10**10 }}"),
    "template calls itself": written("chat_template.jinja", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
    "template is broken": written("chat_template.jinja", "{% for"),
    "template divides by zero": written("chat_template.jinja", "{{ 1 // 0 }}"),
    "template raises": written("chat_template.jinja", "{{ raise_exception('no') }}"),
    "template asks for Python": written("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["causal_lm", "tiny"])
def test_a_hostile_folder_ends_in_one_sentence(whole: dict[str, Path], name: str, case: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(whole[name], folder)
    CASES[case](folder)
    with pytest.raises(CheckpointError) as caught:
        models.load(name, folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value) and len(str(caught.value)) < 1500


@pytest.mark.parametrize("text", ["[1]", DEEP, "{}", '{"base_model_name_or_path": "../base", "peft_type": "THEIRS"}'])
def test_hostile_adapters_end_in_one_sentence(whole: dict[str, Path], text: str, tmp_path: Path) -> None:
    backbone = models.load("causal_lm", whole["causal_lm"])
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"its adapters cannot be opened") as caught:
        adapters.put_on(backbone, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1]", DEEP])
def test_a_checkpoint_with_a_broken_adapter_is_refused(whole: dict[str, Path], text: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(whole["causal_lm"], folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / ADAPTER).mkdir()
    (folder / ADAPTER / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match="adapter_config.json cannot be read"):
        adapters.find_base(folder)


@pytest.mark.parametrize("path", ["a" * 5000, "a/" * 2500])
def test_a_path_that_no_folder_can_have_is_a_sentence(path: str) -> None:
    with pytest.raises(CheckpointError, match="no path of a folder") as caught:
        models.load("causal_lm", path)
    assert len(str(caught.value)) < 700


def test_a_chat_template_that_is_not_there_is_a_sentence(whole: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"backbone.chat_template = '/nope': cannot be read"):
        load_causal_lm(CausalLM(path=str(whole["causal_lm"]), chat_template="/nope"))


def test_a_chat_template_of_the_settings_is_tried_first(whole: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "loops.jinja").write_text(LOOPS)
    with pytest.raises(CheckpointError, match="cannot be rendered .it takes more than"):
        load_causal_lm(CausalLM(path=str(whole["causal_lm"]), chat_template=str(tmp_path / "loops.jinja")))


def test_a_template_without_the_token_that_begins_a_text_is_said(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(whole["causal_lm"], folder)
    backbone = models.load("causal_lm", folder)
    assert not backbone.findings()
    tokenizer = backbone.processor
    tokenizer.bos_token = tokenizer.eos_token
    begin = TemplateProcessing(single="B $A", special_tokens=[("B", tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begin
    [finding] = backbone.findings()
    assert "the chat template does not, so no prompt begins with it" in finding
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    assert not backbone.findings()


def test_a_picture_of_too_many_pixels_for_an_api_is_refused_by_name(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    file = tmp_path / "bomb.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(DataError, match="pixels are allowed"):
        data_url(str(file), 4096)
