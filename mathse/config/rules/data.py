"""Rules of data sources, of mixtures of them, and of decontamination."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mathse.config.data import (
    HubDataConfig,
    JsonlDataConfig,
    MixtureDataConfig,
    PublicDataConfig,
    SplitConfig,
    WordProblemsConfig,
)
from mathse.config.evaluation import ORMTestConfig, OwnBenchmarkConfig
from mathse.config.extras import explain_missing
from mathse.config.mistakes import show
from mathse.config.rules.files import HUB_ID, NEITHER, check_file
from mathse.config.schema import EvaluateConfig
from mathse.config.task_domains import TaskDomainConfig, check_texts

STORED = ("mathvision", "mathverse")  # hash lists that come with the package: mathse.data.decontamination.hash_lists
TABLES = {".csv": "a CSV table", ".tsv": "a TSV table", ".parquet": "a Parquet table", ".xlsx": "an Excel table"}
NO_TABLE = (
    "data=jsonl reads one JSON object a line; pass data=hf data.root=DIR, the folder with the table, and "
    "data.columns.question=COLUMN data.columns.answer=COLUMN, or write the rows as JSON lines "
    "(pandas: table.to_json(FILE, orient='records', lines=True))"
)
MAX_WEIGHT = 1e12  # of a source in a mixture: sums and products of weights and rows stay far from infinity
NOT_TO_BE_TRAINED_ON = re.compile(r"math[-_ ]?vista", re.IGNORECASE)


def data_is_there(config: Any) -> Iterator[str]:
    if not uses_data(config):
        return
    for path, data in _sources("data", config.data):
        if isinstance(data, JsonlDataConfig):
            if data.path is None:
                yield f"{path}.path = null: data=jsonl needs a file; pass {path}.path=FILE, one JSON object a line"
            for name, file in (("path", data.path), ("test_path", data.test_path)):
                table = TABLES.get(Path(file).suffix.lower()) if file is not None else None
                if table is not None and Path(str(file)).is_file():
                    yield f"{path}.{name} = {show(file)}: {table}, and {NO_TABLE}"
                yield from check_file(f"{path}.{name}", file, "has one JSON object a line")
        elif isinstance(data, WordProblemsConfig):
            if data.root is not None and not Path(data.root).is_dir():
                yield f"{path}.root = {show(data.root)}: no such folder; name the one with the sets' files, or null"
            if not data.sets:
                yield f"{path}.sets = []: names no set; pass {path}.sets=[svamp,gsm8k], for instance"
        elif isinstance(data, (PublicDataConfig, HubDataConfig)):
            option = data.name if isinstance(data, PublicDataConfig) else "hf"
            if data.root is None:
                yield f"{path}.root = null: data={option} needs the set's folder or a hub id; pass {path}.root=DIR"
                continue
            is_there = Path(data.root).exists()
            if not is_there and not HUB_ID.fullmatch(data.root):
                yield f"{path}.root = {show(data.root)}: {NEITHER}"
            # a published set in a folder is read without the library
            elif (isinstance(data, HubDataConfig) or not is_there) and (sentence := explain_missing("hub")):
                yield f"{path}.root = {show(data.root)}: {sentence}"


def uses_data(config: Any) -> bool:
    """Whether the problems of ``data`` are used: always in training; in evaluation where a benchmark asks them."""
    return not isinstance(config, EvaluateConfig) or any(
        isinstance(section, (OwnBenchmarkConfig, ORMTestConfig)) for section in config.benchmark.values()
    )


def task_domain_has_its_prompts(config: Any) -> Iterator[str]:
    if isinstance(domain := config.task_domain, TaskDomainConfig):
        yield from (f"task_domain.texts = {show(domain.texts)}: {mistake}" for mistake in check_texts(domain.texts))
        if not domain.step or not all(name.strip() for name in domain.step):
            yield f"task_domain.step = {show(domain.step)}: name what stands before a step's number, such as [Step]"


def splits_are_published(config: Any) -> Iterator[str]:
    allowed = {"train": ("train", "val", "test", "all"), "test": ("train", "val", "test")}
    for path, data in _sources("data", config.data):
        if not isinstance(data, PublicDataConfig):
            continue
        names = data.split if isinstance(data.split, Mapping) else {"train": data.split}
        for key, name in names.items():
            if key not in allowed:
                yield f"{path}.split.{key}: unknown key; there are {', '.join(allowed)}"
            elif name not in allowed[key]:
                position = f"{path}.split.{key}" if isinstance(data.split, Mapping) else f"{path}.split"
                yield f"{position} = {show(name)}: must be one of {', '.join(allowed[key])}"
        if names.get("test") is not None and names["test"] == names.get("train"):
            yield f"{path}.split = {show(dict(names))}: a set's {names['test']} cannot be both; give two different ones"


def mixture_has_weights_or_counts(config: Any) -> Iterator[str]:
    data = config.data
    if isinstance(data, MixtureDataConfig):
        yield from check_mixture(data)


def shares_leave_problems_to_learn_from(config: Any) -> Iterator[str]:
    data = config.data
    if isinstance(data, SplitConfig) and uses_data(config):
        has_test = getattr(data, "test_path", None) is not None or getattr(data, "test_split", None) is not None
        test_share = 0.0 if has_test else data.test_share
        if (total := test_share + data.dev_share + data.orm_share) >= 1:
            yield (
                f"data.test_share + data.dev_share + data.orm_share = {total:g}: must stay below 1, "
                "or no problem is left to learn from"
            )


def licence_allows_training(config: Any) -> Iterator[str]:
    for path, data in _sources("data", config.data):
        root = getattr(data, "root", None)
        if root is not None and NOT_TO_BE_TRAINED_ON.search(Path(root).name):
            yield (
                f"{path}.root = {show(root)}: MathVista's licence forbids training on it; use it as a benchmark, and "
                "keep it out of your training data with decontaminate.against=[FILE]"
            )


def benchmarks_to_keep_out_are_there(config: Any) -> Iterator[str]:
    for file in config.decontaminate.against:
        if file.startswith("stored:"):
            if file.removeprefix("stored:") not in STORED:
                yield f"decontaminate.against: {show(file)}: no such list; there are {', '.join(STORED)} (stored:NAME)"
        elif not Path(file).is_file():
            yield (
                f"decontaminate.against: {show(file)}: no such file; give the benchmark's JSON or JSONL file, or rows "
                "in our format"
            )


def check_mixture(settings: MixtureDataConfig) -> Iterator[str]:
    """What is wrong with a mixture's settings, a sentence each."""
    sources, weights, counts, size = settings.sources, settings.weights, settings.counts, settings.size
    if not sources:
        yield "data.sources = {}: a mixture needs sources; pass +data@data.sources.NAME=jsonl, for instance"
        return
    if bool(weights) == bool(counts):
        yield "data.weights and data.counts: exactly one is set; pass 'data.weights={NAME: 1, ...}', for instance"
    for key, values in (("weights", weights), ("counts", counts)):
        if not values:
            continue
        if not isinstance(values, Mapping) or set(values) != set(sources):
            named = ", ".join(map(str, values)) if isinstance(values, Mapping) else repr(values)
            yield f"data.{key} names {named}, and the sources are {', '.join(sources)}"
            continue
        for name, value in values.items():
            number = isinstance(value, (int, float) if key == "weights" else int) and not isinstance(value, bool)
            if not number or not (0 < value <= MAX_WEIGHT if key == "weights" else value >= 0):  # not: NaN is neither
                must = f"a number above 0, at most {MAX_WEIGHT:g}" if key == "weights" else "a whole number, at least 0"
                yield f"data.{key}.{name} = {value!r:.40}: must be {must}"
    if size is not None and counts:
        yield f"data.size = {size}: goes with weights; data.counts says how many rows there are"


def _sources(path: str, data: Any) -> list[tuple[str, Any]]:
    """(key path, section) of every source that is no mixture itself."""
    if isinstance(data, MixtureDataConfig):
        return [entry for name, part in data.sources.items() for entry in _sources(f"{path}.sources.{name}", part)]
    return [(path, data)]
