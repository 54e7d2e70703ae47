"""A benchmark with its options and its rows, opened and checked before any weights are loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mathse.config import build
from mathse.config.data import set_name
from mathse.config.evaluation import ROWS, OwnBenchmark
from mathse.config.schema import EvaluateConfig
from mathse.config.trust import locate
from mathse.data.sources import open_source
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import STUDENT_PROMPT, Benchmark, Item
from mathse.evaluation.simple_benchmark import as_benchmark, refuse_unfinished
from mathse.runs.store import to_json


@dataclass(frozen=True)
class OpenedBenchmark:
    """A benchmark with its rows.

    Attributes:
        name: its name in results.
        bench: the benchmark with its options.
        items: the rows to ask and score.
        known_ids: ids of all rows, also beyond ``limit``.
        folder: its results.
        split: the split of the rows.
    """

    name: str
    bench: Benchmark
    items: Sequence[Item]
    known_ids: Sequence[str]
    folder: Path
    split: str

    def digest(self) -> str:
        """Return a hash of ids, prompts and names of pictures. The folder of the pictures does not count."""
        rows = []
        for item in self.items:
            picture_names = [Path(ref).name for ref in item.problem.images]
            rows.append([item.problem.id, item.prompt, picture_names])
        return hashlib.sha256(to_json(rows).encode("utf-8", "backslashreplace")).hexdigest()


def open_benchmarks(config: EvaluateConfig, folder: Path) -> list[OpenedBenchmark]:
    """Open every chosen benchmark, in the given order. Raises ConfigError or DataError for an unusable benchmark."""
    names = {
        key: set_name(config.data) if isinstance(section, OwnBenchmark) else key
        for key, section in config.benchmark.items()
    }
    if len({*names.values()}) < len(names):
        raise ConfigError(
            f"benchmark = {list(names)}: the set of data is called {set_name(config.data)!r}, as another benchmark is; "
            "score them one at a time"
        )
    return [
        open_benchmark(names[key], section, config, folder / names[key]) for key, section in config.benchmark.items()
    ]


def open_benchmark(name: str, section: Any, config: EvaluateConfig, folder: Path) -> OpenedBenchmark:
    """Build the benchmark of ``section`` and load its rows.

    Args:
        name: its name in results; for own problems the name of the data set.
        section: the settings: a dataclass, or a mapping for a class of the user.
        config: all settings.
        folder: the folder of its results.
    """
    values = section if isinstance(section, Mapping) else vars(section)
    problems, images, split = (values.get(key) for key in ROWS)

    # 1. Build it. No benchmark has prompt=student: it is built with its first prompt, and sampling uses the student's.
    uses_student_prompt = values.get("prompt") == STUDENT_PROMPT
    if isinstance(section, Mapping):
        refuse_unfinished(locate(section["_target_"], "benchmark"), name)
        # The constructor takes every setting except the arguments of ``load``.
        left_out = (*ROWS, "prompt") if uses_student_prompt else ROWS
        bench = as_benchmark(build({key: value for key, value in section.items() if key not in left_out}), name)
    elif isinstance(section, OwnBenchmark):
        own = build(section, source=open_source(config))
        own.title = f"{name}, {own.title}"
        bench = as_benchmark(own, name)
    else:
        if uses_student_prompt:
            section = replace(section, prompt=type(section)().prompt)
        bench = as_benchmark(build(section), name)
    bench.check()

    # 2. Load the rows. The student and the ORM look at pictures; scoring needs none.
    need_images = config.predictions is None or config.judge.checkpoint is not None
    folder_of_images = None if images is None else Path(images)
    items = bench.load(None if problems is None else Path(problems), folder_of_images, split, need_images=need_images)
    if uses_student_prompt:
        bench.prompt = STUDENT_PROMPT
    split = split or split_of_file(problems, bench.splits) or bench.splits[0]
    if not items:
        raise DataError(f"benchmark.{name}: split {split!r} of {problems or bench.hub} holds no rows")
    known_ids = [item.problem.id for item in items]
    return OpenedBenchmark(name, bench, items[: config.evaluation.limit], known_ids, folder, split)


def split_of_file(problems: str | None, splits: Sequence[str]) -> str | None:
    """Return the split in a file's name: ``data/testmini.jsonl.gz``, ``testmini-00000-of-00001.parquet``; else None."""
    stem = "" if problems is None else Path(problems).name.partition(".")[0]
    return next((split for split in splits if stem == split or stem.startswith(f"{split}-")), None)
