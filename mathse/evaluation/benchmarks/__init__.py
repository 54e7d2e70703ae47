"""Rows and official scoring of MathVista, MathVerse, MATH-Vision, We-Math, MathVL-test, DynaMath, LogicVista and
MMMU-Pro.

Each module implements ``mathse.evaluation.benchmark.Benchmark``.
"""

from __future__ import annotations

from typing import Any

from mathse.errors import ConfigError
from mathse.evaluation.benchmark import Benchmark

SETTINGS = {  # benchmark -> its settings class in mathse.config.evaluation
    "mathvista": "MathVistaConfig",
    "mathverse": "MathVerseConfig",
    "mathvision": "MathVisionConfig",
    "mathvl_test": "MathVLTestConfig",
    "wemath": "WeMathConfig",
    "dynamath": "DynaMathConfig",
    "logicvista": "LogicVistaConfig",
    "mmmu_pro": "MMMUProConfig",
}
NAMES = tuple(SETTINGS)


def make(name: str, **settings: Any) -> Benchmark:
    """Build benchmark ``name``. Raises ConfigError for an unknown name or a setting out of range."""
    if name not in SETTINGS:
        raise ConfigError(f"benchmark = {name!r}, allowed: {', '.join(NAMES)}; choose one")
    from mathse.config import (  # here: each scoring process imports this package, and many are started
        build,
        evaluation,
        make_settings,
    )

    benchmark: Benchmark = build(make_settings(getattr(evaluation, SETTINGS[name]), f"benchmark.{name}", settings))
    return benchmark
