"""What is found out of a vision-language model that no file describes, and what can be said instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from small import picture

from mathse import models
from mathse.commands.tiny import HF_CLASSES
from mathse.commands.tiny import main as make
from mathse.config import build
from mathse.config.backbones import HF
from mathse.errors import CheckpointError
from mathse.models.base import join
from mathse.models.hf import HFBackbone
from mathse.models.parts import find_part
from mathse.models.row import Row
from mathse.models.tiny_hf import CLASSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hf") / "idefics3"
    assert make(["idefics3", str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def backbone(folder: Path) -> HFBackbone:
    opened = models.load("hf", folder)
    assert isinstance(opened, HFBackbone)
    return opened


def test_every_class_that_is_tried_can_be_made_by_hand() -> None:
    assert set(CLASSES) == set(HF_CLASSES)


def test_parts_and_adapters_are_found_and_shown(backbone: HFBackbone) -> None:
    parts = {find_part(backbone, name) for name, _ in backbone.model.named_parameters()}
    assert parts == {"tower", "connector", "language"}
    assert find_part(backbone, "model.connector.modality_projection.proj.weight") == "connector"
    assert find_part(backbone, "model.vision_model.embeddings.patch_embedding.weight") == "tower"
    assert find_part(backbone, "lm_head.weight") == "language"
    shown = "\n".join(backbone.findings())
    assert "a response ends with '<|im_end|>'" in shown and "never sampled: ['<fake_token_around_image>'" in shown
    assert not backbone.pictures_first and "before all text" not in shown
    assert "adapters of scope tower go on model" in shown and "an image of 448 x 448 pixels takes" in shown


def test_what_is_found_can_be_said_by_hand(folder: Path) -> None:
    said = build(
        HF(
            path=str(folder),
            tower=r"model\.vision_model\.encoder\.",
            connector=r"model\.(connector|vision_model\.post_layernorm)",
            lora_language=r".*\.q_proj",
            max_images=2,
            max_image_tokens=7,
            never_sampled=["<|user|>"],
            system="Look twice.",
        )
    )
    assert find_part(said, "model.vision_model.post_layernorm.weight") == "connector"
    assert find_part(said, "model.vision_model.embeddings.patch_embedding.weight") == "language"
    assert said.lora_scopes["language"] == r".*\.q_proj" and "vision_model" in said.lora_scopes["tower"]
    assert (said.max_images, said.max_image_tokens) == (2, 7)
    assert said.tokenizer.convert_tokens_to_ids("<|user|>") in said.never_sampled
    assert said.render(Row(question="x", images=())).startswith("<|system|>Look twice.<|user|>x")


def test_a_template_that_forgets_the_picture_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "blind.jinja"
    template.write_text("{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}")
    blind = build(HF(path=str(folder), chat_template=str(template)))
    with pytest.raises(CheckpointError, match="0 times for 1 images; pass backbone.chat_template=FILE"):
        blind.encode([Row(question="x", images=(picture(28, 28),))])


def test_a_template_that_writes_pictures_first_is_told_and_takes_a_marked_question(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = tmp_path / "first.jinja"  # as LLaVA's is written
    template.write_text(
        "{% for m in messages %}{% for p in m['content'] if p['type'] == 'image' %}<image>{% endfor %}"
        "{% for p in m['content'] if p['type'] == 'text' %}{{ p['text'] }}{% endfor %}{% endfor %}"
    )
    first = build(HF(path=str(folder), chat_template=str(template)))
    row = Row(question="Is <image> red?", images=(picture(28, 28),), marked=True)
    assert first.render(row) == first.render(row) == "<image>Is  red?"
    assert caplog.text.count("backbone=hf reads all pictures before the text") == 1
    assert "writes pictures before all text" in "".join(first.findings())


def test_a_model_of_text_alone_is_sent_to_its_backbone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(CheckpointError, match="'gpt2'.* for a text model pass backbone=causal_lm"):
        models.load("hf", tmp_path / "c")


def test_pictures_of_unequal_numbers_of_tiles_make_one_batch() -> None:
    small, large = ({"pixel_values": torch.ones(1, tiles, 3, 2, 2)} for tiles in (1, 3))
    joined = join([small, large])["pixel_values"]
    assert joined.shape == (2, 3, 3, 2, 2)
    assert joined[0, 1:].eq(0).all() and joined[1].eq(1).all()
