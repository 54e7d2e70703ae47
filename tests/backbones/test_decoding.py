"""Prompts are read once: what is shared, dropped or written in parts changes no token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small import picture

from mathse import models
from mathse.commands.tiny import BUILDERS
from mathse.commands.tiny import main as make
from mathse.errors import ConfigError
from mathse.models.base import Backbone, Completion
from mathse.models.row import Row

ATOL = 2e-5  # log-probabilities in float32, summed in another order
SAMPLING: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3}


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp(request.param) / "checkpoint"
    assert make([request.param, str(folder)]) == 0
    return models.load(request.param, folder, dtype=torch.float32)


def rows() -> list[Row]:
    return [
        Row(question="What is the sum of the digits?", images=(picture(84, 28),)),
        Row(question="What is 7 + 5?", images=()),
        Row(question="Which of the two is larger, and why is that so?", images=(picture(28, 84, 2),)),
    ]


@contextmanager
def decoder_passes(
    backbone: Backbone, before: Callable[[int], None] = lambda rows: None
) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens) of each pass through the decoder; ``before`` is called with the rows of each."""
    shapes: list[tuple[int, int]] = []

    def note(_: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        shapes.append(tuple(keywords["input_ids"].shape))
        before(shapes[-1][0])

    hook = backbone.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        hook.remove()


def tokens(completions: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.ids for completion in of_row] for of_row in completions]


def test_a_prompt_is_read_once_for_its_samples_and_each_is_what_copies_of_the_prompt_give(backbone: Backbone) -> None:
    with decoder_passes(backbone) as shapes:
        shared = backbone.complete(rows(), n=4, **SAMPLING)
    assert [count for count, length in shapes if length > 1] == [3]
    # rows that hold other objects of the same pictures have nothing in common here, so each is read
    copies = [row for k in range(3) for row in (rows()[k] for _ in range(4))]
    apart = backbone.complete(copies, **SAMPLING)
    assert tokens(shared) == [[apart[4 * k + i][0].ids for i in range(4)] for k in range(3)]


def test_prompts_with_a_picture_and_a_question_in_common_read_them_once(backbone: Backbone) -> None:
    image, question = picture(84, 56), "What is the sum of the two digits in the upper row of this picture?"
    endings = ["It is 3.", "", "Step 1: 3 + 4 = 8.", "Why?"]
    together = [Row(question=f"{question} {ending}", images=(image,)) for ending in endings]
    together.insert(2, Row(question=question, images=(picture(56, 56, 7),)))
    together.append(Row(question="What is 7 + 5?", images=()))
    tower: list[int] = []
    names = ("model.visual", "model.vision_tower", "model.vision")
    module = next(m for name, m in backbone.model.named_modules() if name in names)
    hook = module.register_forward_hook(lambda *_: tower.append(1))
    with decoder_passes(backbone) as shapes:
        done = backbone.complete(together, max_new_tokens=8, watch=[5, 6])
    hook.remove()
    assert len(tower) == 1
    assert [count for count, length in shapes if length > 1] == [3, 6]
    for row, [completion] in zip(together, done, strict=True):
        [[alone]] = backbone.complete([row], max_new_tokens=8, watch=[5, 6])
        assert completion.ids == alone.ids
        assert torch.allclose(completion.watched, alone.watched, atol=ATOL)  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_draws_the_same(
    backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    expected = tokens(backbone.complete(rows(), n=4, **SAMPLING))

    def at_most_three(count: int) -> None:
        if count > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with caplog.at_level(logging.WARNING), decoder_passes(backbone, at_most_three):
        assert tokens(backbone.complete(rows(), n=4, **SAMPLING)) == expected
        assert backbone.sequences_at_once == 3
        assert [r.getMessage().split(":")[0] for r in caplog.records] == [
            "out of memory at 12 sequences",
            "out of memory at 6 sequences",
        ]
        assert tokens(backbone.complete(rows(), n=4, **SAMPLING)) == expected
        assert len(caplog.records) == 2, "later batches begin with what fits"
    backbone.sequences_at_once = None


def test_a_single_sequence_that_does_not_fit_is_an_error(backbone: Backbone) -> None:
    def never(count: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with decoder_passes(backbone, never), pytest.raises(ConfigError, match="a single sequence"):
        backbone.complete(rows(), max_new_tokens=2)
    assert not backbone.model.training
    backbone.sequences_at_once = None


def test_sequences_that_have_ended_leave_the_batch_and_change_no_other(backbone: Backbone) -> None:
    many = [row for _ in range(4) for row in rows()]
    options: dict[str, Any] = {"max_new_tokens": 40, "temperature": 50.0, "seed": 1}
    with decoder_passes(backbone) as shapes:
        together = tokens(backbone.complete(many, n=4, **options))
    lengths = [len(ids) for of_row in together for ids in of_row]
    held = [count for count, length in shapes if length == 1]
    assert held == sorted(held, reverse=True)
    if min(lengths) < 40 and sorted(lengths)[len(lengths) // 2] < max(lengths):
        assert held[-1] < held[0]


def test_some_answers_go_on_behind_their_beginning_as_if_they_had_been_begun_there(backbone: Backbone) -> None:
    begun, watch = [30, 31], [60, 61]

    def go_on(odds: torch.Tensor) -> list[int] | None:
        return [32, 33, 34] if float(odds[0]) > float(median) else None

    first = backbone.complete(rows(), begun=begun, watch=watch, max_new_tokens=1)
    median = sorted(float(c.watched[0, 0]) for [c] in first if c.watched is not None)[1]
    done = backbone.complete(rows(), begun=begun, watch=watch, max_new_tokens=6, go_on=go_on)
    further = [k for k, [c] in enumerate(first) if c.watched is not None and float(c.watched[0, 0]) > median]
    assert len(further) == 1
    for k, row in enumerate(rows()):
        assert torch.allclose(done[k][0].watched, first[k][0].watched, atol=ATOL)  # type: ignore[arg-type]
        if k in further:
            [[alone]] = backbone.complete([row], begun=[*begun, 32, 33, 34], max_new_tokens=6)
            assert (done[k][0].ids, done[k][0].text) == (alone.ids, alone.text)
        else:
            assert done[k][0].ids == first[k][0].ids
