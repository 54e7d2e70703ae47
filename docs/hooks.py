"""Pages of the documentation that are written from the code when the site is built: all settings, and all commands.

A list of settings that is kept by hand is out of date after the next commit; this one reads the dataclasses of
``mathse.config``, their defaults, what each value may be, and the comments beside them.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from mathse.__main__ import VERBS
from mathse.config.options import CONF, available
from mathse.config.schema import NAMED, OPTIONS, EvaluateConfig, TrainConfig

SETTINGS = "reference/settings.md"
COMMANDS = "reference/commands.md"


def on_files(files: Any, config: Any) -> Any:
    """mkdocs calls this once all files of docs/ are known."""
    from mkdocs.structure.files import File

    for path, text in ((SETTINGS, settings_page()), (COMMANDS, commands_page())):
        files.append(File.generated(config, path, content=text))
    return files


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    parts = [
        "# Settings",
        "Every setting is `KEY=VALUE` on the command line, and every group is `GROUP=OPTION`. An option brings "
        "settings of its own. This page is made from `mathse/config`; `mathse train --cfg job` shows what a command "
        "line composes.",
        "## mathse train",
        *_section(TrainConfig, ""),
        "## mathse evaluate",
        "Groups that `mathse train` has too are described there.",
        *_section(EvaluateConfig, "", described={f.name for f in fields(TrainConfig)}),
    ]
    return "\n\n".join(parts) + "\n"


def _section(
    schema: type, prefix: str, described: Container[str] = (), leave_out: Container[str] = ()
) -> Iterator[str]:
    """The table of a dataclass's own settings, then a section for each group of settings below it."""
    rows = [f for f in fields(schema) if f.name != "_target_" and f.name not in leave_out and not _below(f, prefix)]
    if rows:
        yield _table(rows, comments(schema), prefix)
    for f in fields(schema):
        below = [] if f.name in described and not prefix else _below(f, prefix)
        shared = _shared([part for _, part in below])
        path = f"{prefix}{f.name}{'.NAME' if f.name in NAMED else ''}."
        if shared:
            yield f"### `{f.name}`: settings of every option"
            yield _table([x for x in fields(below[0][1]) if x.name in shared], comments(below[0][1]), path)
        for option, part in below:
            yield f"### `{prefix}{f.name}`" if option is None else f"### `{f.name}={option}`"
            about = inspect.cleandoc(part.__doc__ or "").split("\n\n")[0]
            if about and not about.startswith(f"{part.__name__}("):  # a dataclass without a docstring writes its own
                yield about
            yield from _section(part, path, leave_out=shared)


def _table(rows: Sequence[Field[Any]], notes: Mapping[str, str], prefix: str) -> str:
    lines = ["| setting | default | allowed | |", "|---|---|---|---|"]
    lines += [f"| `{prefix}{f.name}` | {_default(f)} | {_allowed(f)} | {_cell(notes.get(f.name, ''))} |" for f in rows]
    return "\n".join(lines)


def _shared(schemas: Sequence[type]) -> frozenset[str]:
    """The settings that all options of a group have, with one default, where that spares a page of repetition."""
    if len(schemas) < 2:
        return frozenset()
    alike = ({(f.name, str(f.default), str(f.metadata)) for f in fields(schema)} for schema in schemas)
    names = frozenset(name for name, *_ in set.intersection(*alike)) - {"_target_"}
    return names if len(names) > 3 else frozenset()


def _below(f: Field[Any], prefix: str) -> list[tuple[str | None, type]]:
    """(option, schema) of each dataclass that a field may hold; option None where there is no choice."""
    if f.name in OPTIONS and not prefix:
        schemas = [schema for schema in OPTIONS[f.name] if len(fields(schema)) > 1]  # with more than its _target_
        return [(" | ".join(options_of(f.name, schema)), schema) for schema in schemas]
    default = f.default_factory() if f.default_factory is not MISSING else f.default
    return [(None, type(default))] if is_dataclass(default) else []


def options_of(group: str, schema: type) -> list[str]:
    """The options of ``group`` that stand on this schema: all public sets on ``PublicData``."""
    head = re.compile(rf"^defaults: \[{schema.__name__}\b", re.MULTILINE)
    texts = {name: (CONF / group / f"{name}.yaml").read_text(encoding="utf-8") for name in available(group)}
    return [name for name, text in texts.items() if head.search(text)]


def _default(f: Field[Any]) -> str:
    value = f.default_factory() if f.default_factory is not MISSING else f.default
    if value is None:
        return "null"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else '`""`'


def _allowed(f: Field[Any]) -> str:
    rule = f.metadata
    if rule.get("choices"):
        return ", ".join(f"`{c}`" for c in rule["choices"])
    bounds = [("≥", rule.get("low")), ("≤", rule.get("high")), (">", rule.get("above"))]
    return ", ".join(f"{sign} {value:g}" for sign, value in bounds if value is not None)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def comments(schema: type) -> dict[str, str]:
    """What stands beside a dataclass's fields as comments; those on lines of their own belong to the field before."""
    notes: dict[str, str] = {}
    for cls in reversed(schema.__mro__[:-1]):
        source = textwrap.dedent(inspect.getsource(cls))
        lines = {
            node.lineno: node.target.id
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        name: str | None = None
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            name = lines.get(token.start[0], name)
            if token.type == tokenize.COMMENT and name is not None:
                text = token.string.lstrip("# ")
                if not text.startswith("type:"):
                    notes[name] = f"{notes[name]} {text}" if name in notes and token.start[0] not in lines else text
    return notes


# --- commands ---------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    lines = [
        "# Commands",
        "Each verb of `mathse` has a `--help` of its own. `train` and `evaluate` take [settings](settings.md) and "
        "groups; in a checkout they are `python train.py` and `python evaluate.py` too.",
        "\n".join(["| verb | |", "|---|---|", *(f"| `{verb}` | {_cell(text)} |" for verb, (_, text) in VERBS.items())]),
        "## Options of each group",
        "\n".join(["| group | options |", "|---|---|", *(_options(group) for group in OPTIONS)]),
    ]
    return "\n\n".join(lines) + "\n"


def _options(group: str) -> str:
    return f"| `{group}` | {', '.join(f'`{name}`' for name in available(group))} |"
