"""A backbone that only reads: its prompts are those of the whole one, and no weight is needed for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small import picture

from mathse.__main__ import main
from mathse.config import build
from mathse.config.backbones import (
    CogVLM2BackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen2VLBackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
    TinyBackboneConfig,
)
from mathse.errors import CheckpointError
from mathse.models.prompt_reader import open_exported_reader, open_reader
from mathse.models.row import Row

QWEN = partial(Qwen2VLBackboneConfig, min_pixels=1568, max_pixels=12544)
INTERNVL = partial(InternVL25BackboneConfig, jpeg_seed=0, eval_tiles=2)
TEXT = [Row(question="角 A", images=[], history=(("What is x?", "x is 3."),))]
SHOWN = [
    *TEXT,
    Row(question="What is x?", images=[picture(300, 100)]),
    Row(question="And y?", images=[picture(20, 20), picture(90, 250)]),
]


def never() -> Any:
    raise AssertionError("opened whole")


@pytest.mark.parametrize(
    ("family", "settings", "rows"),
    [
        ("qwen2vl", QWEN, SHOWN),
        ("internvl2_5", INTERNVL, SHOWN),
        ("internvl2_5", partial(INTERNVL, system="You check geometry."), SHOWN),
        ("qwen2_5_vl", partial(Qwen25VLBackboneConfig, min_pixels=1568, max_pixels=12544), SHOWN),
        ("qwen3_vl", partial(Qwen3VLBackboneConfig, min_pixels=2048, max_pixels=16384), SHOWN),
        ("internvl3", partial(InternVL3BackboneConfig, jpeg_seed=0, eval_tiles=2), SHOWN),
        ("cogvlm2", CogVLM2BackboneConfig, SHOWN[:2]),  # one image a row
        ("tiny", TinyBackboneConfig, SHOWN),
    ],
)
def test_prompts_read_without_weights_are_those_of_the_whole_backbone(
    tmp_path: Path, family: str, settings: Callable[..., Any], rows: list[Row]
) -> None:
    assert main(["tiny", family, str(tmp_path / "model")]) == 0
    section = settings(path=str(tmp_path / "model"))
    whole = build(section)
    expected = whole.encode(rows)
    (tmp_path / "model" / "model.safetensors").unlink()
    reader = open_reader(section, never)
    assert (reader.context, reader.max_image_tokens) == (whole.context, whole.max_image_tokens)
    for found, own in zip(reader.encode(rows), expected, strict=True):
        assert found.ids == own.ids
        assert found.features.keys() == own.features.keys()
        assert all(torch.equal(found.features[name], own.features[name]) for name in own.features)


def test_an_exported_checkpoint_is_read_by_its_own_bounds_and_system_text(tmp_path: Path) -> None:
    """They are what the server that has it uses, whatever the settings are by now."""
    assert main(["tiny", "qwen2vl", str(tmp_path / "qwen")]) == 0
    build(QWEN(path=str(tmp_path / "qwen"))).save(tmp_path / "exported")
    reader = open_exported_reader(Qwen2VLBackboneConfig(path="gone", max_pixels=200_000), tmp_path / "exported", never)
    assert dict(reader.processor.image_processor.size) == {"shortest_edge": 1568, "longest_edge": 12544}
    assert main(["tiny", "internvl2_5", str(tmp_path / "internvl")]) == 0
    build(INTERNVL(path=str(tmp_path / "internvl"), system="Exported.")).save(tmp_path / "internvl_exported")
    reader = open_exported_reader(INTERNVL(path="gone", system="Now."), tmp_path / "internvl_exported", never)
    assert "Exported." in reader.processor.chat_template and "Now." not in reader.processor.chat_template


def test_a_family_that_is_not_ours_is_opened_whole(tmp_path: Path) -> None:
    section = {"_target_": "users.own.load", "path": str(tmp_path)}
    with pytest.raises(AssertionError, match="opened whole"):
        open_reader(section, never)
    with pytest.raises(AssertionError, match="opened whole"):
        open_exported_reader(section, tmp_path, never)


def test_another_family_s_folder_and_a_damaged_one_are_refused_in_one_sentence(tmp_path: Path) -> None:
    assert main(["tiny", "qwen2vl", str(tmp_path / "model")]) == 0
    with pytest.raises(CheckpointError, match="is not a checkpoint of backbone=internvl2_5"):
        open_reader(INTERNVL(path=str(tmp_path / "model")), never)
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": ', '"hidden_size": "x", "was": '))
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_reader(QWEN(path=str(tmp_path / "model")), never)
