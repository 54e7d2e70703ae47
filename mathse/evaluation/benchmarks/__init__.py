"""Official scoring of MathVista, MathVerse, MATH-Vision and MathVL-test; the contract is ``base.Benchmark``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mathse.errors import ConfigError
from mathse.evaluation.benchmarks.base import Benchmark

_CLASSES = {
    "mathvista": "mathse.evaluation.benchmarks.mathvista.MathVista",
    "mathverse": "mathse.evaluation.benchmarks.mathverse.MathVerse",
    "mathvision": "mathse.evaluation.benchmarks.mathvision.MathVision",
    "mathvl_test": "mathse.evaluation.benchmarks.mathvl_test.MathVLTest",
}
NAMES = tuple(_CLASSES)


def make(name: str, **options: Any) -> Benchmark:
    """The benchmark ``name`` with its options; ConfigError for a name that is none, or an option out of range."""
    if name not in _CLASSES:
        raise ConfigError(f"benchmark = {name!r}, allowed: {', '.join(NAMES)}; choose one")
    module, _, cls = _CLASSES[name].rpartition(".")
    made: Benchmark = getattr(import_module(module), cls)(**options)
    return made
