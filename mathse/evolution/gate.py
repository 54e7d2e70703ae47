"""The decontamination gate: before the first fit, training data is searched for problems of the benchmarks given.

``decontaminate.against=[FILES]``; ``action`` is drop, report or off. ``<run>/decontamination.jsonl`` names each pair
(see mathse/data/decontamination/search.py), ``decontamination.json`` counts them. Both are made once, and again where
the data, a benchmark or a setting has changed. Where rows are dropped, what they were compared with is part of the
stages' identity. The test split is left alone: a benchmark may be the test file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mathse.config.data import SyntheticData
from mathse.config.schema import TrainConfig
from mathse.data.decontamination.against import index_of
from mathse.data.decontamination.search import Search
from mathse.errors import DataError
from mathse.evolution.context import RunContext
from mathse.evolution.problems import RunProblems
from mathse.runs.layout import DECONTAMINATION, DECONTAMINATION_PAIRS
from mathse.runs.manifest import config_slice
from mathse.runs.store import read_json, read_jsonl, to_json, write_json, write_jsonl
from mathse.types import Problem, ReasoningPath

DEPENDS_ON = ("data", "decontaminate", "seed", "task", "sft.train", "sft.train_sha256")
VERSION = 1  # of the comparison


def gate_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that stages depend on because of the gate: none where it drops nothing."""
    asked = config.decontaminate
    return ("decontaminate",) if asked.action == "drop" and asked.against else ()


def gate(context: RunContext, problems: RunProblems) -> None:
    """Search the training data, write the report, and leave dropped rows out of every split but test.

    Raises DataError where no row is left.
    """
    asked = context.config.decontaminate
    if asked.action == "off" or not asked.against:
        _note_that_nothing_was_searched(context)
        return
    pairs, counts = context.run.path / DECONTAMINATION_PAIRS, context.run.path / DECONTAMINATION
    key = _key(context)
    if not (counts.is_file() and pairs.is_file() and read_json(counts)["key"] == key):
        write_json(counts, {"key": key, **_searched(context, problems)})
    problems.leave_out({row["id"] for row in read_jsonl(pairs) if row["dropped"]}, but=("test",))
    found = read_json(counts)
    if found["dropped"] == found["rows"]:
        raise DataError(
            f"{pairs}: every training row is in a benchmark; train on other data, or have them reported and kept: "
            "decontaminate.action=report"
        )
    for line in (*found["notes"], _in_words(found, asked.action)):
        context.note(line)


def _searched(context: RunContext, problems: RunProblems) -> dict[str, Any]:
    """Write the pairs; how many there are, by kind."""
    asked, notes = context.config.decontaminate, list[str]()
    index = index_of(asked.against, asked.text_similarity, asked.picture_distance, notes.append)
    search = Search(index, problems.source, drop=asked.action == "drop")
    parts = candidates(context.config, problems)
    with context.track("decontamination", sum(map(len, parts))) as track:
        write_jsonl(context.run.path / DECONTAMINATION_PAIRS, _rows(search, parts, track.advance))
    return {"problems": len(index), **search.counts, "notes": notes}


def _rows(search: Search, parts: Sequence[Sequence[Problem]], advance: Any) -> Iterator[dict[str, Any]]:
    for problem in (problem for part in parts for problem in part):
        yield from search.rows(problem)
        advance(1)


def candidates(config: TrainConfig, problems: RunProblems) -> list[Sequence[Problem]]:
    """What may be learnt from: every split but test; in task=distill every row; in task=sft the rows' problems too."""
    if config.task == "distill":
        return [problems.source.distillable()]
    parts = [split for name, split in problems.splits.items() if name != "test"]
    if config.task == "sft":
        known = {problem.id for part in parts for problem in part}
        named = {row.problem_id: None for row in read_jsonl(Path(str(config.sft.train)), ReasoningPath)}
        parts.append([problems.by_id[i] for i in named if i not in known])
    return parts


def _note_that_nothing_was_searched(context: RunContext) -> None:
    if isinstance(context.config.data, SyntheticData):
        return  # a world of its own: no benchmark holds its problems
    why = "is off" if context.config.decontaminate.action == "off" else "was given no benchmark"
    context.notes.append(
        f"The decontamination gate {why}, so no training row was compared with a benchmark's problems; "
        "decontaminate.against=[FILES] names those to keep out."
    )


def _in_words(found: dict[str, Any], action: str) -> str:
    became = f"{found['dropped']:,} were dropped" if action == "drop" else "reported, not dropped"
    return (
        f"decontamination: of {found['rows']:,} training rows {found['matched']:,} are among {found['problems']:,} "
        f"benchmark problems ({became}); {found['weak']:,} share only a question that does not tell which problem it "
        f"is, and {found['duplicates']:,} repeat another row (kept): {DECONTAMINATION_PAIRS}"
    )


def _key(context: RunContext) -> str:
    """What the report depends on: settings, and the contents of the files they name."""
    settings = config_slice(context.run.config, DEPENDS_ON)
    return hashlib.sha256(to_json([VERSION, settings]).encode()).hexdigest()
