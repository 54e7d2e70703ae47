"""The choice of generator=vllm for a user who chose no generator."""

from __future__ import annotations

from pathlib import Path

import pytest

from mathse.commands import train
from mathse.commands.train import choose_engine
from mathse.config.backbones import CogVLM2BackboneConfig, Qwen2VLBackboneConfig
from mathse.config.generators import HFGeneratorConfig, VLLMGeneratorConfig
from mathse.config.schema import TrainConfig, TrainerConfig
from mathse.runs.store import write_json


@pytest.fixture(autouse=True)
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_has_cuda", lambda: True)
    monkeypatch.setattr(train, "_has_vllm", lambda: True)


def config(**settings: object) -> TrainConfig:
    gpu = {"backbone": Qwen2VLBackboneConfig(), "trainer": TrainerConfig(accelerator="auto")}
    return TrainConfig(**{**gpu, **settings})  # type: ignore[arg-type]


def test_a_real_backbone_on_a_machine_with_cuda_and_vllm_gets_it_and_it_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    sampling = HFGeneratorConfig(max_new_tokens=77, top_p=0.9)
    chosen = choose_engine(config(generator=sampling), tmp_path, ["seed=1"], said.append)
    assert isinstance(chosen.generator, VLLMGeneratorConfig) and chosen.judge.engine == "vllm"
    assert (chosen.generator.max_new_tokens, chosen.generator.top_p) == (77, 0.9)
    assert said[0].startswith("generator=vllm judge.engine=vllm: chosen, since this machine has CUDA and vLLM")


@pytest.mark.parametrize(
    ("settings", "overrides"),
    [({}, ["generator=hf"]), ({"backbone": CogVLM2BackboneConfig()}, []),
     ({"trainer": TrainerConfig(accelerator="cpu")}, []), ({"resume": "branch"}, []),
     ({"generator": HFGeneratorConfig(top_k=50)}, [])],
)  # fmt: skip
def test_others_keep_their_generator(settings: dict[str, object], overrides: list[str], tmp_path: Path) -> None:
    asked = config(**settings)
    assert choose_engine(asked, tmp_path, overrides) is asked


def test_a_run_goes_on_with_the_generator_that_it_was_begun_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_json(tmp_path / "run.json", {"config": {"generator": {"_target_": "mathse.inference.generate.HFGenerator"}}})
    assert choose_engine(config(), tmp_path, []) == config()
    target = VLLMGeneratorConfig()._target_
    write_json(tmp_path / "run.json", {"config": {"generator": {"_target_": target}}})
    monkeypatch.setattr(train, "_has_vllm", lambda: False)
    assert isinstance(choose_engine(config(), tmp_path, []).generator, VLLMGeneratorConfig)


def test_an_orm_that_vllm_does_not_have_judges_in_this_process(tmp_path: Path) -> None:
    asked = config()
    asked.orm.backbone = CogVLM2BackboneConfig()
    chosen = choose_engine(asked, tmp_path, [], lambda text: None)
    assert isinstance(chosen.generator, VLLMGeneratorConfig) and chosen.judge.engine == "hf"
