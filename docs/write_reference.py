"""Writes the pages of the documentation that list all settings and all commands, docs/reference/: from the code.

    python docs/write_reference.py

A list that is kept by hand is out of date after the next commit; these are read from the dataclasses of
``mathse.config``, their defaults, what each value may be, and the comments beside them. ``make docs`` calls this, and a
test compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from mathse.commands.subcommands import SUBCOMMANDS  # noqa: E402  (the path first)
from mathse.config.describe import allowed, comments  # noqa: E402
from mathse.config.options import CONF, available  # noqa: E402
from mathse.config.schema import NAMED, OPTIONS, EvaluateConfig, TrainConfig  # noqa: E402

FOLDER = ROOT / "docs" / "reference"


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    parts = [
        "# Settings",
        "Every setting is `KEY=VALUE` on the command line, and every group is `GROUP=OPTION`. An option brings "
        "settings of its own. This page is made from `mathse/config`; adding `--cfg job` shows what a command "
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
        yield _table(schema, rows, prefix)
    for f in fields(schema):
        below = [] if f.name in described and not prefix else _below(f, prefix)
        shared = _shared([part for _, part in below])
        path = f"{prefix}{f.name}{'.NAME' if f.name in NAMED else ''}."
        if shared:
            yield f"### `{f.name}`: settings of every option"
            yield _table(below[0][1], [x for x in fields(below[0][1]) if x.name in shared], path)
        for option, part in below:
            yield f"### `{prefix}{f.name}`" if option is None else f"### `{f.name}={option}`"
            about = inspect.cleandoc(part.__doc__ or "").split("\n\n")[0]
            if about and not about.startswith(f"{part.__name__}("):  # a dataclass without a docstring writes its own
                yield about
            yield from _section(part, path, leave_out=shared)


def _table(schema: type, rows: Sequence[Field[Any]], prefix: str) -> str:
    notes = comments(schema)
    lines = ["| setting | default | allowed | |", "|---|---|---|---|"]
    for f in rows:
        choices = _cell(allowed(schema, f))
        lines.append(f"| `{prefix}{f.name}` | {_default(f)} | {choices} | {_cell(notes.get(f.name, ''))} |")
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


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# --- commands ---------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    lines = [
        "# Commands",
        "Each verb of `mathse` has a `--help` of its own. `train` and `evaluate` take [settings](settings.md) and "
        "groups; in a checkout they are `python train.py` and `python evaluate.py` too.",
        "\n".join(
            ["| verb | |", "|---|---|", *(f"| `{verb}` | {_cell(text)} |" for verb, (_, text) in SUBCOMMANDS.items())]
        ),
        "## Options of each group",
        "\n".join(["| group | options |", "|---|---|", *(_options(group) for group in OPTIONS)]),
    ]
    return "\n\n".join(lines) + "\n"


def _options(group: str) -> str:
    return f"| `{group}` | {', '.join(f'`{name}`' for name in available(group))} |"


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
