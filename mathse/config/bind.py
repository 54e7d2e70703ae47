"""A plain mapping becomes dataclass objects. What does not fit is noted as a sentence, and its default taken instead,
so that one reading finds every mistake."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mathse.config.evaluation import ROWS
from mathse.config.field_words import FIELD_WORDS, OF_HYDRA, sentence_for
from mathse.config.judges import own_judge
from mathse.config.options import available, option_of
from mathse.config.schema import NAMED, OPTIONS
from mathse.config.trust import why_not_imported
from mathse.errors import ConfigError

# data=mixture, logger=several: sections of a group's options, by name
PARTS = {"sources": "data", "loggers": "logger"}
SHOWN = 500  # characters of a value in a sentence
LARGEST = 2**63 - 1  # of a number: what 64 bits hold
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Notes:
    """What binding finds: a sentence by key path, and the settings that unknown keys probably ``meant``, which are
    looked for among all key paths there are (``known``)."""

    known: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)
    meant: set[str] = field(default_factory=set)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant: one that differs in its letters' case and its signs alone, what the field calls
    so, the right word one level off, a similar name."""
    others = [n for n in names if not f"{name}.".startswith(f"{n}.")]
    if spelt := same_but_spelling(name, others):
        return spelt
    if meant := next((n for n in FIELD_WORDS.get(name.casefold(), ()) if n in names or n in OF_HYDRA), None):
        return meant
    section, _, setting = name.partition(".")
    if inside := [n for n in FIELD_WORDS.get(setting.casefold(), ()) if n in names and n.startswith(f"{section}.")]:
        return inside[0]
    same_word = [n for n in others if setting and n.startswith(f"{section}.") and n.endswith(f".{setting}")]
    # sft.lr is meant for this section, trainer.max_epochs for another one
    meant = next((n for n in FIELD_WORDS.get(name.rpartition(".")[2].casefold(), ()) if n in (*names, *OF_HYDRA)), None)
    if meant is not None and meant.startswith(f"{section}."):
        return meant
    if near := get_close_matches(name, same_word, n=1, cutoff=0.0):
        return near[0]
    if meant is not None:
        return meant
    near = get_close_matches(name, others, n=1, cutoff=0.6)
    return near[0] if near else None


def same_but_spelling(name: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that differs from ``name`` in case and signs alone: InternVL2.5 for internvl2_5."""
    bare = re.sub(r"[-_. ]", "", name).casefold()
    same = [n for n in names if re.sub(r"[-_. ]", "", n).casefold() == bare]
    return same[0] if len(same) == 1 else None


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """``"; did you mean NEAREST?"``, or nothing if no name is near."""
    near = nearest(name, names)
    return f"; did you mean {near}?" if near else ""


def not_a_group(path: str, known: Sequence[str]) -> str | None:
    """What to say of a plain value given to a group of settings; None if ``path`` is no group."""
    inside = [n for n in known if n.startswith(f"{path}.") and "." not in n.removeprefix(f"{path}.")]
    if not inside:
        return None
    return f"is a group of settings ({', '.join(inside)}), not a value{did_you_mean(path, known)}"


def key_paths(default: Any, prefix: str = "") -> list[str]:
    """Every key path below a dataclass object, groups included, in order; all options of a group count."""
    paths = []
    for f in fields(default):
        path, value = f"{prefix}{f.name}", getattr(default, f.name)
        paths.append(path)
        for below, part in _sections(f.name, path, value):
            if is_dataclass(part):
                paths += [p for p in key_paths(part, f"{below}.") if p not in paths]
    return paths


def _sections(name: str, path: str, value: Any) -> list[tuple[str, Any]]:
    """(key path, dataclass object) of what may stand in a field: every option of a group, or its own value."""
    if name == "benchmark":
        return [(f"{path}.{option_of(schema)}", schema()) for schema in OPTIONS[name]]
    return [(path, schema()) for schema in OPTIONS[name]] if is_option(name, value) else [(path, value)]


def is_option(name: str, default: Any) -> bool:
    """Whether a field holds one option of the group of its name. evaluate.py's ``judge`` is a plain section, and
    ``distill.judge`` a name."""
    return name in OPTIONS and name not in NAMED and (default is None or hasattr(default, "_target_"))


def complete(default: Any, values: Any, group: str = "") -> Any:
    """``values`` over the defaults, as plain values, interpolations kept; unknown keys stay, to be complained of."""
    if not isinstance(values, Mapping):
        return values
    default = prototype(group, default, values)
    if not is_dataclass(default):
        return dict(values)
    full = dict(values)
    for f in fields(default):
        value = getattr(default, f.name)
        full[f.name] = complete(value, full[f.name], f.name) if f.name in full else _as_default(f, value)
    return full


def defaults(default: Any) -> dict[str, Any]:
    """What a config takes from a dataclass object where nothing is set: plain values, and ``${...}`` where a field
    follows another setting."""
    return {f.name: _as_default(f, getattr(default, f.name)) for f in fields(default)}


def _as_default(f: Field[Any], value: Any) -> Any:
    return f.metadata.get("follows") or (defaults(value) if is_dataclass(value) else plain(value))


def prototype(group: str, default: Any, values: Mapping[Any, Any]) -> Any:
    """The dataclass object whose fields a section may have: its group's option named by ``_target_``; of a judge that
    is not ours, what its signature makes; None for any other class that is not ours, and where no option is chosen."""
    if group not in OPTIONS or group in NAMED or "_target_" not in values:
        return default
    return _settings_of(group, values)


def _settings_of(group: str, values: Mapping[Any, Any]) -> Any:
    target = str(values["_target_"])
    for schema in OPTIONS.get(group, ()):
        if schema()._target_ == target:
            return schema()
    try:
        call = locate(target, group)
        parameters = _parameters(call)
    except ConfigError:
        return None  # binding says so
    if "settings" in parameters:  # a user's own class that extends one of ours, and takes what that takes
        method = call.__init__ if inspect.isclass(call) else call
        wanted: Any = get_type_hints(method).get("settings")
        if wanted in OPTIONS.get(group, ()):
            return replace(wanted(), _target_=target)
    return own_judge(target, call, values) if group == "judge" else None


def bind(default: Any, values: Mapping[Any, Any], path: str, notes: Notes, choose: str = "") -> Any:
    """An object like ``default`` (a dataclass object) with ``values`` in it. ``choose``: how a command line chooses the
    section's option, such as ``backbone@orm.backbone``."""
    hints = get_type_hints(type(default))
    settings = {f.name: f for f in fields(default)}
    for key in values:
        if key not in settings:
            known = (*notes.known, *(f"{path}{name}" for name in settings if name != "_target_"))  # of an own class too
            _note_unknown(path, key, values[key], choose, known, notes)
    bound = {
        name: _bind_field(f, hints[name], getattr(default, name), values[name], f"{path}{name}", notes)
        for name, f in settings.items()
        if name in values
    }
    return type(default)(**{**{name: getattr(default, name) for name in settings}, **bound})


def _note_unknown(path: str, key: str, value: Any, choose: str, known: Sequence[str], notes: Notes) -> None:
    """Says for a key, or for each below it, which options have it, where others of the group do; else what is near."""
    owners = [s for s in OPTIONS.get(choose.partition("@")[0], ()) if key in {f.name for f in fields(s)}]
    options = [option for schema in owners if (option := option_of(schema))]
    one_of = "one of " if len(options) > 1 else ""
    belongs = f": the chosen {path[:-1]} has no such setting; it belongs to {choose}={one_of}{', '.join(options)}"
    for name in _leaves(f"{path}{key}", value):
        if not options and (elsewhere := sentence_for(name)):
            notes.problems[name] = f"{name}: {elsewhere}"
            continue
        notes.problems[name] = name + (belongs if options else f": no such setting{did_you_mean(name, known)}")
        notes.meant.add(nearest(name, known) or name)


def _leaves(path: str, value: Any) -> list[str]:
    if not isinstance(value, Mapping) or not value:
        return [path]
    return [leaf for key, inner in value.items() for leaf in _leaves(f"{path}.{key}", inner)]


def _bind_field(f: Field[Any], hint: Any, default: Any, value: Any, path: str, notes: Notes) -> Any:
    if f.name in NAMED or f.name in PARTS:
        return _bind_named(PARTS.get(f.name, f.name), value, path, notes)
    # ``distill.judge`` may be a section as ``judge`` is
    holds_option = f.name in OPTIONS and isinstance(value, Mapping) and "_target_" in value
    if (is_option(f.name, default) and (value, default) != (None, None)) or holds_option:
        return bind_option(f.name, default, value, path, notes)
    if is_dataclass(default):
        if isinstance(value, Mapping):
            return bind(default, value, f"{path}.", notes)
        notes.problems[path] = f"{path} = {show(value)}: {not_a_group(path, notes.known)}"
        return default
    problem, converted = _convert(value, hint)
    problem = problem or _out_of_range(converted, f.metadata)
    if problem:
        choices = _choices(hint)
        wrong = next((v for v in value if v not in choices), value) if isinstance(value, (list, tuple)) else value
        notes.problems[path] = f"{path} = {show(value)}: {problem}{did_you_mean(str(wrong), choices)}"
        return default
    return converted


def bind_option(group: str, default: Any, value: Any, path: str, notes: Notes) -> Any:
    """A section with a ``_target_``: one of our options, or a class of the user's own (then a plain dict)."""
    choices = ", ".join(available(group))
    choose = group if path == group else f"{group}@{path}"  # as on Hydra's command line
    if not isinstance(value, Mapping):
        notes.problems[path] = f"{path} = {show(value)}: must be a group of settings; choose {choose}=one of {choices}"
        return default
    schema = prototype(group, default, value)
    if schema is not None:
        return bind(schema, value, f"{path}.", notes, choose)
    if "_target_" not in value:
        for key in value:
            _note_unknown(f"{path}.", key, value[key], choose, notes.known, notes)
        return default
    return _bind_own(group, value, path, notes) or default


def _bind_named(group: str, value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Callbacks, benchmarks or a mixture's sources by name; an entry that is null is switched off."""
    plural = {"benchmark": "benchmarks", "data": "sources", "logger": "loggers"}.get(group, group.replace("_", " "))
    if not isinstance(value, Mapping):
        notes.problems[path] = f"{path} = {show(value)}: must be a group of {plural} by name, each with a _target_"
        return {}
    bound: dict[str, Any] = {}
    for name, entry in value.items():
        if entry is None:
            continue
        if group == "benchmark" and name in available(group) and isinstance(entry, Mapping) and "_target_" not in entry:
            chosen = f"{name} is not among the benchmarks chosen; pass benchmark={name}, or benchmark=[{name},...]"
            notes.problems.update({f"{path}.{name}.{key}": f"{path}.{name}.{key}: {chosen}" for key in entry})
        elif not isinstance(entry, Mapping) or "_target_" not in entry:
            example = OPTIONS[group][0]()._target_ if group in OPTIONS else "my_package.MyCallback"
            must = f"must have a _target_, a class such as {example}"
            notes.problems[f"{path}.{name}"] = f"{path}.{name} = {show(entry)}: {must}"
        elif (schema := _settings_of(group, entry)) is not None:
            choose = f"{group}@{path}.{name}" if group not in NAMED else ""
            bound[name] = bind(schema, entry, f"{path}.{name}.", notes, choose)
        else:
            beside = ROWS if group == "benchmark" else ()
            bound[name] = _bind_own(group, entry, f"{path}.{name}", notes, beside)
    return bound


def _bind_own(
    group: str, values: Mapping[Any, Any], path: str, notes: Notes, beside: Sequence[str] = ()
) -> dict[str, Any] | None:
    """The section of a class that is not ours: its signature is the schema, with the names ``beside`` it. None if it
    cannot be imported."""
    try:
        parameters = _parameters(locate(values["_target_"], group))
    except ConfigError as e:
        notes.problems[f"{path}._target_"] = f"{path}._target_ = {show(values['_target_'])}: {e}"
        return None
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names += beside
        for key in set(values) - {"_target_", *names}:
            takes = f"{values['_target_']} takes {', '.join(names) or 'no arguments'}"
            notes.problems[f"{path}.{key}"] = f"{path}.{key}: no such setting; {takes}{did_you_mean(str(key), names)}"
    return {str(key): value for key, value in values.items()}


def _parameters(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Raises ConfigError for what does not tell its parameters, as ``builtins.type``: nothing could be checked."""
    try:
        return inspect.signature(call).parameters
    except (ValueError, TypeError) as e:
        raise ConfigError("has no signature to check settings by; name a class or function written in Python") from e


def locate(target: Any, group: str | None = None) -> Callable[..., Any]:
    """The class or function at a dotted path that a section of ``group`` names (None: of none). Raises ConfigError if
    there is none, or if it is not to be imported."""
    if (reason := why_not_imported(str(target), group)) is not None:
        raise ConfigError(reason)
    module, _, name = str(target).rpartition(".")
    try:
        target_class = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as e:  # the last of ".." and the like
        raise ConfigError(f"cannot be imported ({e}); it is the dotted path of a class on the Python path") from e
    if not callable(target_class):
        raise ConfigError("is neither a class nor a function")
    return target_class


def _convert(value: Any, kind: Any) -> tuple[str | None, Any]:
    """(None, the value as ``kind``), or (what is expected instead, value)."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None, None
        tried = [_convert(value, inner) for inner in arguments if inner is not NoneType]
        if (fitting := next((pair for pair in tried if pair[0] is None), None)) is not None:
            return fitting
        return " or ".join(
            [*(str(problem) for problem, _ in tried), *(["null"] if NoneType in arguments else [])]
        ), value
    if origin is list:
        items = [_convert(v, arguments[0]) for v in value] if isinstance(value, (list, tuple)) else [("", None)]
        if any(problem is not None for problem, _ in items):
            choices = _choices(arguments[0])
            item = f"one of {', '.join(choices)}" if choices else WORDS[arguments[0]]
            return f"must be a list, each item {item}, such as [{','.join(choices[:2] or ('a', 'b'))}]", value
        return None, [converted for _, converted in items]
    if origin is Literal:
        spelt = value if value in arguments else same_but_spelling(str(value), arguments)
        return (f"must be one of {', '.join(arguments)}", value) if spelt is None else (None, spelt)
    return _convert_scalar(value, kind)


def _choices(kind: Any) -> tuple[str, ...]:
    """The words of a ``Literal``, or of one that may be null."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((choices for inner in get_args(kind) if (choices := _choices(inner))), ())


def _convert_scalar(value: Any, kind: Any) -> tuple[str | None, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number", value
    if number and kind in (int, float) and abs(value) > LARGEST:
        return f"must be {WORDS[kind]} below 2^63", value
    if kind not in WORDS or type(value) is kind:
        return None, value
    if kind is float and number:
        return None, float(value)
    if kind is int and number and float(value).is_integer():
        return None, int(value)
    if kind is str and number:  # name=2025
        return None, str(value)
    return f"must be {WORDS[kind]}", value


def _out_of_range(value: Any, rule: Mapping[str, Any]) -> str | None:
    """What ``allow`` allows, if the value is outside it."""
    if not rule or not isinstance(value, (int, float)):  # null, or a word beside the numbers
        return None
    low, high, above = rule["low"], rule["high"], rule["above"]
    if (low is None or value >= low) and (above is None or value > above) and (high is None or value <= high):
        return None
    bounds = [(">=", low), (">", above), ("<=", high)]
    return "must be " + " and ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)


def show(value: Any) -> str:
    """A value as it stands on a command line: null, true, 'text', 3; a very long one is cut."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


def plain(value: Any) -> Any:
    """Dataclass objects as dicts, all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, (list, tuple)) else value
