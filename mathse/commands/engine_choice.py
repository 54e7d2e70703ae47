"""generator=vllm and judge.engine=vllm where nobody chose a generator: for real backbones, on a machine that has both
CUDA and vLLM. A run that was begun goes on with the generator that it was begun with, whatever the machine has.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mathse.config.backbones import InternVL25BackboneConfig, Qwen2VLBackboneConfig
from mathse.config.generators import HFGeneratorConfig, VLLMGeneratorConfig
from mathse.config.schema import TrainConfig
from mathse.runs.layout import RUN
from mathse.runs.store import read_json

SERVED = (Qwen2VLBackboneConfig, InternVL25BackboneConfig)  # families that vLLM has


def with_engine(
    config: TrainConfig, folder: Path, overrides: Sequence[str], say: Callable[[str], None] = print
) -> TrainConfig:
    """The settings, with vLLM as the generator where it is the better choice; it says so.

    Args:
        folder: the run folder, with the generator of a run that was begun.
        overrides: of the command line.
    """
    generator = config.generator
    if not isinstance(generator, HFGeneratorConfig) or not isinstance(config.backbone, SERVED) or generator.top_k:
        return config
    if any(override.lstrip("+").startswith("generator=") for override in overrides):
        return config
    recorded = _recorded_generator(folder)
    if recorded is None:
        if config.resume is not None or config.trainer.accelerator == "cpu" or not (_has_cuda() and _has_vllm()):
            return config
    elif not recorded.endswith("VLLMGenerator"):
        return config
    engine = VLLMGeneratorConfig(
        temperature=generator.temperature, top_p=generator.top_p, max_new_tokens=generator.max_new_tokens
    )
    orm, judge = config.orm.backbone or config.backbone, config.judge
    judges_there = isinstance(orm, SERVED) and judge.server is None
    say(
        f"generator=vllm{' judge.engine=vllm' if judges_there else ''}: chosen, since this machine has CUDA and vLLM; "
        "generator=hf samples and judges in this process (docs/serving.md)"
    )
    return replace(config, generator=engine, judge=replace(judge, engine="vllm") if judges_there else judge)


def _recorded_generator(folder: Path) -> str | None:
    """The class of the generator of the run that the folder holds; None where it holds none."""
    if not (folder / RUN).is_file():
        return None
    return str(read_json(folder / RUN)["config"].get("generator", {}).get("_target_", ""))


def _has_cuda() -> bool:
    """By the driver's device: torch, which would know it better, is loaded later."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _has_vllm() -> bool:
    return shutil.which(VLLMGeneratorConfig().program) is not None
