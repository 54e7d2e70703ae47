"""Training CogVLM2: losses, gradients of both experts, frozen parts, activation checkpointing, LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cogvlm2_reference import Reference, apart
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from mathse.models.cogvlm2 import CogVLM2Backbone, CogVLM2Config, CogVLM2ForConditionalGeneration

LANGUAGE, VISION, TOWER = (CogVLM2Backbone.lora_scopes[scope] for scope in ("language", "vision_expert", "tower"))
BOTH = f"{LANGUAGE}|{VISION}"


@pytest.fixture(scope="module")
def reference(fixtures: Path) -> Reference:
    return Reference(fixtures / "backbones" / "cogvlm2")


def text_batch(reference: Reference) -> dict[str, Tensor]:
    inputs = reference.given("text")
    return {**inputs, "labels": inputs["input_ids"]}


def gradients(model: torch.nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    model.train()
    model.zero_grad(set_to_none=True)
    model(**batch).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# --- loss -----------------------------------------------------------------------------------------------------------


def test_loss_counts_the_labelled_positions_alone(reference: Reference) -> None:
    batch = reference.given("image", labels=True)
    labels = batch["labels"][:, 1:]
    kept = labels != -100
    assert kept.any() and not kept.all()
    with torch.no_grad():
        out = reference.model()(**batch)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1][kept], labels[kept])
    assert apart(out.loss, expected) <= 1e-6


def test_a_loss_can_be_divided_by_the_targets_of_all_accumulated_batches(reference: Reference) -> None:
    model, batch = reference.model(), reference.given("image", labels=True)
    count = int((batch["labels"][:, 1:] != -100).sum())
    with torch.no_grad():
        mean = model(**batch).loss
        for total in (count, 3 * count):
            assert apart(model(**batch, num_items_in_batch=torch.tensor(total)).loss, mean * count / total) <= 1e-6


def test_the_head_runs_on_the_positions_asked_for(reference: Reference) -> None:
    model, inputs = reference.model(), reference.given("image")
    with torch.no_grad():
        whole = model(**inputs).logits
        assert apart(model(**inputs, logits_to_keep=2).logits, whole[:, -2:]) <= 1e-5
        assert apart(model(**inputs, logits_to_keep=torch.tensor([1, 5])).logits, whole[:, [1, 5]]) <= 1e-5


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("types", [True, False])
def test_a_batch_of_text_gives_every_parameter_a_gradient(
    reference: Reference, implementation: str, types: bool
) -> None:
    model, batch = reference.model(attn_implementation=implementation), text_batch(reference)
    if not types:
        del batch["token_type_ids"]
    found = gradients(model, batch)
    assert found.keys() == {name for name, _ in model.named_parameters()}  # DDP waits for each of them
    for name, gradient in found.items():
        unused = ".vision." in name or ".vision_" in name
        assert bool(gradient.any()) is not unused, name


def test_an_image_gives_both_experts_gradients(reference: Reference) -> None:
    found = gradients(reference.model(), reference.given("image", labels=True))
    first = [name for name in found if name.startswith("model.layers.0.")]
    assert first and all(bool(found[name].any()) for name in first)


def test_a_frozen_tower_keeps_no_activations_and_its_connector_learns(reference: Reference) -> None:
    model, batch = reference.model(), reference.given("image", labels=True)
    free = gradients(model, batch)
    tower = (model.model.vision.patch_embedding, model.model.vision.transformer)
    for part in tower:
        part.requires_grad_(False)
    frozen = gradients(model, batch)
    assert not any("transformer" in name or "patch_embedding" in name for name in frozen)
    assert all(apart(frozen[name], free[name]) <= 1e-6 for name in frozen)
    assert {"model.vision.boi", "model.vision.conv.weight", "model.vision.linear_proj.gate_proj.weight"} <= set(frozen)
    assert model.get_image_features(batch["pixel_values"]).last_hidden_state.grad_fn is None
    tower[1].layers[-1].requires_grad_(True)
    assert model.get_image_features(batch["pixel_values"]).last_hidden_state.grad_fn is not None


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_gradient_and_runs_layers_again(
    reference: Reference, reentrant: bool
) -> None:
    batch = reference.given("image", labels=True)
    expected = gradients(reference.model(), batch)
    model = reference.model()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    runs: list[str] = []
    for name, layer in (("decoder", model.model.layers[0]), ("tower", model.model.vision.transformer.layers[0])):
        layer.mlp.register_forward_pre_hook(lambda *_, name=name: runs.append(name))
    found = gradients(model, batch)
    assert found.keys() == expected.keys()
    assert all(apart(found[name], expected[name]) <= 1e-6 for name in expected)
    assert runs.count("decoder") == 2 and runs.count("tower") == 2
    model.eval()
    runs.clear()
    model.generate(**reference.given("image"), max_new_tokens=3, do_sample=False)
    assert runs.count("tower") == 1


# --- LoRA -----------------------------------------------------------------------------------------------------------


def adapted(reference: Reference, targets: str) -> Any:
    torch.manual_seed(0)
    return get_peft_model(reference.model(), LoraConfig(r=4, lora_alpha=8, target_modules=targets))


def trained(reference: Reference, targets: str, steps: int = 8) -> tuple[Any, list[float]]:
    model, batch = adapted(reference, targets), reference.given("image", labels=True)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model.eval(), losses


@pytest.mark.parametrize("targets, parts", [(LANGUAGE, 5), (BOTH, 10)], ids=["language", "both"])
def test_adapters_sit_on_the_experts_alone(reference: Reference, targets: str, parts: int) -> None:
    model = adapted(reference, targets)
    inside = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    assert len(inside) == parts * len(reference.model().model.layers)
    assert not any(".vision." in name for name in inside)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


def test_adapters_of_the_published_size_are_as_many_as_counted() -> None:
    with torch.device("meta"):
        for targets, modules, parameters in ((LANGUAGE, 160, 37_748_736), (BOTH, 320, 75_497_472)):
            model = CogVLM2ForConditionalGeneration(CogVLM2Config())
            model = get_peft_model(model, LoraConfig(r=16, target_modules=targets), low_cpu_mem_usage=True)
            lora = [p for name, p in model.named_parameters() if "lora_" in name]
            assert (len(lora) // 2, sum(p.numel() for p in lora)) == (modules, parameters)


@pytest.mark.parametrize(
    "targets, off",
    [(LANGUAGE, 1e-5), (BOTH, 1e-5), (TOWER, 1e-4)],  # a tower's rounding grows on its way through the decoder
    ids=["language", "both", "tower"],
)
def test_adapters_learn_merge_save_and_open_again(
    reference: Reference, tmp_path: Path, targets: str, off: float
) -> None:
    model, losses = trained(reference, targets)
    assert losses[-1] < 0.9 * losses[0]
    inputs = reference.given("batch")
    with torch.no_grad():
        expected = model(**inputs).logits
        model.save_pretrained(tmp_path / "adapter")
        opened = PeftModel.from_pretrained(reference.model(), tmp_path / "adapter").eval()
        assert torch.equal(opened(**inputs).logits, expected)
        merged = model.merge_and_unload()
        assert apart(merged(**inputs).logits, expected) <= off
        merged.save_pretrained(tmp_path / "merged")
        again = CogVLM2ForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
        assert torch.equal(again(**inputs).logits, merged(**inputs).logits)


def test_an_adapted_model_generates_what_its_merged_one_does(reference: Reference) -> None:
    model, _ = trained(reference, LANGUAGE, steps=2)
    inputs = reference.given("batch")
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **options), model.merge_and_unload().generate(**inputs, **options))


def test_adapters_with_activation_checkpointing_get_the_same_gradients(reference: Reference) -> None:
    batch = reference.given("image", labels=True)
    expected = gradients(adapted(reference, BOTH), batch)
    model = adapted(reference, BOTH)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    found = gradients(model, batch)
    assert expected and found.keys() == expected.keys()
    assert all(apart(found[name], expected[name]) <= 1e-6 for name in expected)


def test_adapters_of_both_experts_get_gradients_from_text_alone(reference: Reference) -> None:
    model = adapted(reference, BOTH)
    found = gradients(model, text_batch(reference))
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
