"""List the groups and options of conf/ and of a user's own folder."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from mathse.config.schema import OPTIONS
from mathse.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
# A wheel has conf/ inside the package (setup.py), the repository beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
FLAG = "--config-dir"  # of Hydra, and of every subcommand that takes the same overrides
_own: Path | None = None


def look_in(folder: str | os.PathLike[str] | None) -> None:
    """Offer the options of a user's ``folder`` beside the options of conf/.

    The folder has the layout of conf/. If both have an option of a name, the option in conf/ counts. None: offer only
    conf/ again. Raises ConfigError if there is no such folder.
    """
    global _own
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"{FLAG} {folder}: no such folder; it holds your own options, in the layout of conf/")
    _own = None if folder is None else Path(folder).resolve()
    list_groups.cache_clear()
    list_options.cache_clear()


def own_folder() -> Path | None:
    """Return the folder of the user's own options, or None."""
    return _own


@cache
def list_groups() -> dict[str, tuple[str, ...]]:
    """Return the options of every group. Hydra's own groups are left out."""
    options: dict[str, set[str]] = {}
    for root in [CONF] if _own is None else [CONF, _own]:
        for file in root.rglob("*/*.yaml"):
            if not (group := file.parent.relative_to(root).as_posix()).startswith("hydra"):
                options.setdefault(group, set()).add(file.stem)
    return {group: tuple(sorted(options[group])) for group in sorted(options)}


@cache
def list_options(group: str) -> tuple[str, ...]:
    """Return the options of ``group``."""
    return list_groups().get(group, ())


def find_option(schema: type) -> str | None:
    """Return the option that has this settings class, such as "jsonl" for ``JsonlDataConfig``, or None.

    The class is the first entry in the defaults list of the option's file.
    """
    for group, schemas in OPTIONS.items():
        if schema not in schemas:
            continue
        first_default = re.compile(rf"^defaults: \[{schema.__name__}\b", re.MULTILINE)
        for name in list_options(group):
            file = Path(group, f"{name}.yaml")
            path = CONF / file if _own is None or (CONF / file).is_file() else _own / file
            if first_default.search(path.read_text(encoding="utf-8")):
                return name
        return None
    return None
