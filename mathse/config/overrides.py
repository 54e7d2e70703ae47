"""What Hydra says of a command line, in our words: each wrong override with the nearest right name or the options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mathse.config.bind import did_you_mean, key_paths, not_a_group, plain
from mathse.config.options import available, groups, option_of
from mathse.config.schema import NAMED, OPTIONS, EvaluateConfig, TrainConfig
from mathse.config.secrets import holds_secret, refusal
from mathse.config.sweeps import missing_option
from mathse.errors import ConfigError, MathSEError

SECTIONS = {group: group for group in OPTIONS if group not in NAMED}  # override key -> group
SECTIONS |= {"backbone@orm.backbone": "backbone", "backbone@judge.backbone": "backbone"}
A_SETTING = re.compile(r"[\w./@-]+")
NAMES_OF_VARIABLES = re.compile(r"[\w\s,'\"()\[\]]*|.*\$\{.*")  # one, several to sweep over, or an interpolation


def explain(error: Exception, arguments: Sequence[str], schema: type) -> str:
    """One sentence a line for the overrides that Hydra cannot use; Hydra's own first line where none is recognised.

    Args:
        error: what Hydra or OmegaConf raised before the job began.
        arguments: the command line without the program; flags are skipped.
        schema: of the program's config.
    """
    if (own := _own_error(error)) is not None:
        return str(own)
    overrides = [a for a in arguments if not a.startswith("-")]
    sentences = [s for text in overrides if (s := _complaint(text, overrides, schema, sweep=_sweeps(arguments)))]
    return "\n".join(sentences) or f"the command line does not compose: {_first_line(error)}"


def refuse_early(arguments: Sequence[str]) -> None:
    """Raises ConfigError for what Hydra does not refuse itself.

    Hydra would print and store a key or a password before a job could refuse it. A sweep that matches no option
    (``experiment=glob(study/*)``) would run 0 jobs quietly; an option that is not a name (``logger=null``) would end in
    a bare ValueError.
    """
    if secrets := [s for argument in arguments if (s := _secret(argument))]:  # alone: other sentences show the argument
        raise ConfigError("\n".join(secrets))
    parsed = [o for o in (_parsed(a) for a in arguments if not a.startswith("-")) if o and o.key_or_group in groups()]
    if sentences := [s for override in parsed if (s := _no_glob_match(override) or _no_name(override))]:
        raise ConfigError("\n".join(sentences))


def _secret(argument: str) -> str | None:
    key, equals, value = argument.lstrip("+~").partition("=")
    if not equals or not A_SETTING.fullmatch(key) or holds_secret(key):
        return refusal("an argument") if holds_secret(argument) else None
    if key in groups():  # its value is an option's name
        return refusal(key) if holds_secret(value) else None
    no_name = key.endswith("api_key_env") and not NAMES_OF_VARIABLES.fullmatch(value)
    return refusal(key) if no_name or holds_secret(argument) else None


def _no_glob_match(override: Override) -> str | None:
    glob: object = override.value()
    names = list(groups()[override.key_or_group])
    if not isinstance(glob, Glob) or glob.filter(names):
        return None
    return (
        f"{override.input_line}: matches no option, so nothing would run; {override.key_or_group} has "
        f"{', '.join(names)}; a study's variants are '+experiment/STUDY=glob(*)'"
    )


def _no_name(override: Override) -> str | None:
    if override.is_delete() or override.is_sweep_override() or isinstance(override.value(), (str, list)):
        return None
    choices = ", ".join(available(override.key_or_group))
    return f"{override.input_line}: an option is chosen by its name; available: {choices}"


def _complaint(text: str, overrides: Sequence[str], schema: type, *, sweep: bool) -> str | None:
    override = _parsed(text)
    if override is None:
        return _unreadable(text)
    key = override.key_or_group
    if key in ("hydra/launcher", "hydra/sweeper"):
        return missing_option(key, str(override.value()))
    if key.startswith("hydra.") or key.partition("/")[0] == "hydra":
        return None
    if override.is_sweep_override() and not sweep:
        value = text.partition("=")[2]
        return f"{key} = {value}: several values are a sweep, which needs -m; a list is written {key}=[{value}]"
    if key == "judge" and schema is EvaluateConfig:
        return f"{override.input_line}: a group of train.py; evaluate.py takes an ORM as judge.checkpoint=DIR"
    if key in groups() and (key in _sections(schema) or key == "sweep" or key.startswith("experiment")):
        return _wrong_option(override, schema)
    return _wrong_key(override, overrides, schema)


def _wrong_option(override: Override, schema: type) -> str | None:
    group, known = override.key_or_group, groups()[override.key_or_group]
    if override.is_delete():
        return None
    for name in _chosen(override):
        if name not in known:
            options = ", ".join(available(group))
            return f"{_key(override)}={name}: no such option; available: {options}{did_you_mean(name, known)}"
    if not override.is_add() and schema is TrainConfig and group not in _sections(schema) and group != "experiment":
        return f"{override.input_line}: no {group} is chosen that this could replace; write +{override.input_line}"
    if override.is_add() and (group in _sections(schema) or group == "experiment"):
        return f"{override.input_line}: {group} is chosen already; write {(override.input_line or '').lstrip('+')}"
    return None


def _wrong_key(override: Override, overrides: Sequence[str], schema: type) -> str | None:
    key, default = override.key_or_group, schema()
    if key in _standing(schema):
        if override.is_add() and not override.is_force_add():
            as_group = not_a_group(key, key_paths(default))
            instead = (override.input_line or "").lstrip("+")
            return f"{override.input_line}: {key} {as_group or f'is a setting already; write {instead}'}"
        return None
    if key in key_paths(default):
        return _needs_option(key, overrides)
    if override.is_force_add():
        return None  # the strict reading that follows says so
    return f"{key}: no such setting{did_you_mean(key, [*key_paths(default), *groups()])}"


def _needs_option(key: str, overrides: Sequence[str]) -> str | None:
    """For a setting of an option that is not chosen: which options have it."""
    if key.startswith("benchmark."):
        name = key.split(".")[1]
        asked = [o for text in overrides if (o := _parsed(text)) and o.key_or_group == "benchmark"]
        if any(name in _chosen(o) for o in asked):
            return None
        return f"{key}: {name} is not among the benchmarks chosen; pass benchmark={name}, or benchmark=[{name},...]"
    for choose, group in SECTIONS.items():
        section = choose.partition("@")[2] or choose
        if key.startswith(f"{section}."):
            name = key.removeprefix(f"{section}.")
            owners = [s for s in OPTIONS[group] if name in {f.name for f in fields(s)}]
            if len(owners) == len(OPTIONS[group]) and "@" not in choose:  # whichever is chosen has it
                continue
            options = [option for s in owners if (option := option_of(s))]
            if options and not {f"{choose}={option}" for option in options} & set(overrides):
                which = f"{choose}={options[0]}" if len(options) == 1 else f"{choose}=one of {', '.join(options)}"
                return f"{key}: the chosen {section} has no such setting; it belongs to {which}"
    return None


def _standing(schema: type) -> set[str]:
    """Key paths that are there whatever options are chosen."""
    default = schema()
    optional = ("benchmark.", *(f"{s.partition('@')[2] or s}." for s in SECTIONS))
    return {path for path in key_paths(default) if not path.startswith(optional)}


def _sections(schema: type) -> set[str]:
    return {f.name for f in fields(schema)}


def _chosen(override: Override) -> Iterator[str]:
    value: object = override.value()
    if isinstance(value, Glob) or value is None:
        return
    for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
        for item in choice if isinstance(choice, list) else [choice]:  # benchmark=[mathvista,mathvision]
            yield str(plain(item))


def _key(override: Override) -> str:
    return f"{override.key_or_group}@{override.package}" if override.package else override.key_or_group


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def _unreadable(text: str) -> str:
    if homes := [group for group, names in groups().items() if text in names]:
        return f"{text}: a setting is written key=value; did you mean {homes[0]}={text}?"
    quoted = f"'{text.partition('=')[0]}=\"{text.partition('=')[2]}\"'"
    remedy = f", and quote special characters: {quoted}" if "=" in text else ""
    return f"{text or repr(text)}: not readable; write key=value{remedy}"


def _sweeps(arguments: Sequence[str]) -> bool:
    return bool({"-m", "--multirun"} & set(arguments))


def _own_error(error: BaseException | None) -> MathSEError | None:
    """One of ours, raised inside a resolver and wrapped by OmegaConf."""
    while error is not None:
        if isinstance(error, MathSEError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    reason = f" ({_first_line(cause)})" if isinstance(cause, OmegaConfBaseException) else ""
    return (lines[0] if lines else type(error).__name__) + reason
