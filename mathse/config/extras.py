"""Libraries that not every run needs: which extra of pyproject.toml brings each, and what to say where it is missing.

Loads none of them. In a checkout the advice is ``pip install '.[EXTRA]'``. Where a wheel is installed it is the name of
the installed package: pip finds that it is there and adds the libraries of the extra, without asking an index for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]  # of a checkout; of a wheel the folder of all packages


@dataclass(frozen=True)
class Extra:
    module: str  # what is imported
    title: str  # as a sentence names it


EXTRAS = {
    "hub": Extra("datasets", "the datasets library"),
    "smollm2": Extra("gguf", "the gguf package"),
    "smollm2-vision": Extra("onnx", "the onnx package"),
    "lineage": Extra("duckdb", "duckdb"),
    "dashboards": Extra("wandb_workspaces", "the wandb-workspaces package"),
    "server": Extra("uvicorn", "uvicorn"),
    "tensorboard": Extra("tensorboard", "tensorboard"),
    "mlflow": Extra("mlflow", "MLflow"),
    "qlora": Extra("bitsandbytes", "bitsandbytes"),
    "deepspeed": Extra("deepspeed", "deepspeed"),
    "liger": Extra("liger_kernel", "liger-kernel"),
    "joblib": Extra("hydra_plugins.hydra_joblib_launcher", "Hydra's joblib plugin"),
    "optuna": Extra("hydra_plugins.hydra_optuna_sweeper", "Hydra's optuna plugin"),
}


def is_installed(extra: str) -> bool:
    """Whether the library behind an extra can be imported."""
    try:
        spec = find_spec(EXTRAS[extra].module)
    except ModuleNotFoundError:  # hydra_plugins, where there is no plugin at all
        return False
    return spec is not None and spec.origin is not None  # no origin: a folder of that name, no library


def explain_missing(extra: str) -> str | None:
    """``needs duckdb, which is not installed; pip install '.[lineage]'``; None where it is installed."""
    if is_installed(extra):
        return None
    return f"needs {EXTRAS[extra].title}, which is not installed; pip install {quote_extra(extra)}"


def quote_extra(extra: str) -> str:
    """An extra as pip takes it: ``'.[hub]'`` in a checkout."""
    package = "." if (SOURCE / "pyproject.toml").is_file() else "mathse"
    return f"'{package}[{extra}]'"
