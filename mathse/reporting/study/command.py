"""The command that makes a study's runs again."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from mathse.config.compose import unchecked_settings
from mathse.reporting.report.compare import comparable
from mathse.reporting.study.collect import BOOKKEEPING, Collected
from mathse.reporting.study.design import programs
from mathse.runs.reader import Run

PLAIN = re.compile(r"[\w./-]+")  # text that Hydra reads as it is


def command(collected: Collected) -> str:
    """The two lines, as a block of Markdown; with the overrides that all runs had besides their variant's file."""
    name, seeds = collected.design.name, ",".join(map(str, collected.seeds))
    train, study = programs()
    words = [train, f"'+experiment/{name}=glob(*)'", f"seed={seeds}", *overrides(collected)]
    return "\n".join(["```", " ".join(words), f"{study} {name}", "```"])


def overrides(collected: Collected) -> list[str]:
    """``KEY=VALUE``, quoted for a shell: what is alike in all runs, and other than what their variants' files say."""
    found = [_besides(variant, run, collected) for variant, runs in collected.runs.items() for run in runs[:1]]
    shared = [key for key, value in found[0].items() if all(key in other and other[key] == value for other in found)]
    return [shlex.quote(f"{key}={_written(found[0][key])}") for key in sorted(shared)]


def _besides(variant: str, run: Run, collected: Collected) -> dict[str, Any]:
    composed = unchecked_settings([f"+experiment/{collected.design.name}={variant}", f"seed={run.seed}"])
    had, keys = run.settings, comparable(run).keys() - set(BOOKKEEPING)
    return {key: had[key] for key in keys if key not in composed or had[key] != composed[key]}


def _written(value: Any) -> str:
    """A value as an override; text that Hydra would not read as it is stands in double quotes, as in JSON."""
    return value if isinstance(value, str) and PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
