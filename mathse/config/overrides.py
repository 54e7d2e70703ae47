"""Report all mistakes of a command line in one answer, including the mistakes at which Hydra stops.

Hydra reads a command line override by override and raises at the first override that it cannot use. In this case the
command line is read once more, in its order but to the end. First the options of groups are chosen and composed. Then
all settings are put into the result, whether or not such settings exist, and the strict reading of
``mathse.config.parse`` reports the wrong settings. If Hydra raises nothing, the strict reading gets the same settings,
so nothing is done twice.
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

from mathse.config.field_words import ELSEWHERE, match_spelling, suggest_name
from mathse.config.options import CONF, list_groups, own_folder
from mathse.config.parse import parse, read
from mathse.config.programs import parse_override, register_config
from mathse.config.register import register
from mathse.config.schema import OPTIONS, PROGRAMS
from mathse.config.secrets import explain_secret, holds_secret
from mathse.config.sections import list_key_paths, to_plain
from mathse.config.sweeps import explain_missing_option
from mathse.errors import ConfigError, MathSEError

# Errors of Hydra and OmegaConf in a composition. Some mistakes make Hydra raise a ValueError.
COMPOSING = (HydraException, OmegaConfBaseException, ValueError)
OPTION_NAMES = re.compile(r"[\w./\[\], -]+")  # one name, a list of names, or names to sweep over
SETTING_KEY = re.compile(r"[\w./@-]+")
# The value of api_key_env: one name of an environment variable, names to sweep over, or an interpolation.
VARIABLE_NAMES = re.compile(r"[\w\s,'\"()\[\]]*|.*\$\{.*")
MAX_SHOWN_CHARS = 300  # of an argument in a sentence


def explain(error: Exception | None, arguments: Sequence[str], schema: type) -> str:
    """Return a sentence for every mistake of a command line, or Hydra's own first line if no mistake is recognised.

    Args:
        error: the error that Hydra or OmegaConf raised before the job began. None: ``refuse_early`` found a mistake.
        arguments: the command line without the program.
        schema: the settings class of the program.
    """
    own_error = _find_own_error(error)
    mistakes = [] if own_error is None else str(own_error).splitlines()
    with suppress(*COMPOSING):  # nothing composes at all: Hydra's own words are the answer
        for sentence in _find_mistakes(arguments, schema):
            if sentence not in mistakes:
                mistakes.append(sentence)
    return "\n".join(mistakes) or f"the command line does not compose: {_first_line(error)}"


def refuse_early(arguments: Sequence[str], schema: type) -> None:
    """Raise ConfigError for the mistakes that Hydra does not refuse itself.

    - A key or a password: Hydra would print and store it before a job could refuse it.
    - A sweep that matches no option (``experiment=glob(study/*)``): it would run no job, without a message.
    - An option that is not a name (``logger=null``): a bare ValueError.
    - A setting without a name (``+=``): an assertion of Hydra.
    """
    secrets = [sentence for argument in arguments if (sentence := _find_secret(argument)) is not None]
    if secrets:  # without the other mistakes, which show their arguments
        raise ConfigError("\n".join(secrets))
    if any(_has_no_key(text) for text in parse_command_line(arguments).overrides):
        raise ConfigError(explain(None, arguments, schema))
    for override in map(parse_override, arguments):
        if override is None or override.key_or_group not in list_groups():
            continue
        options = list_groups()[override.key_or_group]
        if _explain_glob(override, options) or _explain_no_name(override, options):
            raise ConfigError(explain(None, arguments, schema))


def correct_spelling(arguments: Sequence[str]) -> list[str]:
    """Return the command line with options as conf/ spells them: ``backbone=InternVL2.5`` -> ``backbone=internvl2_5``.

    Lists and sweeps of options are corrected too. ``logger=[csv,wandb]`` becomes a section for each logger, because
    Hydra would put all of them into one section. Flags come first: Hydra's parser reads only the settings before a flag
    if there are settings on both of its sides.
    """
    settings = get_args_parser().parse_known_intermixed_args(arguments)[0].overrides
    corrected = [argument for argument in arguments if argument not in settings]
    for argument in settings:
        key, equals, value = argument.partition("=")
        group = key.lstrip("+").partition("@")[0]
        # A group in another group is a setting of that group's section: evolution.update=dpo is Hydra's
        # evolution/update=dpo. A section as value, evolution.update={...}, stays a value.
        if group.replace(".", "/") in list_groups() and not value.startswith("{"):
            key = key.replace(".", "/", group.count("."))
            group, argument = group.replace(".", "/"), f"{key}{equals}{value}"
        options = list_groups().get(group, ()) if equals else ()
        if options and OPTION_NAMES.fullmatch(value):
            # The pattern is a group, so that the split keeps the separators at odd positions.
            parts = re.split(r"([\[\],\s]+)", value)
            value = "".join(part if part in options else match_spelling(part, options) or part for part in parts)
            argument = f"{key}={value}"
        if key == "logger" and (names := re.fullmatch(r"\[([^\[\]]*)\]", value)):
            corrected += _choose_loggers([name.strip() for name in names[1].split(",") if name.strip()])
        else:
            corrected.append(argument)
    return corrected


def _choose_loggers(names: Sequence[str]) -> list[str]:
    """Return the overrides that choose several loggers. Every run writes the tables of ``csv`` in any case."""
    others = [name for name in dict.fromkeys(names) if name != "csv"]
    if len(others) < 2:
        return [f"logger={others[0] if others else 'csv'}"]
    return ["logger=several", *(f"+logger@logger.loggers.{name}={name}" for name in others)]


def parse_command_line(arguments: Sequence[str]) -> Namespace:
    """Return Hydra's flags (``multirun``, ``help``, ``config_dir``, ...) and the ``overrides``, correctly spelled."""
    line, _ = get_args_parser().parse_known_args(correct_spelling(arguments))
    if (folder := line.config_dir or own_folder()) is not None:
        line.overrides.append(f"hydra.searchpath=[{quote_value(f'file://{Path(folder).absolute()}')}]")
    return line


def find_set_keys(overrides: Sequence[str]) -> list[str]:
    """Return the key paths of the settings that ``overrides`` set. Choices of options are not settings."""
    keys: dict[str, None] = {}  # in order, each once
    for text in overrides:
        override = parse_override(text)
        if override is not None and not override.is_delete() and override.key_or_group not in list_groups():
            keys[override.key_or_group] = None
    return [*keys]


def quote_value(text: str) -> str:
    """Quote ``text`` so that Hydra reads it literally as a value."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def open_configs(root: str | Path | None = None) -> Iterator[None]:
    """Let ``hydra.compose`` read the configs in ``root``. None: our own."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(Path(root or CONF).absolute()), version_base="1.3"):
        yield


def _find_mistakes(arguments: Sequence[str], schema: type) -> Iterator[str]:
    """Yield a sentence for each mistake. In a sweep, all options and the first value of each setting are checked."""
    line = parse_command_line(arguments)
    program = line.config_name or register_config(line.overrides, schema)
    overrides: list[Override] = []
    # False if an override was left out. Rules between settings are not checked then: they would judge incomplete
    # settings.
    complete = True
    for text in line.overrides:
        if (override := parse_override(text)) is None:
            complete = False
            yield _explain_unreadable(text)
            continue
        if override.is_sweep_override() and not line.multirun:
            key, values = override.key_or_group, text.partition("=")[2]
            yield f"{key} = {values}: several values are a sweep, which needs -m; a list is written {key}=[{values}]"
        overrides.append(override)

    with open_configs(line.config_path):
        # Step 1: settings of Hydra itself, such as its launcher and its search path.
        hydra_texts = []
        for override in (o for o in overrides if o.is_hydra_override()):
            group = override.key_or_group
            brings_plugin = group in ("hydra/launcher", "hydra/sweeper")
            if brings_plugin and (missing := explain_missing_option(group, str(override.value()))):
                yield missing
            else:
                hydra_texts.append(str(override.input_line))
        try:
            chosen_groups = _find_chosen_groups(program, hydra_texts)
        except COMPOSING as error:
            yield f"the command line does not compose: {_first_line(error)}"
            hydra_texts = [text for text in hydra_texts if text.startswith("hydra.searchpath=")]
            chosen_groups = _find_chosen_groups(program, hydra_texts)

        # Step 2: options of groups.
        options_of = partial(_find_options, program=program, searchpath=hydra_texts)
        choices: list[str] = []
        unknown_sections: list[str] = []  # no option is known, so their settings cannot be checked
        settings: list[Override] = []
        for override in (o for o in overrides if not o.is_hydra_override()):
            if isinstance(override.value(), dict) or not options_of(override.key_or_group):
                settings.append(override)
                continue
            mistake, text = _check_choice(override, options_of, chosen_groups)
            if mistake:
                yield mistake
            if text:
                choices.append(text)
            else:
                complete = False
                unknown_sections.append(f"{override.package or override.key_or_group}.")
        try:
            config = compose(program, overrides=[*hydra_texts, *choices])
        except COMPOSING as error:
            yield f"the command line does not compose: {_first_line(error)}"
            return

    # Step 3: settings, which the strict reading checks.
    for override in settings:
        if not override.key_or_group.startswith(tuple(unknown_sections)):
            yield from _set(config, override, schema)
    if not complete:
        yield from read(config, schema)[1].problems.values()
        return
    try:
        parse(config, schema, given=find_set_keys(line.overrides))
    except ConfigError as error:
        yield from str(error).splitlines()


def _find_chosen_groups(program: str, overrides: list[str]) -> set[str]:
    """Return the groups that have an option without the command line, as ``backbone`` and ``backbone@orm.backbone``."""
    return {*compose(program, overrides=overrides, return_hydra_config=True).hydra.runtime.choices}


def _find_options(group: str, program: str, searchpath: list[str]) -> list[str]:
    """Return the options that Hydra finds for a group, in conf/ and in the user's folders. A setting has none."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options(group, config_name=program, overrides=searchpath)
    schemas = {schema.__name__ for schema in OPTIONS.get(group, ())}
    return sorted({*names} - schemas | {*list_groups().get(group, ())})


def _check_choice(
    override: Override, options_of: Callable[[str], list[str]], chosen_groups: Container[str]
) -> tuple[str | None, str | None]:
    """Check the choice of an option.

    Returns:
        The sentence on a mistake, or None, and the choice that was probably meant, or None if it is not known.
    """
    key, text, options = _key(override), (override.input_line or "").lstrip("+"), options_of(override.key_or_group)
    if override.is_delete():
        return (None, override.input_line) if key in chosen_groups else (f"~{key}: no {key} is chosen", None)
    if mistake := _explain_no_name(override, options) or _explain_glob(override, options):
        return mistake, None
    names = _list_names(override, options)
    for name in names:
        folder, _, option = f"{override.key_or_group}/{name}".rpartition("/")  # experiment=paper/qwen2vl
        if option not in options_of(folder):
            elsewhere = ELSEWHERE.get(f"{key}={name}")
            hint = f"; {elsewhere}" if elsewhere else suggest_name(name, options)
            return f"{key}={name}: no such option; available: {', '.join(options)}{hint}", None
    for program in PROGRAMS.values() if key not in chosen_groups else ():
        if key in _find_chosen_groups(program, []):
            instead = "; evaluate.py takes an ORM as judge.checkpoint=DIR" if key == "judge" else ""
            return f"{override.input_line}: a group of {program}.py{instead}", None
    if override.is_sweep_override():
        text = f"{key}={names[0]}"
    if key in chosen_groups:
        is_added = override.is_add() or override.is_force_add()
        return (f"{override.input_line}: {key} is chosen already; write {text}" if is_added else None), text
    if override.is_add():
        return None, f"+{text}"
    return f"{override.input_line}: no {key} is chosen that this could replace; write +{text}", f"+{text}"


def _set(config: DictConfig, override: Override, schema: type) -> Iterator[str]:
    """Put a setting into the config, even if there is no such setting: the strict reading reports that."""
    key, text = override.key_or_group, override.input_line or ""
    if override.package is not None:
        yield f"{_key(override)}: no such group{suggest_name(key, [*list_groups()])}"
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
                yield f"{key}: no such setting{suggest_name(key, list_key_paths(schema))}"
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


def _find_secret(argument: str) -> str | None:
    """Return the sentence that refuses a key or a password in an argument, or None."""
    key, equals, value = argument.lstrip("+~").partition("=")
    if not equals or not SETTING_KEY.fullmatch(key) or holds_secret(key):
        return explain_secret("an argument") if holds_secret(argument) else None
    if key in list_groups():  # the value is the name of an option
        return explain_secret(key) if holds_secret(value) else None
    is_no_name = key.endswith("api_key_env") and not VARIABLE_NAMES.fullmatch(value)
    return explain_secret(key) if is_no_name or holds_secret(argument) else None


def _explain_glob(override: Override, options: Sequence[str]) -> str | None:
    """Return the sentence on a glob that matches no option, or None."""
    glob: object = override.value()
    if not isinstance(glob, Glob) or glob.filter([*options]):
        return None
    return (
        f"{override.input_line}: matches no option, so nothing would run; {override.key_or_group} has "
        f"{', '.join(options)}; a study's variants are '+experiment/STUDY=glob(*)'"
    )


def _explain_no_name(override: Override, options: Sequence[str]) -> str | None:
    """Return the sentence on the choice of an option by a value that is no name, or None."""
    if override.is_delete() or override.is_sweep_override() or isinstance(override.value(), (str, list, dict)):
        return None
    return f"{override.input_line}: an option is chosen by its name; available: {', '.join(options)}"


def _list_names(override: Override, options: Sequence[str]) -> list[str]:
    """List the options that an override chooses: several in a list or a sweep."""
    value: object = override.value()
    if isinstance(value, Glob):
        return value.filter([*options])
    names: list[str] = []
    for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
        # benchmark=[mathvista,mathvision]
        names += [str(to_plain(name)) for name in (choice if isinstance(choice, list) else [choice])]
    return names


def _key(override: Override) -> str:
    return f"{override.key_or_group}@{override.package}" if override.package else override.key_or_group


def _has_no_key(text: str) -> bool:
    return not re.split("[=@]", text.lstrip("+~"))[0]


def _explain_unreadable(text: str) -> str:
    """Return the sentence on an argument that Hydra cannot parse."""
    if homes := [group for group, names in list_groups().items() if text in names]:
        return f"{text}: a setting is written key=value; did you mean {homes[0]}={text}?"
    if _has_no_key(text):
        return f"{text or repr(text)}: names no setting; write KEY=VALUE"
    if len(text) > MAX_SHOWN_CHARS:
        return f"{text[:MAX_SHOWN_CHARS]}...: not readable; write key=value, of at most some thousand characters"
    key, equals, value = text.partition("=")
    remedy = f", and quote special characters: '{key}=\"{value}\"'" if equals else ""
    return f"{text or repr(text)}: not readable; write key=value{remedy}"


def _find_own_error(error: BaseException | None) -> MathSEError | None:
    """Return an error of MathSE that a resolver raised and OmegaConf wrapped, or None."""
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
