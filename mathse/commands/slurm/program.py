"""What a launcher of jobs must know of the command that is swept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig


@dataclass(frozen=True)
class Program:
    """What is swept. ``check``: a composed config's settings, or a ConfigError. ``command``: of a run with these
    overrides in this folder."""

    check: Callable[[DictConfig], Any]
    command: Callable[[Sequence[str], Path], list[str]]
