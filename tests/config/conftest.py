from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from mathse.commands import cli
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


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Whatever handlers a test leaves behind, the next one has pytest's own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signal_handlers: None
) -> Callable[..., Any]:
    """``command(task, "seed=1")``: (exit code, stderr) of the program around ``task``, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(task: Callable[..., Any], *arguments: str, **environment: str) -> tuple[Any, str]:
        for key in ("MATHSE_TRACEBACK", "HYDRA_FULL_ERROR"):
            monkeypatch.setenv(key, environment.get(key, "0"))
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        GlobalHydra.instance().clear()
        try:
            cli.main(task, "train", TrainConfig)
            code = 0
        except SystemExit as e:
            code = e.code
        return code, capsys.readouterr().err

    return run
