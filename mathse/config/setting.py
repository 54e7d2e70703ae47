"""The marks of a setting. Each field of a settings class has everything that is known about its value.

    @dataclass(config=SETTINGS)
    class OptimizerConfig(Section):
        lr: float = Field(2e-3, gt=0, description="Highest learning rate, after the warm-up.")

``dataclass`` and ``Field`` are pydantic's. The type and the bounds are the allowed values. The description is the
setting's text in ``--help`` and on the page of all settings. MathSE adds three marks: ``json_schema_extra=NO_IDENTITY``
for a value that changes no result, ``json_schema_extra=follows("seed")`` for a default that a config takes from another
setting, and ``Option("data")`` for a section that is an option of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

# hide_input_in_errors: a wrong value may be an API key in the wrong setting, so pydantic's own text has no values.
# defer_build: a start uses few of the classes, so each builds its validator at its first use.
SETTINGS = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True, defer_build=True)
NO_IDENTITY: dict[str, Any] = {"identity": False}
MAX_NUMBER = 2**63 - 1  # 64 bits hold it


def follows(setting: str | Mapping[str, str]) -> dict[str, Any]:
    """Mark a field whose default in a config is the value of another setting (``${setting}``).

    An object that is made in Python belongs to no config and has the default of the field.

    Args:
        setting: the other setting. For a section: the other settings by key path below the section.
    """
    if isinstance(setting, str):
        return {"follows": f"${{{setting}}}"}
    return {"follows": {below: f"${{{other}}}" for below, other in setting.items()}}


class Section:
    """The base of every settings class."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept a mapping as a section, although single values are not converted, and limit numbers to 64 bits."""
        schema: Any = handler(source)
        if schema["type"] == "dataclass":
            schema["strict"] = False
            _bound_numbers(schema)
        return cast(CoreSchema, schema)


def _bound_numbers(schema: Any) -> None:
    if isinstance(schema, list):
        for inner in schema:
            _bound_numbers(inner)
    elif isinstance(schema, dict):
        if schema.get("type") in ("int", "float"):
            schema.setdefault("le", MAX_NUMBER)
            schema.setdefault("ge", -MAX_NUMBER)
        for inner in schema.values():
            _bound_numbers(inner)


@plain_dataclass(frozen=True)
class Option:
    """Mark a field that holds an option of a group: a section with a ``_target_``.

    ``or_name``: the field may hold the name of an option instead. In an object that is made in Python, the field takes
    any value.
    """

    group: str
    or_name: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._read)

    def _read(self, value: Any, info: core_schema.ValidationInfo[Any]) -> Any:
        if info.context is None or (self.or_name and not (isinstance(value, Mapping) and "_target_" in value)):
            return value
        return info.context.option(self.group, value)


@plain_dataclass(frozen=True)
class Options:
    """Mark a field that holds several options of a group by name. A null switches an entry off."""

    group: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        entry = core_schema.with_info_plain_validator_function(self._read_entry)
        return core_schema.with_info_wrap_validator_function(self._read, core_schema.dict_schema(values_schema=entry))

    def _read(self, value: Any, read: Callable[[Any], Any], info: core_schema.ValidationInfo[Any]) -> Any:
        if info.context is None:
            return value
        return {name: entry for name, entry in read(value).items() if entry is not None}

    def _read_entry(self, value: Any, info: core_schema.ValidationInfo[Any]) -> Any:
        return None if value is None else info.context.named_option(self.group, value)


def settings_of(section: Any) -> dict[str, FieldInfo]:
    """Return the fields of a settings class or settings object by name, in order."""
    fields: dict[str, FieldInfo] = section.__pydantic_fields__
    return fields


def section_of(f: FieldInfo) -> type | None:
    """Return the settings class of a field that holds a section, or None."""
    return f.annotation if isinstance(f.annotation, type) and is_dataclass(f.annotation) else None


def option_of_field(f: FieldInfo) -> Option | Options | None:
    """Return the mark of a field that holds an option, or several options, of a group, or None."""
    return next((mark for mark in _metadata(f) if isinstance(mark, (Option, Options))), None)


def _metadata(f: FieldInfo) -> list[Any]:
    """List the marks and bounds of a field, and of each type in a union."""
    metadata = list(f.metadata)
    for kind in get_args(f.annotation):
        for inner in getattr(kind, "__metadata__", ()):
            metadata += inner.metadata if isinstance(inner, FieldInfo) else [inner]
    return metadata


def marks(f: FieldInfo) -> Mapping[str, Any]:
    """Return the ``json_schema_extra`` of a field: its marks ``identity`` and ``follows``."""
    return f.json_schema_extra if isinstance(f.json_schema_extra, Mapping) else {}


def identity_settings(schema: type) -> tuple[str, ...]:
    """Return the settings of a class that belong to the identity of stages."""
    return tuple(name for name, f in settings_of(schema).items() if marks(f).get("identity", True))


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a value may have: each type of a union."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def choices_of(annotation: Any) -> tuple[str, ...]:
    """Return the words of a ``Literal``, which may be in a union or in a list."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for kind in get_args(annotation):
        if choices := choices_of(kind):
            return choices
    return ()


def bounds_of(f: FieldInfo) -> str:
    """Return the bounds of a field, such as ``>= 0 and <= 1``, or "" if it has no bounds."""
    bounds = []
    for rule in _metadata(f):
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<=")):
            if hasattr(rule, name):
                bounds.append(f"{sign} {getattr(rule, name):g}")
    return " and ".join(bounds)


def describe_allowed(f: FieldInfo) -> str:
    """Return the allowed values of a field, such as ``full | lora | qlora`` or ``>= 0 or null``.

    "": the type of the field is the only limit.
    """
    kinds = kinds_of(f.annotation)
    words = [str(word) for word in choices_of(f.annotation) if get_origin(f.annotation) is not list]
    words += ["true", "false"] if bool in kinds else []
    optional = ["null"] if NoneType in kinds else []
    bounds = bounds_of(f)
    if words:
        return " | ".join([*words, *([bounds] if bounds else []), *optional])
    return " or ".join([bounds, *optional]) if bounds else ""
