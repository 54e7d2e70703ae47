"""``mathse train [GROUP=OPTION ...] [KEY=VALUE ...]``, also ``python train.py``: train a student.

Hydra composes conf/train.yaml, ``mathse.config`` checks the settings, and one task runs in its own run folder:

    task=evolve    all of Algorithm 1: ORM, distillation, rounds, reflection, the final student (default)
    task=distill   the teacher solves, the judge filters: distill/train.jsonl, no training
    task=orm       the Outcome Reward Model and its figures
    task=sft       one training on sft.train=FILE

``--help`` shows all settings. ``plan=true`` prints the stages, requests and costs of the run, and does not run it
(``mathse plan`` has options). ``-m`` runs a sweep, whose sweeper optimises the returned number.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from mathse.commands import cli
from mathse.commands.missing import refuse_incomplete
from mathse.commands.subcommands import import_subcommand
from mathse.config.backbones import InternVL25BackboneConfig, Qwen2VLBackboneConfig
from mathse.config.generators import HFGeneratorConfig, VLLMGeneratorConfig
from mathse.config.schema import TrainConfig
from mathse.runs.layout import RUN
from mathse.runs.reader import read_finished_summary
from mathse.runs.store import read_json

SERVED = (Qwen2VLBackboneConfig, InternVL25BackboneConfig)  # families that vLLM supports


def train(config: TrainConfig, folder: Path) -> float | None:
    """Run ``config.task`` in ``folder``. Returns the metric, a fraction in [0, 1], or None where the task has none."""
    if HydraConfig.initialized():
        overrides = HydraConfig.get().overrides.task
        if config.plan:
            plan = import_subcommand("plan")
            plan.show_plan(plan.choose_data(config, overrides))
            return None
        if read_finished_summary(folder) is None:
            refuse_incomplete(config, overrides)
        config = choose_engine(config, folder, overrides)
    from mathse.evolution.tasks import run_task  # loads torch, after the settings have been checked

    return run_task(config, folder)


def choose_engine(
    config: TrainConfig, folder: Path, overrides: Sequence[str], say: Callable[[str], None] = print
) -> TrainConfig:
    """Choose generator=vllm and judge.engine=vllm where the user chose no generator, and print the choice.

    vLLM is chosen for real backbones, on a machine with CUDA and vLLM. A run that has started keeps its generator on
    any machine.

    Args:
        folder: the run folder, which records the generator of a run that has started.
        overrides: those of the command line.
    """
    generator = config.generator
    if not isinstance(generator, HFGeneratorConfig) or not isinstance(config.backbone, SERVED) or generator.top_k:
        return config
    if any(override.lstrip("+").startswith("generator=") for override in overrides):
        return config
    if (folder / RUN).is_file():
        recorded = str(read_json(folder / RUN)["config"].get("generator", {}).get("_target_", ""))
        if not recorded.endswith(".VLLMGenerator"):
            return config
    elif config.resume is not None or config.trainer.accelerator == "cpu" or not (_has_cuda() and _has_vllm()):
        return config
    # Keep the sampling settings, and let the engine judge where it supports the ORM's backbone.
    engine = VLLMGeneratorConfig(
        temperature=generator.temperature, top_p=generator.top_p, max_new_tokens=generator.max_new_tokens
    )
    orm, judge = config.orm.backbone or config.backbone, config.judge
    engine_judges = isinstance(orm, SERVED) and judge.server is None
    say(
        f"generator=vllm{' judge.engine=vllm' if engine_judges else ''}: chosen, since this machine has CUDA and vLLM; "
        "generator=hf samples and judges in this process (docs/serving.md)"
    )
    return replace(config, generator=engine, judge=replace(judge, engine="vllm") if engine_judges else judge)


def _has_cuda() -> bool:
    """Whether the driver has its device file. torch would know better, but it is imported later."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _has_vllm() -> bool:
    return shutil.which(VLLMGeneratorConfig().program) is not None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand. ``argv``: without the program and the subcommand. Exits with 1 after a user's mistake."""
    cli.main(train, config_name="train", schema=TrainConfig, arguments=argv)
    return 0
