"""A benchmark with its options and its rows: opened, and found usable, before any weight is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from mathse.config import build
from mathse.config.schema import EvaluateConfig
from mathse.config.scoring import ROWS, OwnBenchmark
from mathse.errors import DataError
from mathse.evaluation.benchmarks.base import Benchmark, Item
from mathse.evaluation.own import STUDENT
from mathse.runs.store import to_json


@dataclass(frozen=True)
class Opened:
    """``items``: the rows asked and scored; ``known``: the ids of all rows, those beyond ``limit`` too."""

    name: str
    bench: Benchmark
    items: Sequence[Item]
    known: Sequence[str]
    folder: Path  # where its results go
    split: str

    def digest(self) -> str:
        """Hash of what is asked: ids, prompts, and which pictures; not where the pictures lie."""
        text = to_json([[i.problem.id, i.prompt, [Path(ref).name for ref in i.problem.images]] for i in self.items])
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def open_benchmarks(config: EvaluateConfig, folder: Path) -> list[Opened]:
    """Every benchmark chosen, in the order given. Raises ConfigError or DataError for one that cannot be used."""
    return [open_benchmark(name, section, config, folder / name) for name, section in config.benchmark.items()]


def open_benchmark(name: str, section: Any, config: EvaluateConfig, folder: Path) -> Opened:
    options = _options(section)
    rows = {key: options.pop(key, None) for key in ROWS}
    in_own_words = options.get("prompt") == STUDENT
    if in_own_words:
        del options["prompt"]
    runtime = {"source": build(config.data)} if isinstance(section, OwnBenchmark) else {}
    bench: Benchmark = build(options, **runtime)
    bench.check()
    split = rows["split"] or bench.splits[0]
    items = bench.load(_path(rows["problems"]), _path(rows["images"]), rows["split"], need_images=_sees_images(config))
    if in_own_words:
        bench.prompt = STUDENT
    if not items:
        raise DataError(f"benchmark.{name}: split {split!r} of {rows['problems'] or bench.hub} holds no rows")
    return Opened(name, bench, items[: config.evaluation.limit], [i.problem.id for i in items], folder, split)


def _options(section: Any) -> dict[str, Any]:
    return {f.name: getattr(section, f.name) for f in fields(section)} if is_dataclass(section) else dict(section)


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _sees_images(config: EvaluateConfig) -> bool:
    """Whether anybody looks at the pictures: a student or the ORM. Scoring does not."""
    return config.predictions is None or config.judge.checkpoint is not None
