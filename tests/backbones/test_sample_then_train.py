"""One backbone object samples and trains, as a loop's student does: sampling leaves nothing that a fit would notice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import picture

from mathse import models
from mathse.commands.tiny import BUILDERS, HF_CLASSES, OTHERS
from mathse.commands.tiny import main as make
from mathse.models.base import Backbone
from mathse.models.row import Row


@pytest.fixture(params=[*BUILDERS, *OTHERS, *HF_CLASSES])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="transformers' processor of SmolVLM wants it")
    assert make([request.param, str(tmp_path / request.param)]) == 0
    return tmp_path / request.param


def opened(folder: Path) -> Backbone:
    family = "hf" if folder.name in HF_CLASSES else folder.name
    return models.load(family, folder, dtype=torch.float32)


def trained(backbone: Backbone, row: Row) -> list[torch.Tensor]:
    """The weights after one step on a batch of this row."""
    backbone.model.train()
    optimizer = torch.optim.SGD(backbone.model.parameters(), lr=0.1)
    torch.manual_seed(0)
    logits, targets = backbone.answer_logits(backbone.collate([row]))
    torch.nn.functional.cross_entropy(logits, targets).backward()
    optimizer.step()
    return [parameter.detach() for parameter in backbone.model.parameters()]


def test_a_picture_that_was_sampled_on_trains_as_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    picture(56, 56).save(tmp_path / "picture.png")
    images = [] if folder.name in OTHERS else [str(tmp_path / "picture.png")]
    row = Row(question="What is it?", images=images, response="12")
    samples = opened(folder)
    for rows in ([Row(question="What is it?", images=images)], [row]):  # as a row to answer, and as one to train on
        samples.complete(rows, n=2, max_new_tokens=3, temperature=1.0)
    fresh = opened(folder)
    for one, other in zip(trained(samples, row), trained(fresh, row), strict=True):
        assert torch.equal(one, other)
