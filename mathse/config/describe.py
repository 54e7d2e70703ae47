"""What each setting is and may be, a line each, for --help and for the page of all settings.

What a setting is stands where it is declared, as the comment beside its field; what it may be, its type and its
``allow`` say. Both are read here, so no second list can go out of date. Loads no torch.
"""

from __future__ import annotations

import ast
import io
import shutil
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mathse.config.bind import show

NAMES_WIDTH = 44  # columns of KEY=VALUE; a longer one has a line of its own
UNBOUNDED = 10_000  # columns where no terminal bounds them: one line a setting, to be searched with grep


def comments(schema: type) -> dict[str, str]:
    """Field -> its comment: beside it, and on lines of its own right above it."""
    notes: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        notes |= _comments_in(cls.__module__).get(cls.__name__, {}) if is_dataclass(cls) else {}
    return notes


def allowed(schema: type, f: Field[Any]) -> str:
    """What a field may be besides its default: ``full | lora | qlora``, ``>= 0 or null``; "" where its type alone says
    it."""
    kind = _hints(schema)[f.name]
    optional = get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)
    if optional:
        kind = next(inner for inner in get_args(kind) if inner is not NoneType)
    if get_origin(kind) is Literal:
        return " | ".join([*get_args(kind), *(["null"] if optional else [])])
    if kind is bool:
        return "true | false | null" if optional else "true | false"
    bounds = [(">=", f.metadata.get("low")), (">", f.metadata.get("above")), ("<=", f.metadata.get("high"))]
    text = " and ".join(f"{sign} {value:g}" for sign, value in bounds if value is not None)
    return f"{text} or null" if text and optional else text


def settings_lines(config: Any, values: Mapping[str, Any]) -> str:
    """Each setting of a bound config as ``  KEY=VALUE    what it may be: what it is``, a blank line between groups.

    ``values``: dotted key -> value as it was composed, interpolations kept; a key that is absent there has its
    default.
    """
    width = shutil.get_terminal_size((UNBOUNDED, 0)).columns
    lines: list[str] = []
    group = ""
    for path, text in _described(config):
        below = path.partition(".")[0] if "." in path else ""
        if below != group:
            lines.append("")
            group = below
        head = f"  {path}={_written(values[path])}" if path in values else f"  {path}"
        if len(head) > NAMES_WIDTH and text:
            lines.append(head)
            head = ""
        for part in textwrap.wrap(text, max(20, width - NAMES_WIDTH - 2)) or [""]:
            lines.append(f"{head:<{NAMES_WIDTH}}  {part}".rstrip())
            head = ""
    return "\n".join(lines)


def _described(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key path, what it may be and is) of all settings below a section, the user's own classes' included."""
    if isinstance(section, Mapping):
        for key, value in section.items():
            yield from _described(value, f"{prefix}{key}.") if _is_section(value) else [(f"{prefix}{key}", "")]
        return
    notes = comments(type(section))
    named = [f for f in fields(section) if f.name != "_target_" or len(fields(section)) == 1]
    for f in named:
        value = getattr(section, f.name)
        if _is_section(value):
            yield from _described(value, f"{prefix}{f.name}.")
        else:
            bounds = allowed(type(section), f)
            yield f"{prefix}{f.name}", " ".join([*([f"({bounds})"] if bounds else []), notes.get(f.name, "")]).strip()


def _is_section(value: Any) -> bool:
    return is_dataclass(value) or (isinstance(value, Mapping) and len(value) > 0)


def _written(value: Any) -> str:
    """As a command line has it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_written, value))}]"
    return value if isinstance(value, str) and value else str(value) if isinstance(value, float) else show(value)


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


@cache
def _comments_in(module: str) -> dict[str, dict[str, str]]:
    """Class -> field -> comment, of all classes of a module; nothing where its source is not here."""
    file = getattr(import_module(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return {}
    source = Path(file).read_text(encoding="utf-8")
    beside: dict[int, str] = {}  # line -> comment
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not (text := token.string.lstrip("# ")).startswith(("type:", "noqa")):
            (alone if token.line.lstrip().startswith("#") else beside)[token.start[0]] = text
    notes: dict[str, dict[str, str]] = {}
    for cls in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)):
        for node in cls.body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            first, last = node.lineno, node.end_lineno or node.lineno
            while first - 1 in alone:
                first -= 1
            parts = [alone[line] for line in range(first, node.lineno)]
            parts += [beside[line] for line in range(node.lineno, last + 1) if line in beside]
            if parts:
                notes.setdefault(cls.name, {})[node.target.id] = " ".join(parts)
    return notes
