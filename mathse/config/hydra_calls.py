"""Refuse the classes that Hydra itself would call for foreign settings, before a plan of them is made.

``hydra.callbacks`` and the handlers of ``hydra.job_logging`` are classes by name, which an experiment of a foreign
folder of options may set. A plan runs no code that settings name, so such a command line is refused before Hydra acts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mathse.config.mistakes import show
from mathse.config.options import list_groups
from mathse.config.overrides import open_configs, parse_command_line
from mathse.config.schema import PROGRAMS
from mathse.config.trust import TRUST, is_trusted
from mathse.errors import ConfigError

CALLED = ("_target_", "class", "()", "factory")  # keys of hydra.utils.instantiate and of logging.config


def refuse_calls_by_hydra(arguments: Sequence[str], schema: type) -> None:
    """Raise ConfigError where ``plan=true`` stands among the arguments and the settings have Hydra itself call what
    MathSE's own do not: Hydra makes its callbacks and the handlers of its logging before a plan is asked for.

    Each job of a sweep is looked at, since each has its own options. Raises as Hydra does for what does not compose.
    """
    line = parse_command_line(arguments)
    if not any(override.lstrip("+").startswith("plan=") for override in line.overrides):
        return
    jobs = [line.overrides]
    if line.multirun:
        parsed = OverridesParser.create().parse_overrides(line.overrides)
        choices = [o for o in parsed if not o.is_sweep_override() or o.is_discrete_sweep()]  # the others are numbers
        [jobs] = BasicSweeper.split_arguments(choices, None)
    with open_configs():
        known = set(_calls_by_hydra(PROGRAMS[schema], []))
    with open_configs(line.config_path):
        for job in jobs:
            for path, name in _calls_by_hydra(line.config_name or PROGRAMS[schema], job):
                if (path, name) not in known and not is_trusted(name):
                    raise ConfigError(
                        f"hydra.{path} = {show(name)}: Hydra would call it before the plan is made, and who only looks "
                        f"runs no code that settings name; leave it out, or if you trust it, set {TRUST}={name}"
                    )


def _calls_by_hydra(config_name: str, overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(key path, dotted name) of what Hydra calls or imports for these settings. Of its plugins it makes those that are
    installed alone, so that only what lies below them counts; an option that a sweeper chooses later counts as a call,
    since nobody has seen it."""
    settings = compose(config_name, overrides=[*overrides], return_hydra_config=True).hydra
    for part in ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging"):
        plugin = f"{part}._target_" if part in ("launcher", "sweeper") else ""
        yield from (call for call in _calls(settings[part], part) if call[0] != plugin)
    for key, value in (settings.sweeper.get("params") or {}).items():
        if (name := str(key).lstrip("+~").partition("@")[0]) in list_groups() or name.startswith("hydra"):
            yield f"sweeper.params.{key}", str(value)


def _calls(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """The same of a node for ``hydra.utils.instantiate`` or ``logging.config``, with what its interpolations become."""
    if not OmegaConf.is_config(node):
        return
    keys: list[Any] = [*node] if isinstance(node, DictConfig) else [*range(len(node))]
    for key in keys:
        at, named = f"{path}.{key}", key in CALLED
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException as error:  # what is known in a running job alone, such as its number
            value = f"not known before the job ({' '.join(str(error).split())})" if named else None
        if isinstance(value, str) and (named or value.startswith("ext://")):
            yield at, value
        yield from _calls(value, at)
