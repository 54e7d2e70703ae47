"""A command line of train.py or evaluate.py -> its settings, its run folder, its page of help."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from string import Template
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from mathse.config.judges import add_target
from mathse.config.mistakes import show
from mathse.config.overrides import COMPOSING, explain, find_set_keys, open_configs, parse_command_line, refuse_early
from mathse.config.parse import flatten, parse, read
from mathse.config.programs import register_config
from mathse.config.rules import Rule
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.config.setting import describe_allowed, settings_of
from mathse.config.trust import forbid_foreign_classes
from mathse.errors import ConfigError

NAMES_WIDTH = 44  # columns of KEY=VALUE; a longer one has a line of its own
UNBOUNDED = 10_000  # columns where no terminal bounds them: one line a setting, to be searched with grep


def compose_train(overrides: Sequence[str], but: Container[Rule] = ()) -> tuple[TrainConfig, Path]:
    """(settings, hydra.run.dir) of ``python train.py *overrides``. Raises ConfigError as train.py does, except for the
    rules in ``but``."""
    composed, folder = _composed(overrides, TrainConfig)
    return parse(composed, but=but, given=find_set_keys(overrides)), folder


def compose_evaluate(overrides: Sequence[str]) -> tuple[EvaluateConfig, Path]:
    """The same of ``python evaluate.py *overrides``."""
    composed, folder = _composed(overrides, EvaluateConfig)
    return parse(composed, EvaluateConfig, given=find_set_keys(overrides)), folder


def compose_unchecked(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted key -> value as Hydra composes them, the judge by its name: a file that they name need not be here. Raises
    ConfigError for what cannot be composed."""
    composed, _ = _composed(overrides, TrainConfig)
    values: Any = OmegaConf.to_container(composed)
    return flatten({**values, "judge": add_target(values["judge"])})


def find_sweep_folder(arguments: Sequence[str], schema: type) -> Path:
    """The folder of a sweep's jobs, hydra.sweep.dir: no setting with several values decides it."""
    line = parse_command_line(arguments)
    parser = OverridesParser.create()
    single = [text for text in line.overrides if not parser.parse_override(text).is_sweep_override()]
    with open_configs(line.config_path):
        name = line.config_name or register_config(line.overrides, schema)
        composed = compose(name, overrides=single, return_hydra_config=True)
        return Path(str(composed.hydra.sweep.dir))


def format_help(arguments: Sequence[str], schema: type) -> str:
    """What ``--help`` prints: the template of conf/hydra/help with the composed settings in it, each with what it may
    be and what it is.

    Hydra would print the same, after two seconds: it first lists the options of every group, for templates that show
    them its way, and copies all defaults for each.
    """
    line = parse_command_line(arguments)
    with open_configs(line.config_path):
        program = line.config_name or register_config(line.overrides, schema)
        page = compose(program, overrides=line.overrides, return_hydra_config=True)
    template = Template(page.hydra.help.template)
    with open_dict(page):
        del page["hydra"]
    values = flatten(OmegaConf.to_container(page, resolve=line.resolve))
    config: Any
    with forbid_foreign_classes():
        config, _ = read(page, schema)
    return template.safe_substitute(CONFIG=_settings_lines(config, values))


def _composed(overrides: Sequence[str], schema: type) -> tuple[DictConfig, Path]:
    refuse_early(overrides, schema)
    try:
        with open_configs():
            line = parse_command_line(overrides)
            composed = compose(
                register_config(line.overrides, schema), overrides=line.overrides, return_hydra_config=True
            )
            folder = Path(str(composed.hydra.run.dir))
            with open_dict(composed):
                del composed["hydra"]
            OmegaConf.resolve(composed)
    except COMPOSING as error:
        raise ConfigError(explain(error, overrides, schema)) from None
    return composed, folder


def _settings_lines(config: Any, values: Mapping[str, Any]) -> str:
    """Each setting of a bound config as ``  KEY=VALUE    what it may be: what it is``, a blank line between groups.

    ``values``: dotted key -> value as it was composed, interpolations kept; a key that is absent there has its
    default.
    """
    width = shutil.get_terminal_size((UNBOUNDED, 0)).columns
    lines: list[str] = []
    group = ""
    for path, text in _described(config):
        below = path.partition(".")[0] if "." in path else ""
        if below != group:
            lines.append("")
            group = below
        head = f"  {path}={_written(values[path])}" if path in values else f"  {path}"
        if len(head) > NAMES_WIDTH and text:
            lines.append(head)
            head = ""
        for part in textwrap.wrap(text, max(20, width - NAMES_WIDTH - 2)) or [""]:
            lines.append(f"{head:<{NAMES_WIDTH}}  {part}".rstrip())
            head = ""
    return "\n".join(lines)


def _described(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key path, allowed values and description) of all settings below a section, the user's own classes' included."""
    if isinstance(section, Mapping):
        for key, value in section.items():
            yield from _described(value, f"{prefix}{key}.") if _is_section(value) else [(f"{prefix}{key}", "")]
        return
    fields = settings_of(section)
    for name, f in fields.items():
        value = getattr(section, name)
        if _is_section(value):
            yield from _described(value, f"{prefix}{name}.")
        elif name != "_target_" or len(fields) == 1:
            bounds = f"({describe_allowed(f)}) " if describe_allowed(f) else ""
            yield f"{prefix}{name}", f"{bounds}{f.description or ''}".strip()


def _is_section(value: Any) -> bool:
    return is_dataclass(value) or (isinstance(value, Mapping) and len(value) > 0)


def _written(value: Any) -> str:
    """As a command line has it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_written, value))}]"
    return value if isinstance(value, str) and value else str(value) if isinstance(value, float) else show(value)
