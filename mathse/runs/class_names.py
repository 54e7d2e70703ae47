"""Moved classes: the recorded names in run folders, and the current names.

The ``_target_`` of a section is a setting that a stage depends on, so it is hashed into the identity of the stage.
Identities keep the name of the first runs, and all other code uses the current name. So a class may move without a
change of any identity, and a run.json of an earlier version still builds. A class that moves again keeps its recorded
name here. A new class needs a line only when it moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# recorded name -> current name
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
# A class that moved twice has two lines above. Identities have the name in the first line.
RECORDED = {current: recorded for recorded, current in reversed(MOVED.items())}
TARGET = "_target_"


def with_current_names(config: Any) -> Any:
    """Return a config, nested or flat, with the current name of each class."""
    return _rename(config, MOVED)


def with_recorded_names(config: Any) -> Any:
    """Return a config, nested or flat, with the recorded name of each class, as in identities."""
    return _rename(config, RECORDED)


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_rename(inner, names) for inner in value]
    if not isinstance(value, Mapping):
        return value
    renamed = {}
    for key, inner in value.items():
        # The key is "_target_" in a nested config and "judge._target_" in a flat config.
        if isinstance(inner, str) and isinstance(key, str) and key.rpartition(".")[2] == TARGET:
            renamed[key] = names.get(inner, inner)
        else:
            renamed[key] = _rename(inner, names)
    return renamed
