"""A benchmark with its options and its rows: opened, and found usable, before any weight is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mathse.config import build
from mathse.config.data import name_set
from mathse.config.evaluation import ROWS, OwnBenchmarkConfig
from mathse.config.schema import EvaluateConfig
from mathse.config.trust import locate
from mathse.data.sources import open_source
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import STUDENT_PROMPT, Benchmark, Item
from mathse.evaluation.simple_benchmark import refuse_unfinished, whole
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
    names = {
        key: name_set(config.data) if isinstance(section, OwnBenchmarkConfig) else key
        for key, section in config.benchmark.items()
    }
    if len({*names.values()}) < len(names):
        raise ConfigError(
            f"benchmark = {list(names)}: the set of data is called {name_set(config.data)!r}, as another benchmark is; "
            "score them one at a time"
        )
    return [
        open_benchmark(names[key], section, config, folder / names[key]) for key, section in config.benchmark.items()
    ]


def open_benchmark(name: str, section: Any, config: EvaluateConfig, folder: Path) -> OpenedBenchmark:
    """The benchmark that ``section`` describes; ``name``: as its results have it, of own problems the set's."""
    values = section if isinstance(section, Mapping) else vars(section)
    problems, images, split = (values.get(key) for key in ROWS)
    # prompt=student is no benchmark's own: it is built with its first prompt, and the student's is used in sampling.
    uses_student_prompt = values.get("prompt") == STUDENT_PROMPT
    if isinstance(section, Mapping):  # a class of the user's own: an argument each, but for what ``load`` takes
        left_out = (*ROWS, "prompt") if uses_student_prompt else ROWS
        section = {key: value for key, value in section.items() if key not in left_out}
    elif uses_student_prompt:
        section = replace(section, prompt=type(section)().prompt)
    runtime = {"source": open_source(config)} if isinstance(section, OwnBenchmarkConfig) else {}
    if isinstance(section, Mapping):
        refuse_unfinished(locate(section["_target_"], "benchmark"), name)
    made = build(section, **runtime)
    if isinstance(section, OwnBenchmarkConfig):
        made.title = f"{name}, {made.title}"
    bench = whole(made, name)
    bench.check()
    # Pictures are looked at by a student or by the ORM; scoring alone needs none.
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
    """The split that a file is called after: ``data/testmini.jsonl.gz``, ``testmini-00000-of-00001.parquet``."""
    stem = "" if problems is None else Path(problems).name.partition(".")[0]
    return next((split for split in splits if stem == split or stem.startswith(f"{split}-")), None)
