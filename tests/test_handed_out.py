"""Of a fit's ranks the first alone reads the model: the others are handed the same, and memory holds it once."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from connected import in_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from mathse.commands.tiny import BUILDERS
from mathse.commands.tiny import main as make
from mathse.config import backbones as sections
from mathse.config.backbones import TinyBackboneConfig
from mathse.config.fits import AdapterConfig, FitConfig, OptimizerConfig
from mathse.models import adapters, modes
from mathse.models.base import Backbone
from mathse.models.model_spec import ModelSpec
from mathse.models.placement import META
from mathse.training import ranks, strategies
from mathse.training.sft import SFTModule

SECTIONS: dict[str, Any] = {
    "qwen2vl": sections.Qwen2VLBackboneConfig,
    "qwen2_5_vl": sections.Qwen25VLBackboneConfig,
    "qwen3_vl": sections.Qwen3VLBackboneConfig,
    "internvl2_5": sections.InternVL25BackboneConfig,
    "internvl3": sections.InternVL3BackboneConfig,
    "cogvlm2": sections.CogVLM2BackboneConfig,
    "tiny": TinyBackboneConfig,
}
CPU = torch.device("cpu")
FULL, LORA = FitConfig(), FitConfig(method="lora", lora=AdapterConfig(rank=4))


def opened(spec: ModelSpec, settings: FitConfig, device: torch.device | None = None) -> Backbone:
    backbone = spec.open(device)
    modes.prepare(backbone, settings, "bf16-mixed", seed=7)
    return backbone


def sharded(backbone: Backbone) -> SFTModule:
    """As Lightning sets a fit of two ranks up."""
    module = SFTModule(backbone, steps=1, optimizer=OptimizerConfig(lr=1.0))
    module._device_mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    module._trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=CPU), precision="bf16-mixed")  # type: ignore[assignment]
    strategies.shard(module, backbone.model)
    return module


def tensors_of(model: Any) -> dict[str, Tensor]:
    """All tensors by all their names, tied ones and buffers included."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in named}


def differences(spec: ModelSpec, settings: FitConfig) -> list[str]:
    """Of a sharded model on this rank, beside the model as it is read."""
    read = opened(spec, settings)
    backbone = opened(spec, settings, META if ranks.current().rank else None)
    if ranks.current().rank:
        assert all(t.is_meta for t in (*backbone.model.parameters(), *backbone.model.buffers()))
        assert backbone.model.config._attn_implementation == read.model.config._attn_implementation
    module = sharded(backbone)
    trains = {name: p.requires_grad for name, p in read.model.named_parameters()}
    assert trains == {name: p.requires_grad for name, p in backbone.model.named_parameters()}  # ties: one name each
    assert module.model is backbone.model
    expected, handed = tensors_of(read.model), tensors_of(backbone.model)
    assert expected.keys() == handed.keys()
    return [
        name
        for name, tensor in expected.items()
        if handed[name].dtype != tensor.dtype or not torch.equal(handed[name], tensor)
    ]


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    """A folder of each family, with a head that is tied to the embeddings where the family may have that, and one that
    keeps adapters beside a base in bfloat16."""
    folder = tmp_path_factory.mktemp("models")
    made: dict[str, ModelSpec] = {}
    for family in BUILDERS:
        assert make([family, str(folder / family)]) == 0
        made[family] = ModelSpec(SECTIONS[family](path=str(folder / family), dtype="bfloat16"))
    tied = made["qwen2vl"].open()
    for config in (tied.model.config, tied.model.config.get_text_config()):
        config.tie_word_embeddings = True
    tied.model.tie_weights()
    tied.save(folder / "tied")
    assert sum(1 for _ in tied.model.parameters()) < len(tied.model.state_dict())
    made["tied"] = ModelSpec(sections.Qwen2VLBackboneConfig(path=str(folder / "tied"), dtype="float32"))
    base = made["tiny"].open()
    base.save(folder / "base")
    kept = ModelSpec(TinyBackboneConfig(path=str(folder / "base"), dtype="bfloat16")).open()
    before = modes.prepare(kept, LORA, "bf16-mixed", seed=3)
    with torch.no_grad():
        for name, p in kept.model.named_parameters():
            if ".lora_B." in name:
                p.fill_(0.01)
    modes.finish(kept, LORA, before, folder / "kept", folder / "kept")
    kept.save(folder / "kept")
    assert adapters.find_base(folder / "kept") is not None
    made["kept adapters"] = ModelSpec(TinyBackboneConfig(path=str(folder / "kept"), dtype="bfloat16"))
    made["random"] = ModelSpec(TinyBackboneConfig(hidden_size=32, layers=2, heads=2, mlp_size=64), {"init_seed": 0})
    return made


@pytest.mark.parametrize(
    "settings", [pytest.param(FULL, id="full", marks=pytest.mark.slow), pytest.param(LORA, id="lora")]
)
def test_every_rank_is_handed_the_weights_and_buffers_that_the_first_has_read(
    specs: dict[str, ModelSpec], settings: FitConfig
) -> None:
    def compare() -> list[list[list[str]]]:
        each = [partial(differences, spec, settings) for spec in specs.values()]
        return [ranks.current().run_on_all(work, differences, *work.args) for work in each]

    found = in_ranks(2, compare)
    assert dict(zip(specs, found, strict=True)) == {name: [[], []] for name in specs}


def test_a_model_that_is_read_onto_a_device_is_the_one_that_is_moved_there(specs: dict[str, ModelSpec]) -> None:
    for name, spec in specs.items():
        there, moved = tensors_of(spec.open(CPU).model), tensors_of(spec.open().to(CPU).model)
        assert there.keys() == moved.keys() and all(torch.equal(there[k], moved[k]) for k in there), name


# --- memory -----------------------------------------------------------------------------------------------------------


def own_memory(pid: int) -> int:
    """Bytes that a process alone holds; the pages of a file that is mapped are the page cache's."""
    with open(f"/proc/{pid}/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon:"))


def held_at_most(setup: Callable[[], object], pids: list[int]) -> int:
    """The most that the ranks hold together while ``setup`` runs, above what they hold before."""
    over, most = threading.Event(), 0
    before = sum(map(own_memory, pids))

    def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, sum(map(own_memory, pids)))
            time.sleep(0.003)

    watching = threading.Thread(target=watch)
    watching.start()
    setup()
    over.set()
    watching.join()
    return most - before


def set_up(spec: ModelSpec, settings: FitConfig, on_others: torch.device | None) -> None:
    sharded(opened(spec, settings, on_others if ranks.current().rank else None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "dtype", "read_by_each"), [(FULL, "float32", 1.7), (LORA, "bfloat16", 1.0)], ids=["full", "lora"]
)
def test_two_ranks_set_up_a_fit_in_the_memory_of_one_model(
    tmp_path: Path, settings: FitConfig, dtype: str, read_by_each: float
) -> None:
    # as published models are: in bfloat16. What is read in that dtype stays in the file's mapped pages.
    sizes: dict[str, Any] = {"hidden_size": 768, "layers": 11, "heads": 8, "mlp_size": 2048, "vision_size": 64}
    drawn = ModelSpec(TinyBackboneConfig(**sizes, dtype="bfloat16"), {"init_seed": 0}).open()
    drawn.save(tmp_path / "model")
    copy = sum(p.numel() for p in drawn.model.parameters()) * getattr(torch, dtype).itemsize
    assert copy > 150e6
    del drawn
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what this process has freed and kept would hide what its ranks take
    spec = ModelSpec(TinyBackboneConfig(path=str(tmp_path / "model"), dtype=dtype))

    def measured(on_others: torch.device | None) -> float:
        arguments = spec, settings, on_others

        def lead() -> int:
            pids = ranks.current().run_on_all(os.getpid, os.getpid)
            work = partial(ranks.current().run_on_all, partial(set_up, *arguments), set_up, *arguments)
            return held_at_most(work, pids)

        return int(in_ranks(2, lead)) / copy

    once, each = measured(META), measured(None)
    print(f"{settings.method}: {once:.2f} copies of the model at most; where each rank reads it, {each:.2f}")
    assert once < 1.2
    assert each > read_by_each
