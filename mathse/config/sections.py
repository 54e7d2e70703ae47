"""The sections of a config: their settings classes, all key paths, and the values of settings that nobody sets."""

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
    """Find the settings class of a section by its ``_target_``.

    It is the class of an option of the group. A user's class that extends the class of an option has the same settings.
    For any other judge of the user, the settings class is made from the judge's signature. None: any other class.
    """
    target = str(values["_target_"])
    for schema in OPTIONS.get(group, ()):
        if schema._target_ == target:
            return schema
    try:
        call = locate(target, group)
        parameters = read_parameters(call)
    except ConfigError:
        return None  # _check_own_section reports it
    if "settings" in parameters:  # a user's class that extends the class of an option
        method = call.__init__ if inspect.isclass(call) else call
        wanted: Any = get_type_hints(method).get("settings")
        if wanted in OPTIONS.get(group, ()):
            return cast("type[Any]", wanted)
    return make_own_judge(target, call, values) if group == "judge" else None


def collect_defaults(schema: type) -> dict[str, Any]:
    """Return the values of settings that nobody sets, as plain values.

    A field that follows another setting has the interpolation ``${...}``.
    """
    return {name: _collect_default(f) for name, f in settings_of(schema).items()}


def _collect_default(f: FieldInfo) -> Any:
    followed = marks(f).get("follows", {})
    if isinstance(followed, str):
        return followed
    factory: Any = f.default_factory
    if factory is None:
        return to_plain(f.default)
    if isinstance(factory, type) and issubclass(factory, Section):
        value: Any = collect_defaults(factory)  # not of an object: its fields may follow other settings too
    else:
        value = to_plain(factory())
    for below, other in followed.items():
        *parents, name = below.split(".")
        holder = value
        for parent in parents:
            holder = holder[parent]
        holder[name] = other
    return value


def complete(schema: type, values: Mapping[Any, Any], base: Mapping[str, Any] | None = None) -> dict[Any, Any]:
    """Complete a section with defaults, as plain values with interpolations.

    Args:
        schema: the settings class of the section.
        values: the section. Unknown keys stay, for the strict reading to report.
        base: the defaults. None: the defaults of the class.
    """
    base = collect_defaults(schema) if base is None else base
    full = dict(values)
    for name, f in settings_of(schema).items():
        full[name] = _complete_field(f, full[name], base[name]) if name in full else base[name]
    return full


def _complete_field(f: FieldInfo, value: Any, base: Any) -> Any:
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
    """List every key path below a settings class in order, groups and the settings of all their options included."""
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
    """The context of pydantic's validation: it reads the sections that are options of groups."""

    def option(self, group: str, value: Any) -> Any:
        """Return the settings object of a section, or a dict if it is a class of the user."""
        if not isinstance(value, Mapping):
            raise PydanticCustomError("no_option", "must be a group of settings", {"group": group})
        if "_target_" not in value:
            _refuse([("unexpected_keyword_argument", str(key), inner) for key, inner in value.items()])
            return None
        schema = find_schema(group, value)
        if schema is None:
            return _check_own_section(group, value)
        return schema.__pydantic_validator__.validate_python(dict(value), context=self)

    def named_option(self, group: str, value: Any) -> Any:
        """Return the same for a section among several with names."""
        if not isinstance(value, Mapping) or "_target_" not in value:
            raise PydanticCustomError("no_target", "must have a _target_", {"group": group})
        return self.option(group, value)


def _check_own_section(group: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Check the section of a user's class against its signature. A benchmark's section also has the source of its rows.

    Raises ValidationError.
    """
    target = values["_target_"]
    try:
        parameters = read_parameters(locate(target, group))
    except ConfigError as e:
        _refuse([(PydanticCustomError("not_importable", "{reason}", {"reason": str(e)}), "_target_", target)])
        return {}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names += ROWS if group == "benchmark" else ()
        mistakes: list[tuple[str | PydanticCustomError, str, Any]] = []
        for key in values:
            if key not in ("_target_", *names):
                takes = f"no such setting; {target} takes {', '.join(names) or 'no arguments'}"
                reason = {"reason": takes + suggest_name(str(key), names)}
                mistakes.append((PydanticCustomError("not_taken", "{reason}", reason), str(key), values[key]))
        _refuse(mistakes)
    return {str(key): value for key, value in values.items()}


def _refuse(mistakes: Sequence[tuple[str | PydanticCustomError, str, Any]]) -> None:
    """Raise a ValidationError with (type, key, value) of each mistake, which pydantic adds to its own mistakes."""
    details: list[InitErrorDetails] = [{"type": kind, "loc": (key,), "input": value} for kind, key, value in mistakes]
    if details:
        raise ValidationError.from_exception_data("section", details)


def to_plain(value: Any) -> Any:
    """Turn settings objects into dicts, at any depth."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, (list, tuple)) else value
