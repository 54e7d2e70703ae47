from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from mathse.config.options import CONF
from mathse.config.parse import parse
from mathse.config.register import register
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.errors import ConfigError


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """What Hydra makes of conf/ and these overrides."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.fixture
def read() -> Callable[..., Any]:
    """``read("seed=1")``: the parsed config of a command line; ``program="evaluate"`` for the other script."""

    def run(*overrides: str, program: str = "train") -> Any:
        schema = {"train": TrainConfig, "evaluate": EvaluateConfig}[program]
        return parse(composed(*overrides, name=program), schema)

    return run


@pytest.fixture
def refusal(read: Callable[..., Any]) -> Callable[..., list[str]]:
    """``refusal("seed=x")``: the sentences with which a command line is refused."""

    def run(*overrides: str, program: str = "train") -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(*overrides, program=program)
        return str(caught.value).splitlines()

    return run
