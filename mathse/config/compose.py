"""A command line of train.py -> its settings and its run folder, for programs that take the same overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mathse.config.options import CONF
from mathse.config.overrides import explain, refuse_early
from mathse.config.parse import parse
from mathse.config.register import register
from mathse.config.schema import TrainConfig
from mathse.errors import ConfigError

COMPOSING = (HydraException, OmegaConfBaseException)


def train_config(overrides: Sequence[str]) -> tuple[TrainConfig, Path]:
    """(settings, hydra.run.dir) of ``python train.py *overrides``. Raises ConfigError as train.py does."""
    register()
    refuse_early(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("train", overrides=list(overrides), return_hydra_config=True)
            folder = Path(str(composed.hydra.run.dir))
    except COMPOSING as error:
        raise ConfigError(explain(error, overrides, TrainConfig)) from None
    return parse(composed), folder
