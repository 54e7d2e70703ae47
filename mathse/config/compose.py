"""A command line of train.py or evaluate.py -> its settings and its run folder, for programs that take the same
overrides."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mathse.config.options import CONF, own_folder
from mathse.config.overrides import explain, refuse_early
from mathse.config.parse import flatten, parse
from mathse.config.register import PRIMARY, register
from mathse.config.rules import Rule
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.errors import ConfigError

COMPOSING = (HydraException, OmegaConfBaseException)


def train_config(overrides: Sequence[str], but: Container[Rule] = ()) -> tuple[TrainConfig, Path]:
    """(settings, hydra.run.dir) of ``python train.py *overrides``. Raises ConfigError as train.py does, except for the
    rules in ``but``."""
    composed, folder = _composed(overrides, TrainConfig)
    return parse(composed, but=but), folder


def evaluate_config(overrides: Sequence[str]) -> tuple[EvaluateConfig, Path]:
    """The same of ``python evaluate.py *overrides``."""
    composed, folder = _composed(overrides, EvaluateConfig)
    return parse(composed, EvaluateConfig), folder


def unchecked_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted key -> value as Hydra composes them: a file that they name need not be here. Raises ConfigError for what
    cannot be composed."""
    composed, _ = _composed(overrides, TrainConfig)
    return flatten(OmegaConf.to_container(composed))


def quoted(text: str) -> str:
    """``text`` as a value that Hydra reads as it is, whatever stands in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _composed(overrides: Sequence[str], schema: type) -> tuple[DictConfig, Path]:
    register()
    refuse_early(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            own = [] if (also := own_folder()) is None else [f"hydra.searchpath=[{quoted(f'file://{also}')}]"]
            composed = compose(PRIMARY[schema], overrides=[*overrides, *own], return_hydra_config=True)
            folder = Path(str(composed.hydra.run.dir))
            with open_dict(composed):
                del composed["hydra"]
            OmegaConf.resolve(composed)
    except COMPOSING as error:
        raise ConfigError(explain(error, overrides, schema)) from None
    return composed, folder
