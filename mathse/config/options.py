"""What conf/ offers: its groups and their options, read from the folder itself."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from mathse.config.schema import OPTIONS

PACKAGE = Path(__file__).resolve().parents[1]
# Inside the package in a wheel (setup.py), beside it in the repository.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Every group of conf/ (Hydra's own left out) and its options."""
    folders = sorted(p for p in CONF.rglob("*") if p.is_dir() and p.relative_to(CONF).parts[0] != "hydra")
    found = {p.relative_to(CONF).as_posix(): tuple(sorted(f.stem for f in p.glob("*.yaml"))) for p in folders}
    return {group: names for group, names in found.items() if names}


@cache
def available(group: str) -> tuple[str, ...]:
    """The options of ``group``."""
    return groups().get(group, ())


def option_of(schema: type) -> str | None:
    """The option that stands on this schema: ``JsonlData`` -> "jsonl"; None if conf/ has none."""
    for group, schemas in OPTIONS.items():
        if schema in schemas:
            lists_it = re.compile(rf"^defaults: \[{schema.__name__}\b", re.MULTILINE)
            return next((name for name in available(group) if lists_it.search(_text(group, name))), None)
    return None


def _text(group: str, name: str) -> str:
    return (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
