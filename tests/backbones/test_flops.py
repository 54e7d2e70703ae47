"""Operations of reading and writing, against those that torch counts, for each family."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from small import solved_rows, tiny_backbone
from torch.utils.flop_counter import FlopCounterMode

from mathse.commands.tiny import BUILDERS
from mathse.inference.work import AnswerCosts
from mathse.models import modes
from mathse.models.base import Backbone
from mathse.models.flops import count_amounts, count_forward_flops, count_training_flops, find_lowest_trained_layer
from mathse.models.row import Row


def opened(family: str) -> Backbone:
    module, _, builder = BUILDERS[family].rpartition(".")
    backbone: Backbone = getattr(import_module(module), builder)(0)
    backbone.model.set_attn_implementation("eager")
    return backbone


@pytest.fixture(scope="module")
def question() -> Row:
    row = dict(solved_rows(tiny_backbone(), 1)[0])
    del row["response"]
    return Row(**row)  # type: ignore[typeddict-item]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("family", BUILDERS)
def test_operations_of_answers_are_those_that_torch_counts(family: str, n: int, question: Row) -> None:
    """torch counts what eager attention does: in the prompt it looks at later tokens too, which then count for
    nothing. Three samples read the prompt once."""
    backbone = opened(family)
    with FlopCounterMode(display=False) as counter:
        (samples,) = backbone.complete([question], n=n, max_new_tokens=8, temperature=1.0, seed=2)
    assert [len(sample.ids) for sample in samples] == [8] * n  # one that ends early is computed on beside the others
    work = AnswerCosts.of(backbone)
    [payment] = work.count_local(question, samples)
    prompt = samples[0].prompt
    assert work.operations is not None
    ahead = work.operations.square * prompt.squares
    assert payment.spent.flops == pytest.approx(counter.get_total_flops() - ahead, rel=0.03)
    assert payment.spent.prefilled_tokens == len(backbone.encode([question])[0].prompt)
    assert payment.spent.sampled_tokens == sum(len(sample.ids) for sample in samples)
    assert prompt.patches > 0


def test_text_that_a_response_is_begun_or_goes_on_with_is_read_and_not_sampled() -> None:
    backbone, row = tiny_backbone(), Row(question="q", images=())
    begun, more = backbone.tokenizer("Well,", add_special_tokens=False)["input_ids"], [5, 6, 7]
    options = {"begun": begun, "max_new_tokens": 4, "watch": (1, 2)}
    [[status]] = backbone.complete([row], **options, go_on=lambda odds: None)
    [[explained]] = backbone.complete([row], **options, go_on=lambda odds: more)
    plain = len(backbone.encode([row])[0].prompt)
    assert status.prompt.tokens == explained.prompt.tokens == plain + len(begun)
    assert (status.given, status.sampled) == (0, 1)
    assert explained.given == 3 and explained.sampled == len(explained.ids) - len(begun) - 3


def test_a_frozen_lower_layer_costs_its_forward_pass_alone(question: Row) -> None:
    backbone = opened("qwen2vl")
    row = Row(question="What is 7 + 5?", images=(), response="7 + 5 = 12.")
    modes.prepare(backbone, modes.FitConfig(freeze=["tower", "connector"]), "32-true", 0)
    layers = backbone.model.config.get_text_config().num_hidden_layers
    assert find_lowest_trained_layer(backbone) == 0
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(f"language_model.layers.{layers - 1}." in name or "lm_head" in name)
    assert find_lowest_trained_layer(backbone) == layers - 1 >= 1
    batch = backbone.pad(backbone.encode([row]))
    flops, amounts = count_training_flops(backbone), count_amounts(batch, backbone.patch_size)
    with FlopCounterMode(display=False) as counter:
        logits, targets = backbone.answer_logits(batch)
        torch.nn.functional.cross_entropy(logits, targets).backward()
    ahead = flops.square * amounts.squares
    assert flops.of(amounts) == pytest.approx(counter.get_total_flops() - ahead, rel=0.07)
    assert count_forward_flops(backbone).of(amounts) < flops.of(amounts) < 3 * count_forward_flops(backbone).of(amounts)
