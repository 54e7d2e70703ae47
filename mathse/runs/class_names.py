"""Classes that have moved: the names that run folders recorded, and where the classes are today.

A section's ``_target_`` is among the settings that decide what a stage makes, so it is hashed into its identity.
Identities keep the name that the first runs recorded; everything else works with today's. So a class may move without
making any finished stage another one, and a run.json of an earlier version still builds. A class that moves again keeps
its recorded name here; a new class needs no line before it moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# recorded in runs -> where the class is today
MOVED = {
    "mathse.backbones.cogvlm2.load": "mathse.models.cogvlm2.load",
    "mathse.backbones.internvl2_5.load": "mathse.models.internvl2_5.load",
    "mathse.backbones.qwen2vl.load": "mathse.models.qwen2vl.load",
    "mathse.backbones.tiny.TinyBackbone": "mathse.models.tiny.TinyBackbone",
    "mathse.benchmarks.mathverse.MathVerse": "mathse.evaluation.benchmarks.mathverse.MathVerse",
    "mathse.benchmarks.mathvision.MathVision": "mathse.evaluation.benchmarks.mathvision.MathVision",
    "mathse.benchmarks.mathvista.MathVista": "mathse.evaluation.benchmarks.mathvista.MathVista",
    "mathse.benchmarks.mathvl_test.MathVLTest": "mathse.evaluation.benchmarks.mathvl_test.MathVLTest",
    "mathse.evaluation.own.OwnBenchmark": "mathse.evaluation.own_benchmark.OwnBenchmark",
    "mathse.evaluation.benchmarks.synthetic.OwnBenchmark": "mathse.evaluation.own_benchmark.OwnBenchmark",
    "mathse.generate.HFGenerator": "mathse.inference.generate.HFGenerator",
    "mathse.inference.serving.vllm.VLLMGenerator": "mathse.inference.serving.student.VLLMGenerator",
    "mathse.loggers.CsvLogger": "mathse.reporting.loggers.CsvLogger",
    "mathse.loggers.WandbLogger": "mathse.reporting.loggers.wandb.WandbLogger",
    "mathse.reporting.loggers.WandbLogger": "mathse.reporting.loggers.wandb.WandbLogger",
    "mathse.models.smollm2.load": "mathse.models.packaged.smollm2.load",
    "mathse.models.smollm2_vision.load": "mathse.models.packaged.smollm2_vision.load",
    "mathse.serving.student.ServerGenerator": "mathse.inference.serving.student.ServerGenerator",
    "mathse.teachers.ReplayTeacher": "mathse.judges.teachers.ReplayTeacher",
    "mathse.teachers.openai_api.OpenAITeacher": "mathse.judges.teachers.openai_api.OpenAITeacher",
    "mathse.teachers.student.StudentTeacher": "mathse.judges.teachers.student.StudentTeacher",
    "mathse.world.SymbolicTeacher": "mathse.data.synthetic.SymbolicTeacher",
    "mathse.world.SyntheticData": "mathse.data.synthetic.SyntheticData",
}
# A class that moved twice has two lines above; identities hold the name of the first.
RECORDED = {current: recorded for recorded, current in reversed(MOVED.items())}
TARGET = "_target_"


def with_current_names(config: Any) -> Any:
    """A config, nested or flat, with the classes it names where they are today."""
    return _renamed(config, MOVED)


def with_recorded_names(config: Any) -> Any:
    """A config, nested or flat, with each class by the name that identities hold."""
    return _renamed(config, RECORDED)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    if not isinstance(value, Mapping):
        return value
    return {
        # "_target_" in a nested config, "judge._target_" in a flat one
        key: names.get(inner, inner)
        if isinstance(inner, str) and isinstance(key, str) and key.rpartition(".")[2] == TARGET
        else _renamed(inner, names)
        for key, inner in value.items()
    }
