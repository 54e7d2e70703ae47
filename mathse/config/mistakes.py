"""Turn pydantic's errors into sentences: key path, value, allowed values, nearest name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mathse.config.field_words import explain_foreign_name, find_nearest, match_spelling, suggest_name
from mathse.config.options import find_option, list_options
from mathse.config.schema import OPTIONS
from mathse.config.sections import find_schema
from mathse.config.setting import (
    MAX_NUMBER,
    Option,
    Options,
    bounds_of,
    choices_of,
    kinds_of,
    option_of_field,
    section_of,
    settings_of,
)

UNKNOWN_KEY = ("unexpected_keyword_argument", "invalid_key")  # types of pydantic's errors
MAX_SHOWN_CHARS = 500  # of a value in a sentence
TYPE_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
PLURALS = {"benchmark": "benchmarks", "data": "sources", "logger": "loggers"}


@dataclass(frozen=True)
class Place:
    """A position in a config: a setting or a section.

    ``schema``: the settings class of a section; None for the section of a user's class. ``path``: its key path.
    ``choose``: the key with which a command line chooses the section's option, such as ``backbone@orm.backbone``.
    ``field``: the field at ``path``. ``depth``: number of parts of pydantic's error location that lead here.
    """

    schema: type[Any] | None
    path: str = ""
    choose: str = ""
    field: FieldInfo | None = None
    depth: int = 0

    def below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


@dataclass(frozen=True)
class Notes:
    """The mistakes in a config.

    ``known``: all key paths. ``problems``: sentences by key path. ``meant``: the known keys that are nearest to unknown
    keys.
    """

    known: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)
    meant: set[str] = field(default_factory=set)


def note_mistakes(errors: Sequence[ErrorDetails], values: Any, start: Place, notes: Notes) -> None:
    """Add a sentence for each error to ``notes``. ``values``: the config with the errors; ``start``: its place."""
    for error in _sort_errors(errors):
        section, at = find_place(start, values, error["loc"])
        value, mark = _value(values, error["loc"][: at.depth]), option_of_field(at.field) if at.field else None
        kind, reason = error["type"], error.get("ctx", {})
        if kind in UNKNOWN_KEY:
            _note_unknown(section, str(error["loc"][at.depth - 1]), value, notes)
        elif kind == "no_option":
            choices = ", ".join(list_options(reason["group"]))
            must = f"must be a group of settings; choose {_choose(reason['group'], at.path)}=one of {choices}"
            notes.problems[at.path] = f"{at.path} = {show(value)}: {must}"
        elif kind == "dict_type" and isinstance(mark, Options):
            plural = PLURALS.get(mark.group, mark.group.replace("_", " "))
            must = f"must be a group of {plural} by name, each with a _target_"
            notes.problems[at.path] = f"{at.path} = {show(value)}: {must}"
        elif kind == "no_target":
            notes.problems.update(_explain_no_target(at.path, reason["group"], value))
        elif kind == "not_importable":
            notes.problems[at.path] = f"{at.path} = {show(value)}: {reason['reason']}"
        elif kind == "not_taken":
            notes.problems[at.path] = f"{at.path}: {reason['reason']}"
        elif kind == "dataclass_type":
            notes.problems[at.path] = f"{at.path} = {show(value)}: {explain_group(at.path, notes.known)}"
        elif at.path not in notes.problems and at.field is not None:
            # Each type of a union has its own error: they make one sentence.
            errors_of_field = [e for e in errors if e["loc"][: at.depth] == error["loc"][: at.depth]]
            words = choices_of(at.field.annotation)
            wrong = next((v for v in value if v not in words), value) if isinstance(value, list) else value
            must = _describe_must(at.field, errors_of_field)
            notes.problems[at.path] = f"{at.path} = {show(value)}: {must}{suggest_name(str(wrong), words)}"


def _sort_errors(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Sort errors in the order of the settings, the unknown keys of a section before its other mistakes."""
    first: dict[tuple[int | str, ...], int] = {}
    for number, error in enumerate(errors):
        for depth in range(1, len(error["loc"]) + 1):
            first.setdefault(error["loc"][:depth], number)

    def position(error: ErrorDetails) -> list[int]:
        places = [first[error["loc"][:depth]] for depth in range(1, len(error["loc"]) + 1)]
        return [*places[:-1], -1] if error["type"] in UNKNOWN_KEY else places

    return sorted(errors, key=position)


def find_place(start: Place, values: Any, loc: Sequence[int | str]) -> tuple[Place, Place]:
    """Follow an error's location to (the section, the setting or section in it).

    Args:
        start: the place of ``values``.
        values: the config with the error.
        loc: pydantic's location of the error. Behind the key of a setting it may have a type of a union.
    """
    section = at = start
    for depth, key in enumerate(loc, 1):
        mark = option_of_field(at.field) if at.field is not None else None
        if at.schema is None and not isinstance(mark, Options):
            if at.field is not None and mark is None:
                break  # the location continues inside a value
            return at, Place(None, at.below(str(key)), depth=depth)
        section = at
        if isinstance(mark, Options) and at.schema is None:
            f, path = None, at.below(str(key))
            option: tuple[str, str] | None = mark.group, "" if at.path == mark.group else f"{mark.group}@{path}"
        else:
            f, path = settings_of(at.schema).get(str(key)), at.below(str(key))
            mark = option_of_field(f) if f is not None else None
            option = (mark.group, _choose(mark.group, path)) if isinstance(mark, Option) else None
        value = _value(values, loc[:depth])
        schema, choose = section_of(f) if f is not None else None, ""
        if option is not None:
            choose = option[1]
            schema = find_schema(option[0], value) if isinstance(value, Mapping) and "_target_" in value else None
        at = Place(schema, path, choose, f, depth)
        if f is None and option is None:
            break  # an unknown key
    return section, at


def correct_value(error: ErrorDetails, values: Any, start: Place) -> bool:
    """Correct a value whose meaning is obvious, and return whether it did.

    2.0 becomes a whole number, 2025 a text, and a word that differs from a choice only in case and signs becomes this
    choice.
    """
    value = error["input"]
    meant: int | str | None = None
    finite = isinstance(value, float) and math.isfinite(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if error["type"] == "int_type" and finite and value.is_integer():
        meant = int(value)
    elif error["type"] == "string_type" and (finite or whole):
        meant = str(value)
    elif error["type"] == "literal_error":
        _, at = find_place(start, values, error["loc"])
        meant = match_spelling(str(value), choices_of(at.field.annotation)) if at.field else None
    if meant is None:
        return False
    holder = values
    for key in error["loc"]:
        if not isinstance(holder[key], (dict, list)):
            holder[key] = meant  # the rest of the location is a type of a union
            break
        holder = holder[key]
    return True


def explain_group(path: str, known: Sequence[str]) -> str | None:
    """Return the sentence on a plain value in the place of a group of settings, or None if ``path`` is no group."""
    inside = [n for n in known if n.startswith(f"{path}.") and "." not in n.removeprefix(f"{path}.")]
    if not inside:
        return None
    return f"is a group of settings ({', '.join(inside)}), not a value{suggest_name(path, known)}"


def show(value: Any) -> str:
    """Format a value as on a command line: null, true, 'text', 3. A very long value is cut."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}... ({len(text):,} characters)"


def _choose(group: str, path: str) -> str:
    return group if path == group else f"{group}@{path}"


def _value(values: Any, loc: Sequence[int | str]) -> Any:
    for key in loc:
        values = values[key]
    return values


def _describe_must(f: FieldInfo, errors: Sequence[ErrorDetails]) -> str:
    """Return the allowed values of a field as ``must be ...``, as the errors of its value need it."""
    optional = " or null" if NoneType in kinds_of(f.annotation) else ""
    numbers = [e["input"] for e in errors if isinstance(e["input"], (int, float)) and not isinstance(e["input"], bool)]
    if any(MAX_NUMBER < abs(number) < math.inf for number in numbers):
        return f"must be {TYPE_WORDS[int if int in kinds_of(f.annotation) else float]} below 2^63{optional}"
    if any(not {"ge", "gt", "le"}.isdisjoint(e.get("ctx", {})) for e in errors):
        return f"must be {bounds_of(f)}"
    if any(isinstance(e["input"], float) and not math.isfinite(e["input"]) for e in errors):
        return f"must be a finite number{optional}"
    return " or ".join(_describe_type(kind) for kind in kinds_of(f.annotation) if kind is not NoneType) + optional


def _describe_type(kind: Any) -> str:
    choices = choices_of(kind)
    if get_origin(kind) is list:
        item = f"one of {', '.join(choices)}" if choices else TYPE_WORDS[get_args(kind)[0]]
        return f"must be a list, each item {item}, such as [{','.join(choices[:2] or ('a', 'b'))}]"
    if get_origin(kind) is Literal:
        return f"must be one of {', '.join(choices)}"
    return f"must be {TYPE_WORDS[kind if kind in TYPE_WORDS else get_args(kind)[0]]}"


def _explain_no_target(path: str, group: str, entry: Any) -> Iterator[tuple[str, str]]:
    """Yield (key path, sentence) for an entry among several options that has no class."""
    name = path.rpartition(".")[2]
    if group == "benchmark" and name in list_options(group) and isinstance(entry, Mapping):
        chosen = f"{name} is not among the benchmarks chosen; pass benchmark={name}, or benchmark=[{name},...]"
        yield from ((f"{path}.{key}", f"{path}.{key}: {chosen}") for key in entry)
        return
    example = OPTIONS[group][0]._target_ if group in OPTIONS else "my_package.MyCallback"
    yield path, f"{path} = {show(entry)}: must have a _target_, a class such as {example}"


def _note_unknown(section: Place, key: str, value: Any, notes: Notes) -> None:
    """Add a sentence for each key at or below an unknown key: the options that have it, or else the nearest name."""
    names = () if section.schema is None else (name for name in settings_of(section.schema) if name != "_target_")
    known = (*notes.known, *(section.below(name) for name in names))  # with the settings of a user's judge
    owners = [s for s in OPTIONS.get(section.choose.partition("@")[0], ()) if key in settings_of(s)]
    options = [option for schema in owners if (option := find_option(schema))]
    one_of = "one of " if len(options) > 1 else ""
    belongs = f"it belongs to {section.choose}={one_of}{', '.join(options)}"
    for name in _list_leaves(section.below(key), value):
        if not options and (elsewhere := explain_foreign_name(name)):
            notes.problems[name] = f"{name}: {elsewhere}"
            continue
        no_such = f": the chosen {section.path} has no such setting; {belongs}"
        notes.problems[name] = name + (no_such if options else f": no such setting{suggest_name(name, known)}")
        notes.meant.add(find_nearest(name, known) or name)


def _list_leaves(path: str, value: Any) -> list[str]:
    """List the key paths of all settings at or below ``path``."""
    if not isinstance(value, Mapping) or not value:
        return [path]
    leaves: list[str] = []
    for key, inner in value.items():
        leaves += _list_leaves(f"{path}.{key}", inner)
    return leaves
