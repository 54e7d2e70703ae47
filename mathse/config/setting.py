"""How a settings class says, beside each field and nowhere else, what its value is and may be.

    @dataclass(config=SETTINGS)
    class OptimizerConfig(Section):
        lr: float = Field(2e-3, gt=0, description="Highest learning rate, after the warm-up.")

``dataclass`` and ``Field`` are pydantic's: the type and the bounds say which values are allowed, the description is the
setting's line in ``--help`` and on the page of all settings. MathSE adds three marks: ``json_schema_extra=NO_IDENTITY``
for a value that changes no result, ``json_schema_extra=follows("seed")`` for a default that a config takes from another
setting, and ``Option("data")`` for a section that is one option of a group.
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

# A wrong value of a setting may be a key that was put into the wrong place, so pydantic's own text leaves values out.
# Classes build their validators when they are first used: a start uses few of them.
SETTINGS = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True, defer_build=True)
NO_IDENTITY: dict[str, Any] = {"identity": False}
LARGEST = 2**63 - 1  # of a number: 64 bits hold it


def follows(setting: str | Mapping[str, str]) -> dict[str, Any]:
    """The mark of a field that a config takes from another setting (``${setting}``) where it is not set itself; of a
    section, by key below it. An object that is made in Python belongs to no config and has the field's default."""
    if isinstance(setting, str):
        return {"follows": f"${{{setting}}}"}
    return {"follows": {below: f"${{{other}}}" for below, other in setting.items()}}


class Section:
    """The base of every settings class."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A mapping is taken for a section too, though single values are not converted; numbers fit into 64 bits."""
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
            schema.setdefault("le", LARGEST)
            schema.setdefault("ge", -LARGEST)
        for inner in schema.values():
            _bound_numbers(inner)


@plain_dataclass(frozen=True)
class Option:
    """The mark of a field that holds one option of a group: a section with a ``_target_``. ``or_name``: the field may
    hold an option's name instead. Outside of a config that is read, the field takes any object."""

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
    """The mark of a field that holds several options of a group by name; an entry that is null is switched off."""

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
    """Name -> field of a settings class, or of the class of a settings object, in order."""
    fields: dict[str, FieldInfo] = section.__pydantic_fields__
    return fields


def section_of(f: FieldInfo) -> type | None:
    """The settings class of a field that holds a section of one class."""
    return f.annotation if isinstance(f.annotation, type) and is_dataclass(f.annotation) else None


def option_of_field(f: FieldInfo) -> Option | Options | None:
    """The mark of a field that holds an option, or several, of a group; the type may add ``| None``."""
    return next((mark for mark in _metadata(f) if isinstance(mark, (Option, Options))), None)


def _metadata(f: FieldInfo) -> list[Any]:
    """The marks and bounds of a field, with those of the types in a union."""
    found = list(f.metadata)
    for kind in get_args(f.annotation):
        for inner in getattr(kind, "__metadata__", ()):
            found += inner.metadata if isinstance(inner, FieldInfo) else [inner]
    return found


def marks(f: FieldInfo) -> Mapping[str, Any]:
    """What ``json_schema_extra`` says of a field."""
    return f.json_schema_extra if isinstance(f.json_schema_extra, Mapping) else {}


def identity_settings(schema: type) -> tuple[str, ...]:
    """The settings of a class that decide what a stage makes."""
    return tuple(name for name, f in settings_of(schema).items() if marks(f).get("identity", True))


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """The types of which a value may be: those of a union, else the one."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The words of a ``Literal``, alone, in a union or in a list."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    inside = (choices_of(kind) for kind in get_args(annotation))
    return next((choices for choices in inside if choices), ())


def bounds_of(f: FieldInfo) -> str:
    """``>= 0 and <= 1``; "" where a field has no bounds."""
    bounds = []
    for rule in _metadata(f):
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<=")):
            if hasattr(rule, name):
                bounds.append(f"{sign} {getattr(rule, name):g}")
    return " and ".join(bounds)


def describe_allowed(f: FieldInfo) -> str:
    """The allowed values of a field: ``full | lora | qlora``, ``>= 0 or null``; "" where its type says all."""
    kinds = kinds_of(f.annotation)
    words = [str(word) for word in choices_of(f.annotation) if get_origin(f.annotation) is not list]
    words += ["true", "false"] if bool in kinds else []
    optional = ["null"] if NoneType in kinds else []
    bounds = bounds_of(f)
    if words:
        return " | ".join([*words, *([bounds] if bounds else []), *optional])
    return " or ".join([bounds, *optional]) if bounds else ""
