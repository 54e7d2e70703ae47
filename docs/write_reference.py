"""Writes the pages of the documentation that list all settings and all commands, docs/reference/: from the code.

    python docs/write_reference.py

A list that is kept by hand is out of date after the next commit; these are read from the settings
classes of ``mathse.config``: defaults, allowed values and descriptions. ``make docs`` calls this, and a
test compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from mathse.commands.subcommands import SUBCOMMANDS  # noqa: E402  (the path first)
from mathse.config.options import CONF, list_options  # noqa: E402
from mathse.config.schema import OPTIONS, EvaluateConfig, TrainConfig  # noqa: E402
from mathse.config.setting import Options, describe_allowed, option_of_field, section_of, settings_of  # noqa: E402

FOLDER = ROOT / "docs" / "reference"


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    parts = [
        "# Settings",
        "Every setting is `KEY=VALUE` on the command line, and every group is `GROUP=OPTION`. An option brings "
        "more settings. This page is made from `mathse/config`; adding `--cfg job` shows what a command "
        "line composes.",
        "## mathse train",
        *_section(TrainConfig, ""),
        "## mathse evaluate",
        "Groups that `mathse train` has too are described there.",
        *_section(EvaluateConfig, "", described={*settings_of(TrainConfig)}),
    ]
    return "\n\n".join(parts) + "\n"


def _section(
    schema: type, prefix: str, described: Container[str] = (), leave_out: Container[str] = ()
) -> Iterator[str]:
    """The table of a settings class's own settings, then a section for each group of settings below it."""
    fields = settings_of(schema)
    rows = [name for name, f in fields.items() if name not in ("_target_", *leave_out) and not _below(f, prefix)]
    if rows:
        yield _table(schema, rows, prefix)
    for name, f in fields.items():
        below = [] if name in described and not prefix else _below(f, prefix)
        shared = _shared([part for _, part in below])
        path = f"{prefix}{name}{'.NAME' if isinstance(option_of_field(f), Options) else ''}."
        if shared:
            yield f"### `{name}`: settings of every option"
            yield _table(below[0][1], [x for x in settings_of(below[0][1]) if x in shared], path)
        for option, part in below:
            yield f"### `{prefix}{name}`" if option is None else f"### `{prefix}{name}={option}`"
            about = inspect.cleandoc(part.__doc__ or "").split("\n\n")[0]
            if about and not about.startswith(f"{part.__name__}("):  # a dataclass without a docstring writes its own
                yield about
            yield from _section(part, path, leave_out=shared)


def _table(schema: type, rows: Sequence[str], prefix: str) -> str:
    lines = ["| setting | default | allowed | |", "|---|---|---|---|"]
    for name in rows:
        f = settings_of(schema)[name]
        lines.append(
            f"| `{prefix}{name}` | {_default(f)} | {_cell(describe_allowed(f))} | {_cell(f.description or '')} |"
        )
    return "\n".join(lines)


def _shared(schemas: Sequence[type]) -> frozenset[str]:
    """The settings that all options of a group have, with one default, where that spares a page of repetition."""
    if len(schemas) < 2:
        return frozenset()
    alike = ({(name, str(f)) for name, f in settings_of(schema).items()} for schema in schemas)
    names = frozenset(name for name, *_ in set.intersection(*alike)) - {"_target_"}
    return names if len(names) > 3 else frozenset()


def _below(f: FieldInfo, prefix: str) -> list[tuple[str | None, type]]:
    """(option, class) of each section that a field may hold; option None where there is no choice."""
    mark, section = option_of_field(f), section_of(f)
    # A group in another section is described where its own settings are: evolution/update, not the ORM's backbone.
    if mark is not None and mark.group.startswith(prefix.replace(".", "/")):
        group = mark.group
        schemas = [schema for schema in OPTIONS.get(group, ()) if len(settings_of(schema)) > 1]  # beside its _target_
        return [(" | ".join(options_of(group, schema)), schema) for schema in schemas]
    return [] if section is None else [(None, section)]


def options_of(group: str, schema: type) -> list[str]:
    """The options of ``group`` that stand on this schema: all public sets on ``PublicDataConfig``."""
    head = re.compile(rf"^defaults: \[{schema.__name__}\b", re.MULTILINE)
    texts = {name: (CONF / group / f"{name}.yaml").read_text(encoding="utf-8") for name in list_options(group)}
    return [name for name, text in texts.items() if head.search(text)]


def _default(f: FieldInfo) -> str:
    factory: Any = f.default_factory
    value = factory() if factory is not None else f.default
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
    return f"| `{group}` | {', '.join(f'`{name}`' for name in list_options(group))} |"


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
