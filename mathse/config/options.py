"""What conf/ offers: its groups and their options, read from the folder itself; beside it a user's own folder."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from mathse.config.schema import OPTIONS
from mathse.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
# Inside the package in a wheel (setup.py), beside it in the repository.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


FLAG = "--config-dir"  # Hydra's, and that of every verb that takes the same overrides
_own: Path | None = None


def look_in(folder: str | os.PathLike[str] | None) -> None:
    """Offer the options of a user's own ``folder``, laid out as conf/ is, beside those of conf/ (which win where both
    have a name); None: no longer. Raises ConfigError where there is no such folder."""
    global _own
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"{FLAG} {folder}: no such folder; it holds options of your own, laid out as conf/ is")
    _own = None if folder is None else Path(folder).resolve()
    list_groups.cache_clear()
    list_options.cache_clear()


def own_folder() -> Path | None:
    """Where a user's own options are looked for."""
    return _own


@cache
def list_groups() -> dict[str, tuple[str, ...]]:
    """Every group (Hydra's own left out) and its options."""
    options: dict[str, set[str]] = {}
    for root in (CONF, *([] if _own is None else [_own])):
        for file in root.rglob("*/*.yaml"):
            if not (group := file.parent.relative_to(root).as_posix()).startswith("hydra"):
                options.setdefault(group, set()).add(file.stem)
    return {group: tuple(sorted(options[group])) for group in sorted(options)}


@cache
def list_options(group: str) -> tuple[str, ...]:
    """The options of ``group``."""
    return list_groups().get(group, ())


def find_option(schema: type) -> str | None:
    """The option that stands on this schema: ``JsonlDataConfig`` -> "jsonl"; None if conf/ has none."""
    for group, schemas in OPTIONS.items():
        if schema in schemas:
            lists_it = re.compile(rf"^defaults: \[{schema.__name__}\b", re.MULTILINE)
            return next((name for name in list_options(group) if lists_it.search(_text(group, name))), None)
    return None


def _text(group: str, name: str) -> str:
    file = Path(group) / f"{name}.yaml"
    return (CONF / file if _own is None or (CONF / file).is_file() else _own / file).read_text(encoding="utf-8")
