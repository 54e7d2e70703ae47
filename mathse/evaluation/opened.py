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
from mathse.evaluation.benchmarks.base import STUDENT_PROMPT, Benchmark, Item
from mathse.runs.store import to_json


@dataclass(frozen=True)
class OpenedBenchmark:
    """``items``: the rows asked and scored; ``known_ids``: of all rows, those beyond ``limit`` too."""

    name: str
    bench: Benchmark
    items: Sequence[Item]
    known_ids: Sequence[str]
    folder: Path  # where its results go
    split: str

    def digest(self) -> str:
        """Hash of what is asked: ids, prompts, and the names of the pictures; not the folder they lie in."""
        text = to_json([[i.problem.id, i.prompt, [Path(ref).name for ref in i.problem.images]] for i in self.items])
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def open_benchmarks(config: EvaluateConfig, folder: Path) -> list[OpenedBenchmark]:
    """Every benchmark chosen, in the order given. Raises ConfigError or DataError for one that cannot be used."""
    return [open_benchmark(name, section, config, folder / name) for name, section in config.benchmark.items()]


def open_benchmark(name: str, section: Any, config: EvaluateConfig, folder: Path) -> OpenedBenchmark:
    """The benchmark that ``section`` (config ``benchmark.<name>``) describes."""
    options = {f.name: getattr(section, f.name) for f in fields(section)} if is_dataclass(section) else dict(section)
    rows = {key: options.pop(key, None) for key in ROWS}
    # prompt=student is no benchmark's own: it is built with its first prompt, and the student's is used in sampling.
    uses_student_prompt = options.get("prompt") == STUDENT_PROMPT
    if uses_student_prompt:
        del options["prompt"]
    runtime = {"source": build(config.data)} if isinstance(section, OwnBenchmark) else {}
    bench: Benchmark = build(options, **runtime)
    bench.check()
    split = rows["split"] or bench.splits[0]
    problems, images = (None if rows[key] is None else Path(rows[key]) for key in ("problems", "images"))
    # Pictures are looked at by a student or by the ORM; scoring alone needs none.
    need_images = config.predictions is None or config.judge.checkpoint is not None
    items = bench.load(problems, images, rows["split"], need_images=need_images)
    if uses_student_prompt:
        bench.prompt = STUDENT_PROMPT
    if not items:
        raise DataError(f"benchmark.{name}: split {split!r} of {rows['problems'] or bench.hub} holds no rows")
    known_ids = [item.problem.id for item in items]
    return OpenedBenchmark(name, bench, items[: config.evaluation.limit], known_ids, folder, split)
