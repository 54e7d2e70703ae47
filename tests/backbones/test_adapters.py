"""Adapters: merged they are what they were on top, and their files open with plain peft."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small import problems
from torch import Tensor, nn

from mathse.commands.tiny import BUILDERS
from mathse.errors import CheckpointError, ConfigError
from mathse.inference.rows import solve_row
from mathse.models import adapters, load
from mathse.models.base import Backbone
from mathse.models.parts import find_part

FAMILIES = sorted(BUILDERS)
ATOL = 1e-5


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A family and a folder of it."""
    module, _, name = BUILDERS[request.param].rpartition(".")
    where = tmp_path_factory.mktemp(request.param) / "base"
    getattr(import_module(module), name)(0).save(where)
    return request.param, where


def trained(backbone: Backbone, seed: int = 0, **settings: Any) -> Backbone:
    """With adapters as a fit might leave them: B is not 0 any more."""
    how: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.5, "scopes": list(backbone.lora_scopes), **settings}
    adapters.attach(backbone, **how, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in backbone.model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.1, generator=draw)
    backbone.model.eval()
    return backbone


def rows(backbone: Backbone) -> list[Any]:
    return [solve_row(backbone.prompt_style, problem, problem.solution) for problem in problems(2)]


def logits(backbone: Backbone, model: Any = None) -> Tensor:
    """Of two rows with pictures."""
    batch = backbone.collate(rows(backbone))
    batch.pop("labels")
    with torch.no_grad():
        return (model or backbone.model)(**batch).logits


# --- merging --------------------------------------------------------------------------------------------------------


def test_merged_weights_say_what_the_adapters_on_the_base_said(folder: tuple[str, Path]) -> None:
    backbone = load(*folder, dtype="float32")
    backbone.model.eval()
    names, before = list(backbone.model.state_dict()), logits(backbone)
    model = trained(backbone).model
    on_top = logits(backbone)
    adapters.merge(backbone)
    assert (logits(backbone) - on_top).abs().max() <= ATOL
    assert (on_top - before).abs().max() > 100 * ATOL, "the adapters changed nothing, so nothing was tested"
    assert backbone.model is model and backbone.adapter is None
    assert list(backbone.model.state_dict()) == names


def test_an_adapter_says_nothing_before_it_is_trained(folder: tuple[str, Path]) -> None:
    backbone = load(*folder, dtype="float32")
    before = logits(backbone)
    adapters.attach(backbone, rank=4, alpha=8, dropout=0.0, scopes=["language"], seed=0)
    assert torch.equal(logits(backbone), before)


def test_bfloat16_weights_are_merged_in_float32_and_rounded_once(folder: tuple[str, Path]) -> None:
    family, path = folder
    whole, half = load(family, path, dtype="float32"), load(family, path, dtype="bfloat16")
    for name, parameter in whole.model.named_parameters():
        parameter.data = half.model.get_parameter(name).float()  # the same base, without further rounding
    trained(whole), trained(half)
    for name, parameter in half.model.named_parameters():
        if ".lora_" in name:
            assert parameter.dtype == torch.float32
            parameter.data.copy_(whole.model.get_parameter(name).data)
    adapters.merge(whole), adapters.merge(half)
    for name, parameter in half.model.named_parameters():
        assert torch.equal(parameter, whole.model.get_parameter(name).bfloat16()), name


# --- files ----------------------------------------------------------------------------------------------------------


def test_plain_peft_opens_an_adapter_on_its_base(folder: tuple[str, Path], tmp_path: Path) -> None:
    backbone = trained(load(*folder, dtype="float32"))
    on_top = logits(backbone)
    adapters.save(backbone, tmp_path / "adapter", tmp_path / "adapter")
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    base = Path(os.path.normpath(tmp_path / "adapter" / described["base_model_name_or_path"]))
    assert base == folder[1].resolve()
    plain = type(backbone.model).from_pretrained(base, dtype=torch.float32)
    opened = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    assert (logits(backbone, opened) - on_top).abs().max() <= ATOL
    assert described["r"] == 4 and described["lora_alpha"] == 8 and described["inference_mode"]
    assert described["bias"] == "none" and not described["modules_to_save"] and not described["use_dora"]  # vLLM's wish


def test_an_adapter_s_tensors_have_the_names_that_servers_look_for(folder: tuple[str, Path], tmp_path: Path) -> None:
    backbone = trained(load(*folder, dtype="float32"), scopes=["language"])
    modules = [name for name, m in backbone.model.named_modules() if hasattr(m, "lora_A")]
    adapters.save(backbone, tmp_path, tmp_path)
    expected = {f"base_model.model.{name}.lora_{side}.weight" for name in modules for side in "AB"}
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == expected
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_equal_adapters_are_equal_files_and_another_seed_draws_others(tmp_path: Path) -> None:
    module, _, name = BUILDERS["tiny"].rpartition(".")
    for run, seed in (("one", 0), ("same", 0), ("other", 1)):
        base = getattr(import_module(module), name)(0)
        base.save(tmp_path / run / "base" / "checkpoint")
        backbone = load("tiny", tmp_path / run / "base" / "checkpoint")
        torch.manual_seed(len(run))
        state = torch.random.get_rng_state()
        adapters.attach(backbone, rank=4, alpha=8, dropout=0.0, scopes=["language"], seed=seed)
        assert torch.equal(torch.random.get_rng_state(), state), "a draw of somebody else's was used up"
        adapters.save(backbone, tmp_path / run / "adapter", tmp_path / run / "distill" / "checkpoint" / "adapter")
    files = {
        run: [
            (tmp_path / run / "adapter" / f"adapter_{kind}").read_bytes()
            for kind in ("config.json", "model.safetensors")
        ]
        for run in ("one", "same", "other")
    }
    assert files["one"] == files["same"]
    assert files["one"][0] == files["other"][0] and files["one"][1] != files["other"][1]


# --- a base in 4 bit, as far as a machine without CUDA goes -----------------------------------------------------------


def test_a_base_in_four_bit_is_refused_without_cuda() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA GPU")
    with pytest.raises(ConfigError, match="needs a CUDA GPU"):
        adapters.require_four_bit()


def test_tower_connector_and_head_are_kept_out_of_four_bit(folder: tuple[str, Path]) -> None:
    backbone = load(*folder, dtype="float32")
    kept = set(adapters.list_unquantised(backbone))
    linear = [name for name, module in backbone.model.named_modules() if isinstance(module, nn.Linear)]
    assert "lm_head" in kept
    assert kept - {"lm_head"} == {name for name in linear if find_part(backbone, name) != "language"}
    assert len(kept) < len(linear)


def test_the_adapters_of_a_quantised_base_are_merged_into_the_whole_one(
    folder: tuple[str, Path], tmp_path: Path
) -> None:
    """What stands in for the base in 4 bit is one with damaged weights: none of them may reach the checkpoint."""
    backbone, same = (trained(load(*folder, dtype="float32")) for _ in range(2))
    for name, parameter in backbone.model.named_parameters():
        if ".lora_" not in name:
            parameter.data.add_(1.0)
    adapters.save(backbone, tmp_path, tmp_path)
    adapters.put_on_whole_base(backbone, tmp_path, dtype=torch.float32)
    for each in (backbone, same):
        adapters.merge(each)
    for name, parameter in same.model.named_parameters():
        assert torch.equal(parameter, backbone.model.get_parameter(name)), name


def test_a_model_that_came_from_no_folder_cannot_be_opened_again() -> None:
    module, _, name = BUILDERS["tiny"].rpartition(".")
    backbone = trained(getattr(import_module(module), name)(0))
    with pytest.raises(CheckpointError, match="came from no folder"):
        adapters.put_on_whole_base(backbone, Path("adapter"))
