"""The whole loop with its students behind a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.runs import SIZES, WORLD, run
from engine import Engine

from mathse.store import read_jsonl

# Greedy, and with enough of a fit that no two tokens are as good as each other.
LOOP = (*SIZES, *WORLD, "judge=orm", "distill.judge=answer", "generator.temperature=0", "orm.temperature=0")


def served(engine: Engine, tmp_path: Path) -> list[str]:
    how = (f"base_url={engine.url}", f"cache_dir={tmp_path / 'answers'}", "temperature=0", "max_new_tokens=8")
    return ["generator=server", *(f"generator.{setting}" for setting in how)]


def rows(folder: Path, pattern: str) -> dict[str, list[Any]]:
    return {str(f.relative_to(folder)): list(read_jsonl(f)) for f in sorted(folder.rglob(pattern))}


def test_served_students_write_what_local_ones_do(engine: Engine, teacher: list[str], tmp_path: Path) -> None:
    local = run(tmp_path / "local", *LOOP, *teacher)
    summary = run(tmp_path / "served", *LOOP, *teacher, *served(engine, tmp_path))
    for pattern in ("paths.jsonl", "held_paths.jsonl", "*predictions.jsonl", "verdicts.jsonl", "train.jsonl"):
        mine, theirs = (rows(tmp_path / name, pattern) for name in ("served", "local"))
        assert mine and mine == theirs, pattern
    assert summary["stages"] == local["stages"]
