"""Decontamination: before the first fit, the training data is searched for problems of the benchmarks given.

``decontaminate.against=[FILES]``; ``action`` is drop, report or off. ``<run>/decontamination.jsonl`` names each pair
(see mathse/data/decontamination/search.py), ``decontamination.json`` counts them. Both are made once, and again where
the data, a benchmark or a setting has changed. Where rows are dropped, what they were compared with is part of the
stages' identity. The test split is left alone: a benchmark may be the test file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mathse.config.data import SyntheticDataConfig
from mathse.config.schema import TrainConfig
from mathse.data.decontamination.benchmark_files import index_of
from mathse.data.decontamination.search import Search
from mathse.errors import DataError
from mathse.evolution.context import RunContext
from mathse.evolution.problems import RunProblems
from mathse.runs.layout import DECONTAMINATION, DECONTAMINATION_PAIRS, DONE
from mathse.runs.settings import config_slice
from mathse.runs.store import read_json, read_jsonl, to_json, write_json, write_jsonl
from mathse.types import Problem, ReasoningPath

DEPENDS_ON = ("data", "decontaminate", "seed", "task", "sft.train", "sft.train_sha256")
VERSION = 2  # of the comparison; 2: labels in drawings are compared
NAMED = 5  # dropped rows named on the screen; the list has all


def decontamination_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that stages depend on because rows may be dropped: none where nothing is dropped."""
    settings = config.decontaminate
    return ("decontaminate",) if settings.action == "drop" and settings.against else ()


def decontaminate(context: RunContext, problems: RunProblems) -> None:
    """Search the training data, write the report, and leave dropped rows out of every split but test.

    Raises DataError where no row remains.
    """
    settings = context.config.decontaminate
    if settings.action == "off" or not settings.against:
        if not isinstance(
            context.config.data, SyntheticDataConfig
        ):  # which draws its own problems: no benchmark has them
            why = "is off" if settings.action == "off" else "was given no benchmark"
            context.notes.append(
                f"Decontamination {why}, so no training row was compared with a benchmark's problems; "
                "decontaminate.against=[FILES] names those to keep out."
            )
        return
    pairs, counts_file = context.run.path / DECONTAMINATION_PAIRS, context.run.path / DECONTAMINATION
    # The list depends on settings, on the contents of the files that they name, and on how pictures are compared. A run
    # whose stages were made with the list of an earlier comparison keeps that list: D stays what it was.
    begun = (context.run.path / "base" / DONE).is_file()
    versions = range(1, VERSION + 1) if begun else (VERSION,)
    keys = [_key([version, config_slice(context.run.config, DEPENDS_ON)]) for version in versions]
    if not (counts_file.is_file() and pairs.is_file() and read_json(counts_file)["key"] in keys):
        write_json(counts_file, {"key": keys[-1], **_search(context, problems)})
    dropped = {row["id"]: row for row in read_jsonl(pairs) if row["dropped"]}
    problems.leave_out(set(dropped), but=("test",))
    counts = read_json(counts_file)
    if counts["dropped"] == counts["rows"]:
        raise DataError(
            f"{pairs}: every training row is in a benchmark; train on other data, or have them reported and kept: "
            "decontaminate.action=report"
        )
    outcome = f"{counts['dropped']:,} were dropped" if settings.action == "drop" else "reported, not dropped"
    summary = (
        f"decontamination: of {counts['rows']:,} training rows {counts['matched']:,} are among {counts['problems']:,} "
        f"benchmark problems ({outcome}); {counts['weak']:,} share only a question that does not tell which problem it "
        f"is, and {counts['duplicates']:,} repeat another row (kept): {DECONTAMINATION_PAIRS}"
    )
    if dropped:
        named = [f"{i} (as {row['against_id']}: {', '.join(row['by'])})" for i, row in list(dropped.items())[:NAMED]]
        more = f" and {len(dropped) - NAMED:,} more" if len(dropped) > NAMED else ""
        context.progress.say(f"left out of training: {'; '.join(named)}{more}; the whole list: {pairs}")
    for line in (*counts["notes"], summary):
        context.note(line)


def _key(depends_on: Any) -> str:
    return hashlib.sha256(to_json(depends_on).encode()).hexdigest()


def _search(context: RunContext, problems: RunProblems) -> dict[str, Any]:
    """Write the pairs; the number of them by kind, of benchmark problems, and notes for the summary."""
    config, notes = context.config, list[str]()
    settings = config.decontaminate
    index = index_of(settings.against, settings.text_similarity, settings.picture_distance, notes.append)
    search = Search(index, problems.source, drop=settings.action == "drop")

    # what may be learnt from: every split but test; in task=distill every row; in task=sft the problems of its rows too
    parts: list[Sequence[Problem]]
    if config.task == "distill":
        parts = [problems.source.distillable()]
    else:
        parts = [split for name, split in problems.splits.items() if name != "test"]
    if config.task == "sft":
        known = {problem.id for part in parts for problem in part}
        ids = {row.problem_id: None for row in read_jsonl(Path(str(config.sft.train)), ReasoningPath)}  # once, in order
        parts.append([problems.by_id[i] for i in ids if i not in known])

    with context.track("decontamination", sum(map(len, parts))) as track:

        def pairs() -> Iterator[dict[str, Any]]:
            for problem in chain.from_iterable(parts):
                yield from search.rows(problem)
                track.advance(1)

        write_jsonl(context.run.path / DECONTAMINATION_PAIRS, pairs())
    return {"problems": len(index), **search.counts, "notes": notes}
