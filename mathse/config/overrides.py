"""All mistakes of a command line in one answer, those included at whose first Hydra would stop.

Hydra reads a command line override by override and raises at the first that it cannot use. So where it raised, the line
is read once more, in its order but to the end: options of groups are chosen first; onto what they compose to, settings
go whether or not there are such settings; and the strict reading of ``mathse.config.parse`` names what is wrong with
them. Where Hydra raises nothing, that reading comes to the same settings, so nothing is done twice.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mathse.config.field_words import ELSEWHERE, did_you_mean, same_but_spelling
from mathse.config.options import CONF, groups, own_folder
from mathse.config.parse import parse, read
from mathse.config.programs import parsed, program_of
from mathse.config.register import register
from mathse.config.schema import OPTIONS, PROGRAMS
from mathse.config.secrets import holds_secret, refusal
from mathse.config.sections import key_paths, plain
from mathse.config.sweeps import missing_option
from mathse.errors import ConfigError, MathSEError

COMPOSING = (HydraException, OmegaConfBaseException, ValueError)  # the last where Hydra has no class of its own
SEVERAL_NAMES = re.compile(r"[\w./\[\], -]+")  # names of options: one, a list, several to sweep over
LONGEST = 300  # characters of an argument in a sentence
A_SETTING = re.compile(r"[\w./@-]+")
NAMES_OF_VARIABLES = re.compile(r"[\w\s,'\"()\[\]]*|.*\$\{.*")  # one, several to sweep over, or an interpolation


def explain(error: Exception | None, arguments: Sequence[str], schema: type) -> str:
    """Every mistake of a command line, a sentence a line; Hydra's own first line where none is recognised.

    Args:
        error: what Hydra or OmegaConf raised before the job began; None: nothing yet, but ``refuse_early`` would.
        arguments: the command line without the program.
        schema: of the program's config.
    """
    hydra_mistake = _own_error(error)
    mistakes = [] if hydra_mistake is None else str(hydra_mistake).splitlines()
    with suppress(*COMPOSING):  # of a line of which nothing composes, Hydra's hydra_mistake words are left
        for sentence in _mistakes(arguments, schema):
            if sentence not in mistakes:
                mistakes.append(sentence)
    return "\n".join(mistakes) or f"the command line does not compose: {_first_line(error)}"


def refuse_early(arguments: Sequence[str], schema: type) -> None:
    """Raises ConfigError for what Hydra does not refuse itself.

    Hydra would print and store a key or a password before a job could refuse it. A sweep that matches no option
    (``experiment=glob(study/*)``) would run 0 jobs quietly; an option that is not a name (``logger=null``) would end in
    a bare ValueError, a setting without a name (``+=``) in an assertion of Hydra's.
    """
    if secrets := [s for argument in arguments if (s := _secret(argument))]:  # alone: other sentences show the argument
        raise ConfigError("\n".join(secrets))
    if any(_names_nothing(text) for text in command_line(arguments).overrides):
        raise ConfigError(explain(None, arguments, schema))
    choices = [o for o in map(parsed, arguments) if o and o.key_or_group in groups()]
    if any(_no_glob_match(o, groups()[o.key_or_group]) or _no_name(o, groups()[o.key_or_group]) for o in choices):
        raise ConfigError(explain(None, arguments, schema))


def as_spelt(arguments: Sequence[str]) -> list[str]:
    """The command line with options as conf/ spells them, ``backbone=InternVL2.5`` -> ``backbone=internvl2_5``, alone,
    in a list and in a sweep; and ``logger=[csv,wandb]``, which Hydra would put into one section, as sections. Flags
    come first: of settings on both sides of one, Hydra's parser would read those before it alone."""
    settings = get_args_parser().parse_known_intermixed_args(arguments)[0].overrides
    spelt = [argument for argument in arguments if argument not in settings]
    for argument in settings:
        key, equals, value = argument.partition("=")
        group = key.lstrip("+").partition("@")[0]
        # A group in another group is a setting of that group's section: evolution.update=dpo is Hydra's
        # evolution/update=dpo. A section as value, evolution.update={...}, stays a value.
        if group.replace(".", "/") in groups() and not value.startswith("{"):
            key = key.replace(".", "/", group.count("."))
            group, argument = group.replace(".", "/"), f"{key}{equals}{value}"
        options = groups().get(group, ()) if equals else ()
        if options and SEVERAL_NAMES.fullmatch(value):
            parts = re.split(r"([\[\],\s]+)", value)
            value = "".join(part if part in options else same_but_spelling(part, options) or part for part in parts)
            argument = f"{key}={value}"
        if key == "logger" and (listed := re.fullmatch(r"\[([^\[\]]*)\]", value)):
            spelt += _several_loggers([name.strip() for name in listed[1].split(",") if name.strip()])
        else:
            spelt.append(argument)
    return spelt


def _several_loggers(names: Sequence[str]) -> list[str]:
    """The choice of loggers that write beside the tables of ``csv``, which every run writes."""
    others = [name for name in dict.fromkeys(names) if name != "csv"]
    if len(others) < 2:
        return [f"logger={others[0] if others else 'csv'}"]
    return ["logger=several", *(f"+logger@logger.loggers.{name}={name}" for name in others)]


def command_line(arguments: Sequence[str]) -> Namespace:
    """Hydra's own reading of its flags (``multirun``, ``help``, ``config_dir``, ...) and of the ``overrides``, these as
    ``as_spelt`` has them."""
    line, _ = get_args_parser().parse_known_args(as_spelt(arguments))
    if (folder := line.config_dir or own_folder()) is not None:
        line.overrides.append(f"hydra.searchpath=[{quoted(f'file://{Path(folder).absolute()}')}]")
    return line


def given(overrides: Sequence[str]) -> list[str]:
    """The key paths of the settings that ``overrides`` set, choices of options left out."""
    keys = (override.key_or_group for text in overrides if (override := parsed(text)) and not override.is_delete())
    return [key for key in dict.fromkeys(keys) if key not in groups()]


def quoted(text: str) -> str:
    """``text`` as a value that Hydra reads as it is, whatever stands in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def configs(root: str | Path | None = None) -> Iterator[None]:
    """In it ``hydra.compose`` reads the configs in ``root``; None: our own."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(Path(root or CONF).absolute()), version_base="1.3"):
        yield


def _mistakes(arguments: Sequence[str], schema: type) -> Iterator[str]:
    """A sentence each. Of a sweep, all options and the first value of each setting are looked at."""
    line = command_line(arguments)
    program = line.config_name or program_of(line.overrides, schema)
    overrides: list[Override] = []
    complete = True  # whether nothing had to be left out; else rules between settings would judge by what is missing
    for text in line.overrides:
        if (override := parsed(text)) is None:
            complete = False
            yield _unreadable(text)
            continue
        if override.is_sweep_override() and not line.multirun:
            key, values = override.key_or_group, text.partition("=")[2]
            yield f"{key} = {values}: several values are a sweep, which needs -m; a list is written {key}=[{values}]"
        overrides.append(override)

    with configs(line.config_path):
        of_hydra = []
        for override in (o for o in overrides if o.is_hydra_override()):
            group = override.key_or_group
            brings_plugin = group in ("hydra/launcher", "hydra/sweeper")
            if brings_plugin and (missing := missing_option(group, str(override.value()))):
                yield missing
            else:
                of_hydra.append(str(override.input_line))
        try:
            standing = _choices_of(program, of_hydra)
        except COMPOSING as error:
            yield f"the command line does not compose: {_first_line(error)}"
            of_hydra = [text for text in of_hydra if text.startswith("hydra.searchpath=")]
            standing = _choices_of(program, of_hydra)

        options_of = partial(_options, program=program, searchpath=of_hydra)
        chosen: list[str] = []
        not_known: list[str] = []  # sections whose settings cannot be looked at
        settings: list[Override] = []
        for override in (o for o in overrides if not o.is_hydra_override()):
            if isinstance(override.value(), dict) or not options_of(override.key_or_group):
                settings.append(override)
                continue
            mistake, text = _choice(override, options_of, standing)
            if mistake:
                yield mistake
            if text:
                chosen.append(text)
            else:
                complete = False
                not_known.append(f"{override.package or override.key_or_group}.")
        try:
            config = compose(program, overrides=[*of_hydra, *chosen])
        except COMPOSING as error:
            yield f"the command line does not compose: {_first_line(error)}"
            return

    for override in settings:
        if not override.key_or_group.startswith(tuple(not_known)):
            yield from _set(config, override, schema)
    if not complete:
        yield from read(config, schema)[1].problems.values()
        return
    try:
        parse(config, schema, given=given(line.overrides))
    except ConfigError as error:
        yield from str(error).splitlines()


def _choices_of(program: str, overrides: list[str]) -> set[str]:
    """The groups of which an option is chosen before the command line chooses, as ``backbone`` and
    ``backbone@orm.backbone``."""
    return {*compose(program, overrides=overrides, return_hydra_config=True).hydra.runtime.choices}


def _options(group: str, program: str, searchpath: list[str]) -> list[str]:
    """The options that Hydra finds for a group, in conf/ and in folders of the user's own; none for a setting."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options(group, config_name=program, overrides=searchpath)
    schemas = {schema.__name__ for schema in OPTIONS.get(group, ())}
    return sorted({*names} - schemas | {*groups().get(group, ())})


def _choice(
    override: Override, options_of: Callable[[str], list[str]], standing: Container[str]
) -> tuple[str | None, str | None]:
    """(what is wrong with the choice of an option, the choice as it was meant), each None where there is none."""
    key, text, options = _key(override), (override.input_line or "").lstrip("+"), options_of(override.key_or_group)
    if override.is_delete():
        return (None, override.input_line) if key in standing else (f"~{key}: no {key} is chosen", None)
    if mistake := _no_name(override, options) or _no_glob_match(override, options):
        return mistake, None
    names = [*_chosen(override, options)]
    for name in names:
        folder, _, option = f"{override.key_or_group}/{name}".rpartition("/")  # experiment=paper/qwen2vl
        if option not in options_of(folder):
            meant = f"; {elsewhere}" if (elsewhere := ELSEWHERE.get(f"{key}={name}")) else did_you_mean(name, options)
            return f"{key}={name}: no such option; available: {', '.join(options)}{meant}", None
    for program in PROGRAMS.values() if key not in standing else ():
        if key in _choices_of(program, []):
            instead = "; evaluate.py takes an ORM as judge.checkpoint=DIR" if key == "judge" else ""
            return f"{override.input_line}: a group of {program}.py{instead}", None
    if override.is_sweep_override():
        text = f"{key}={names[0]}"
    if key in standing:
        added = override.is_add() or override.is_force_add()
        return (f"{override.input_line}: {key} is chosen already; write {text}" if added else None), text
    if override.is_add():
        return None, f"+{text}"
    return f"{override.input_line}: no {key} is chosen that this could replace; write +{text}", f"+{text}"


def _set(config: DictConfig, override: Override, schema: type) -> Iterator[str]:
    """Puts a setting into the config, also where there is no such setting: the strict reading says so."""
    key, text = override.key_or_group, override.input_line or ""
    if override.package is not None:
        yield f"{_key(override)}: no such group{did_you_mean(key, [*groups()])}"
        return
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        value = value.start
    elif isinstance(value, Glob):
        yield f"{text}: matches options of a group, and {key} is none"
        return
    elif override.is_sweep_override():
        value = OverridesParser.create().parse_override(f"{key}={next(override.sweep_string_iterator())}").value()
    try:
        section, _, name = key.rpartition(".")
        if override.is_delete():
            holder = OmegaConf.select(config, section) if section else config
            if not isinstance(holder, DictConfig) or name not in holder.keys():  # noqa: SIM118  ("in holder" resolves)
                yield f"{key}: no such setting{did_you_mean(key, key_paths(schema))}"
            else:
                with open_dict(config):
                    del holder[name]
            return
        if override.is_add() and not isinstance(value, (dict, list)):
            before = OmegaConf.select(config, key)
            if before is not None and not OmegaConf.is_config(before):
                yield f"{text}: {key} is a setting already; write {text.lstrip('+')}"
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    except OmegaConfBaseException as error:
        yield f"{text}: {_first_line(error)}"


def _secret(argument: str) -> str | None:
    key, equals, value = argument.lstrip("+~").partition("=")
    if not equals or not A_SETTING.fullmatch(key) or holds_secret(key):
        return refusal("an argument") if holds_secret(argument) else None
    if key in groups():  # its value is an option's name
        return refusal(key) if holds_secret(value) else None
    no_name = key.endswith("api_key_env") and not NAMES_OF_VARIABLES.fullmatch(value)
    return refusal(key) if no_name or holds_secret(argument) else None


def _no_glob_match(override: Override, options: Sequence[str]) -> str | None:
    glob: object = override.value()
    if not isinstance(glob, Glob) or glob.filter([*options]):
        return None
    return (
        f"{override.input_line}: matches no option, so nothing would run; {override.key_or_group} has "
        f"{', '.join(options)}; a study's variants are '+experiment/STUDY=glob(*)'"
    )


def _no_name(override: Override, options: Sequence[str]) -> str | None:
    if override.is_delete() or override.is_sweep_override() or isinstance(override.value(), (str, list, dict)):
        return None
    return f"{override.input_line}: an option is chosen by its name; available: {', '.join(options)}"


def _chosen(override: Override, options: Sequence[str]) -> Iterator[str]:
    """The names of options in a choice, each once for every job of a sweep."""
    value: object = override.value()
    if isinstance(value, Glob):
        yield from value.filter([*options])
        return
    for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
        for item in choice if isinstance(choice, list) else [choice]:  # benchmark=[mathvista,mathvision]
            yield str(plain(item))


def _key(override: Override) -> str:
    return f"{override.key_or_group}@{override.package}" if override.package else override.key_or_group


def _names_nothing(text: str) -> bool:
    return not re.split("[=@]", text.lstrip("+~"))[0]


def _unreadable(text: str) -> str:
    if homes := [group for group, names in groups().items() if text in names]:
        return f"{text}: a setting is written key=value; did you mean {homes[0]}={text}?"
    if _names_nothing(text):
        return f"{text or repr(text)}: names no setting; write KEY=VALUE"
    if len(text) > LONGEST:
        return f"{text[:LONGEST]}...: not readable; write key=value, of at most some thousand characters"
    quoted = f"'{text.partition('=')[0]}=\"{text.partition('=')[2]}\"'"
    remedy = f", and quote special characters: {quoted}" if "=" in text else ""
    return f"{text or repr(text)}: not readable; write key=value{remedy}"


def _own_error(error: BaseException | None) -> MathSEError | None:
    """One of ours, raised inside a resolver and wrapped by OmegaConf."""
    while error is not None:
        if isinstance(error, MathSEError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _first_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = getattr(error, "__cause__", None)
    reason = f" ({_first_line(cause)})" if isinstance(cause, OmegaConfBaseException) else ""
    return (lines[0] if lines else type(error).__name__) + reason
