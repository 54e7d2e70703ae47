"""Compose the settings, the run folder and the help page of a command line of train.py or evaluate.py."""

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

KEY_COLUMNS = 44  # width of KEY=VALUE in the help page; a longer KEY=VALUE has its own line
NO_TERMINAL_COLUMNS = 10_000  # each setting on one line, for grep


def compose_train(overrides: Sequence[str], but: Container[Rule] = ()) -> tuple[TrainConfig, Path]:
    """Return the settings and the run folder of ``python train.py *overrides``.

    Raises ConfigError as train.py does. The rules in ``but`` are not checked.
    """
    composed, folder = _compose(overrides, TrainConfig)
    return parse(composed, but=but, given=find_set_keys(overrides)), folder


def compose_evaluate(overrides: Sequence[str]) -> tuple[EvaluateConfig, Path]:
    """Return the settings and the folder of ``python evaluate.py *overrides``."""
    composed, folder = _compose(overrides, EvaluateConfig)
    return parse(composed, EvaluateConfig, given=find_set_keys(overrides)), folder


def compose_unchecked(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings by dotted key as Hydra composes them, without checking them: their files may be missing.

    Raises ConfigError if the command line does not compose.
    """
    composed, _ = _compose(overrides, TrainConfig)
    values: Any = OmegaConf.to_container(composed, resolve=True)
    return flatten({**values, "judge": add_target(values["judge"])})


def find_sweep_folder(arguments: Sequence[str], schema: type) -> Path:
    """Return the folder of a sweep's jobs, hydra.sweep.dir. No setting with several values may decide it."""
    line = parse_command_line(arguments)
    parser = OverridesParser.create()
    single = [text for text in line.overrides if not parser.parse_override(text).is_sweep_override()]
    with open_configs(line.config_path):
        name = line.config_name or register_config(line.overrides, schema)
        composed = compose(name, overrides=single, return_hydra_config=True)
        return Path(str(composed.hydra.sweep.dir))


def format_help(arguments: Sequence[str], schema: type) -> str:
    """Return the page of ``--help``: the template of conf/hydra/help with all composed settings.

    Each setting has its value, its allowed values and its description. Hydra's own code prints the same page after two
    seconds, because it lists the options of every group and copies all defaults for each.
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


def _compose(overrides: Sequence[str], schema: type) -> tuple[DictConfig, Path]:
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
    except COMPOSING as error:
        raise ConfigError(explain(error, overrides, schema)) from None
    return composed, folder


def _settings_lines(config: Any, values: Mapping[str, Any]) -> str:
    """Format each setting as ``  KEY=VALUE    (allowed values) description``, with a blank line between groups.

    Args:
        config: the settings object.
        values: composed values by dotted key, with interpolations. An absent key has its default.
    """
    width = shutil.get_terminal_size((NO_TERMINAL_COLUMNS, 0)).columns
    lines: list[str] = []
    group = ""
    for path, text in _describe(config):
        below = path.partition(".")[0] if "." in path else ""
        if below != group:
            lines.append("")
            group = below
        head = f"  {path}={_format_value(values[path])}" if path in values else f"  {path}"
        if len(head) > KEY_COLUMNS and text:
            lines.append(head)
            head = ""
        for part in textwrap.wrap(text, max(20, width - KEY_COLUMNS - 2)) or [""]:
            lines.append(f"{head:<{KEY_COLUMNS}}  {part}".rstrip())
            head = ""
    return "\n".join(lines)


def _describe(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key path, allowed values and description) of all settings below a section, user's classes included."""
    if isinstance(section, Mapping):
        for key, value in section.items():
            if _is_section(value):
                yield from _describe(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", ""
        return
    fields = settings_of(section)
    for name, f in fields.items():
        value = getattr(section, name)
        if _is_section(value):
            yield from _describe(value, f"{prefix}{name}.")
        elif name != "_target_" or len(fields) == 1:
            bounds = f"({describe_allowed(f)}) " if describe_allowed(f) else ""
            yield f"{prefix}{name}", f"{bounds}{f.description or ''}".strip()


def _is_section(value: Any) -> bool:
    return is_dataclass(value) or (isinstance(value, Mapping) and len(value) > 0)


def _format_value(value: Any) -> str:
    """Format a value as a command line has it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_format_value, value))}]"
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, float) else show(value)
