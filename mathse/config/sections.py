"""The sections of a config: the class of each, the key paths that there are, and the values where nothing is set."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, cast, get_type_hints

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from mathse.config.evaluation import ROWS
from mathse.config.field_words import suggest_name
from mathse.config.judges import make_own_judge
from mathse.config.options import find_option
from mathse.config.schema import OPTIONS
from mathse.config.setting import Option, Options, Section, marks, option_of_field, section_of, settings_of
from mathse.config.trust import locate, read_parameters
from mathse.errors import ConfigError


def find_schema(group: str, values: Mapping[Any, Any]) -> type[Any] | None:
    """The settings class of a section that names its ``_target_``: an option of the group; for a judge of the user's
    own, a class made of its signature; None for any other class of the user's own."""
    target = str(values["_target_"])
    for schema in OPTIONS.get(group, ()):
        if schema._target_ == target:
            return schema
    try:
        call = locate(target, group)
        parameters = read_parameters(call)
    except ConfigError:
        return None  # reading the section says so
    if "settings" in parameters:  # a class that extends one of ours, and takes its settings
        method = call.__init__ if inspect.isclass(call) else call
        wanted: Any = get_type_hints(method).get("settings")
        if wanted in OPTIONS.get(group, ()):
            return cast("type[Any]", wanted)
    return make_own_judge(target, call, values) if group == "judge" else None


def collect_defaults(schema: type) -> dict[str, Any]:
    """The values that a config takes from a settings class where nothing is set: plain values, and ``${...}`` where a
    field follows another setting."""
    return {name: _default_of(f) for name, f in settings_of(schema).items()}


def _default_of(f: FieldInfo) -> Any:
    followed = marks(f).get("follows", {})
    if isinstance(followed, str):
        return followed
    factory: Any = f.default_factory
    if factory is None:
        return to_plain(f.default)
    value = (
        collect_defaults(factory) if isinstance(factory, type) and issubclass(factory, Section) else to_plain(factory())
    )
    for below, other in followed.items():
        *parents, name = below.split(".")
        holder = value
        for parent in parents:
            holder = holder[parent]
        holder[name] = other
    return value


def complete(schema: type, values: Mapping[Any, Any], base: Mapping[str, Any] | None = None) -> dict[Any, Any]:
    """``values`` over the defaults (``base``; None: those of the class), as plain values, interpolations kept. Unknown
    keys stay, for reading to complain of."""
    base = collect_defaults(schema) if base is None else base
    full = dict(values)
    for name, f in settings_of(schema).items():
        full[name] = _completed(f, full[name], base[name]) if name in full else base[name]
    return full


def _completed(f: FieldInfo, value: Any, base: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    schema = section_of(f)
    if isinstance(mark := option_of_field(f), Option):
        if "_target_" in value:
            schema, base = find_schema(mark.group, value), None
        elif isinstance(base, Mapping):
            schema = find_schema(mark.group, base)
    return dict(value) if schema is None else complete(schema, value, base)


def list_key_paths(schema: type, prefix: str = "") -> list[str]:
    """Every key path below a settings class, groups included, in order; all options of a group count."""
    paths = []
    for name, f in settings_of(schema).items():
        path, mark, section = f"{prefix}{name}", option_of_field(f), section_of(f)
        below = [] if section is None else [(path, section)]
        if isinstance(mark, Option) and not mark.or_name:
            below = [(path, option) for option in OPTIONS[mark.group]]
        elif isinstance(mark, Options) and mark.group == "benchmark":
            below = [(f"{path}.{find_option(option)}", option) for option in OPTIONS[mark.group]]
        paths.append(path)
        for at, part in below:
            paths += [p for p in list_key_paths(part, f"{at}.") if p not in paths]
    return paths


class Reading:
    """The context in which pydantic reads a config: it asks for each section that an option fills."""

    def option(self, group: str, value: Any) -> Any:
        """The settings object of a section; a dict of one whose class is the user's own."""
        if not isinstance(value, Mapping):
            raise PydanticCustomError("no_option", "must be a group of settings", {"group": group})
        if "_target_" not in value:
            _refuse([("unexpected_keyword_argument", str(key), inner) for key, inner in value.items()])
            return None
        schema = find_schema(group, value)
        if schema is None:
            return _own_section(group, value)
        return schema.__pydantic_validator__.validate_python(dict(value), context=self)

    def named_option(self, group: str, value: Any) -> Any:
        """The same of a section among several with names."""
        if not isinstance(value, Mapping) or "_target_" not in value:
            raise PydanticCustomError("no_target", "must have a _target_", {"group": group})
        return self.option(group, value)


def _own_section(group: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """The section of a class that is not ours: its signature is the schema. A benchmark's section also says where its
    rows are."""
    target = values["_target_"]
    try:
        parameters = read_parameters(locate(target, group))
    except ConfigError as e:
        _refuse([(PydanticCustomError("not_importable", "{reason}", {"reason": str(e)}), "_target_", target)])
        return {}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names += ROWS if group == "benchmark" else ()
        takes = f"no such setting; {target} takes {', '.join(names) or 'no arguments'}"
        _refuse(
            [
                (
                    PydanticCustomError("not_taken", "{reason}", {"reason": takes + suggest_name(str(key), names)}),
                    str(key),
                    values[key],
                )
                for key in values
                if key not in ("_target_", *names)
            ]
        )
    return {str(key): value for key, value in values.items()}


def _refuse(mistakes: Sequence[tuple[str | PydanticCustomError, str, Any]]) -> None:
    """Raises a ValidationError with (type, key, value) of each mistake, which pydantic adds to those of the config."""
    details: list[InitErrorDetails] = [{"type": kind, "loc": (key,), "input": value} for kind, key, value in mistakes]
    if details:
        raise ValidationError.from_exception_data("section", details)


def to_plain(value: Any) -> Any:
    """Settings objects as dicts, all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, (list, tuple)) else value
