"""What a run folder holds so far: its finished stages in order, their figures, and the curves of its fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.runs.layout import DONE
from mathse.runs.store import read_json

TRAIN_LOG = "train_log.jsonl"

Value = float | int | str


@dataclass(frozen=True)
class FinishedStage:
    """``after``: the names of the stages it was made from. ``config``: the settings it depends on, by dotted key.
    ``sha256``: of its files, by their names below ``path``."""

    name: str
    path: Path
    identity: str
    summary: Mapping[str, Any]
    after: tuple[str, ...]
    config: Mapping[str, Any]
    sha256: Mapping[str, str]


def finished_stages(run: Path) -> list[FinishedStage]:
    """The stages below ``run`` that have a stage.json, each one after all stages it was made from.

    The order comes from the manifests' ``after``, not from their times, which small stages share.
    """
    manifests = {m["stage"]: (file.parent, m) for file in run.rglob(DONE) for m in [read_json(file)]}
    after = {name: set(m["after"]) for name, (_, m) in manifests.items()}
    # A stage has strictly more ancestors than any of them.
    order = sorted(manifests, key=lambda name: (len(_ancestors(name, after)), manifests[name][1]["finished"], name))
    return [_stage(*manifests[name]) for name in order]


def _stage(path: Path, manifest: Mapping[str, Any]) -> FinishedStage:
    hashes = {file: output["sha256"] for file, output in manifest["outputs"].items()}
    made_from, config = tuple(manifest["after"]), manifest["config"]
    return FinishedStage(manifest["stage"], path, manifest["identity"], manifest["summary"], made_from, config, hashes)


def _ancestors(name: str, after: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    frontier = {name}
    while frontier:
        frontier = {parent for child in frontier for parent in after.get(child, ())} - found
        found |= frontier
    return found


def figures(summary: Mapping[str, Any]) -> dict[str, Value]:
    """A stage's summary, or a metrics file, as flat numbers and texts: ``ci95`` pairs as ``ci_low`` and ``ci_high``,
    nested keys joined by ``_``. What is null, a list or the stage's own name is left out."""
    flat: dict[str, Value] = {}
    for key, value in summary.items():
        if key == "ci95":
            flat |= _intervals(value)
        elif isinstance(value, Mapping):
            flat |= {f"{key}_{name}": inner for name, inner in figures(value).items()}
        elif isinstance(value, (int, float, str)) and key != "stage":
            flat[key] = value
    return flat


def _intervals(ci95: Any) -> dict[str, Value]:
    """One pair, or (an ORM's) a pair by name."""
    named = {f"{name}_": pair for name, pair in ci95.items()} if isinstance(ci95, Mapping) else {"": ci95}
    return {
        f"{name}ci_{end}": bound
        for name, pair in named.items()
        if pair
        for end, bound in zip(("low", "high"), pair, strict=True)
    }


class Curve:
    """A fit's train_log.jsonl, read as it grows: each ``read()`` gives the lines that are new and whole."""

    def __init__(self, stage_folder: Path) -> None:
        self.path = stage_folder / TRAIN_LOG
        self._position = 0  # in bytes

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists() or self.path.stat().st_size <= self._position:
            return []
        with self.path.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line.strip()]
