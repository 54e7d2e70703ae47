"""The problems of a run: its splits, and which problems are left out of them.

**Unusable problems.** A model may not take a picture, or a picture cannot be read. ``base/bad_rows.jsonl`` lists them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, MutableMapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config.data import SyntheticData
from mathse.config.schema import TrainConfig, needs_orm
from mathse.data.decontamination.benchmark_files import index_of
from mathse.data.decontamination.search import Search
from mathse.data.images import has_scheme, stored_sha256, unreadable
from mathse.data.problem_table import ProblemsById, ids_of, without
from mathse.data.problems import REPEATS, FileData, ProblemSource, location
from mathse.errors import ConfigError, DataError
from mathse.inference.rows import solve_row
from mathse.runs.layout import BAD_ROWS, DECONTAMINATION, DECONTAMINATION_PAIRS, DONE, SOURCES
from mathse.runs.settings import config_slice
from mathse.runs.store import read_json, read_jsonl, to_json, write_json, write_jsonl
from mathse.types import Problem, ReasoningPath

if TYPE_CHECKING:
    from mathse.evolution.evolution_run import RunContext
    from mathse.models.base import Backbone
    from mathse.runs.stage_cache import Stage


class RunProblems:
    """``source``: the run's data. ``limit``: the number of test problems that students answer; None: all."""

    def __init__(self, source: Any, limit: int | None = None) -> None:
        self.source, self.limit = source, limit
        self.left_out: set[str] = set()

    @cached_property
    def splits(self) -> dict[str, Sequence[Problem]]:
        """Of sources that read files, each problem is read when it is asked for."""
        return dict(self.source.splits())

    @cached_property
    def by_id(self) -> MutableMapping[str, Problem]:
        """Every problem that a path may be about, those that are left out too."""
        if isinstance(self.source, FileData):
            return ProblemsById(self.source.table)
        return {p.id: p for problems in self.splits.values() for p in problems}

    def require(self, config: TrainConfig) -> str:
        """How many problems each split has, in a sentence. Raises DataError where a split that the run needs has none.

        A few rows of a file may leave a split without any: a run on them would train, judge or measure nothing.
        """
        sizes = {name: len(problems) for name, problems in self.splits.items()}
        counted = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        trains_orm = needs_orm(config) and config.judge.checkpoint is None and config.orm.train is None
        needed = {
            "test": ("students are measured on it", config.task in ("evolve", "sft")),
            "seed": ("the teacher solves it", config.task == "evolve"),
            "pool": ("the rounds sample it", config.task == "evolve" and config.evolution.rounds > 0),
            "orm_train": ("the ORM is trained on it", trains_orm),
            "orm_held": ("the ORM is measured on it", trains_orm),
        }
        for name, (purpose, is_needed) in needed.items():
            if is_needed and not sizes.get(name):
                raise DataError(
                    f"data: the split {name} has no problem, and {purpose} ({counted}); give more problems, or other "
                    "sizes or shares of the splits"
                )
        if config.evolution.resample == "better" and not sizes.get("dev"):
            raise DataError(
                "evolution.resample = 'better': compares students on dev problems, and the data has none; pass "
                "evolution.resample=all or never, or a dev split (data.dev, data.dev_share)"
            )
        return f"problems by split: {counted}"

    def leave_out(self, ids: set[str], but: Sequence[str] = ()) -> None:
        """Take problems out of every split but these; they stay known by id."""
        self.left_out |= ids
        for name, problems in self.splits.items():
            if name not in but:
                self.splits[name] = without(problems, ids)

    def add(self, problem_id: str) -> Problem:
        """A problem of the source, whatever split it is in; it is known from now on."""
        if problem_id not in self.by_id:
            self.by_id[problem_id] = self.source.get(problem_id)
        return self.by_id[problem_id]

    @property
    def distillable(self) -> Sequence[Problem]:
        """The problems that task=distill solves."""
        return without(self.source.distillable(), self.left_out)

    @property
    def ids_of_d(self) -> list[str]:
        """D, which the rounds try to solve."""
        return [*ids_of(self.splits["seed"]), *ids_of(self.splits["pool"])]

    @property
    def test(self) -> Sequence[Problem]:
        return self.splits["test"][: self.limit]


# --- unusable problems ------------------------------------------------------------------------------------------------

MIN_PROMPT = 16  # tokens; a context that leaves fewer holds no question
MAX_NAMED = 5  # rows named on the screen; the lists have all


def unreadable_images(context: RunContext, problems: RunProblems) -> list[dict[str, Any]]:
    """The problems with an image that cannot be decoded, as rows of ``bad_rows.jsonl``.

    Only images of which the source has read no more than the header are opened, each once, and before any weights
    are loaded. Under ``data.on_bad_row=error`` the first of them raises DataError.
    """
    source = problems.source
    if not isinstance(source, FileData) or not source.images.headed:
        return []
    headed = sorted(source.images.headed)
    reasons: dict[str, str] = {}  # by image
    with context.track("images", len(headed)) as track:
        for path, reason in zip(headed, unreadable(headed), strict=True):
            if reason is not None:
                reasons[path] = reason
            track.advance(1)
    bad_rows = []
    for problem in chain.from_iterable(problems.splits.values()):
        if (image := next((ref for ref in problem.images if ref in reasons), None)) is not None:
            file, line = location(source, problem)
            bad_rows.append({"file": file, "line": line, "id": problem.id, "reason": reasons[image]})
    if bad_rows and source.on_bad_row == "error":
        first = bad_rows[0]
        raise DataError(
            f"{first['file']}:{first['line']}: {first['reason']}; data.on_bad_row=skip leaves such rows out"
        )
    return bad_rows


def unread_pictures(context: RunContext, problems: RunProblems) -> list[dict[str, Any]]:
    """The problems with a picture where a model of the run reads text alone, as rows of ``bad_rows.jsonl``: known from
    the settings, before a model is opened.

    Raises DataError for the first of them, unless ``data.on_bad_row=skip``.
    """
    config = context.config
    orm = config.orm.backbone if config.orm.see_image and needs_orm(config) else None
    blind = next((b for b in (config.backbone, orm) if getattr(b, "max_images", None) == 0), None)
    if blind is None:
        return []
    remedy = (
        "choose a backbone that reads pictures (backbone=hf)"
        if blind is config.backbone
        else ("pass orm.see_image=false, or another orm.backbone")
    )
    bad_rows = []
    for problem in chain.from_iterable(problems.splits.values()):
        if problem.images:
            file, line = location(problems.source, problem)
            reason = f"has a picture, and {blind.path} reads text alone; {remedy}"
            bad_rows.append({"file": file, "line": line, "id": problem.id, "reason": reason})
    if bad_rows and getattr(config.data, "on_bad_row", "error") == "error":
        first = bad_rows[0]
        raise DataError(
            f"{first['file']}:{first['line']}: problem {first['id']} {first['reason']}; data.on_bad_row=skip leaves "
            "such rows out"
        )
    return bad_rows


def list_unusable(
    context: RunContext, problems: RunProblems, stage: Stage, backbone: Backbone, bad_rows: Sequence[dict[str, Any]]
) -> None:
    """Write the stage's ``bad_rows.jsonl``: what the source refused, ``bad_rows``, and what ``backbone`` cannot take.

    A prompt that leaves no room for an answer is always left out. A problem whose images the family cannot take follows
    ``data.on_bad_row``: under "error" it raises DataError. So does a data set of which too much, or all of a split,
    would be left out; ConfigError where the reason is that answers fill the model's whole context.
    """
    longest = backbone.context - context.config.evaluation.max_new_tokens  # tokens of a prompt
    if longest < MIN_PROMPT:
        raise ConfigError(
            f"evaluation.max_new_tokens = {context.config.evaluation.max_new_tokens:,}: leaves {max(0, longest):,} "
            f"tokens for a prompt, since the model's context is {backbone.context:,}; pass a smaller one"
        )
    strict = getattr(context.config.data, "on_bad_row", "error") == "error"
    listed = {row["id"] for row in bad_rows}
    refused = []
    for problem in chain.from_iterable(problems.splits.values()):
        if problem.id in listed:
            continue
        row = solve_row(backbone.prompt_style, problem)
        if (reason := backbone.refusal(row)) and strict:
            raise DataError(f"{problem.source}: {problem.id}: {reason}; data.on_bad_row=skip leaves such rows out")
        if reason := reason or backbone.too_long(row, longest):
            refused.append({"file": problem.source, "line": None, "id": problem.id, "reason": reason})
    left_out = [*problems.source.bad_rows, *bad_rows, *refused]
    write_jsonl(stage.path / BAD_ROWS, left_out)
    _refuse_mostly_unusable(context, problems, left_out)


def _refuse_mostly_unusable(context: RunContext, problems: RunProblems, left_out: Sequence[dict[str, Any]]) -> None:
    """Raises DataError where more rows are left out than ``data.max_left_out`` allows, or a whole split."""
    unusable = [row for row in left_out if not str(row["reason"]).startswith(REPEATS)]
    if not unusable:
        return
    refused_by_source = sum(not str(row["reason"]).startswith(REPEATS) for row in problems.source.bad_rows)
    total = refused_by_source + sum(map(len, problems.splits.values()))
    allowed = getattr(context.config.data, "max_left_out", 1.0)
    ids = {row["id"] for row in left_out}
    empty = [name for name, split in problems.splits.items() if split and all(p.id in ids for p in split)]
    if len(unusable) <= allowed * total and not empty:
        return
    first = unusable[0]
    position = f"{first['file']}:{first['line']}" if first["line"] else f"{first['file']}: {first['id']}"
    of_split = f", among them all of {', '.join(empty)}" if empty else ""
    raise DataError(
        f"{len(unusable):,} of {total:,} rows cannot be used{of_split}; at most {allowed:.0%} may be left out "
        f"(data.max_left_out = {allowed:g}). The first: {position}: {first['reason']}"
    )


def leave_out_listed(context: RunContext, problems: RunProblems, stage: Stage) -> None:
    """Take the problems that the stage's ``bad_rows.jsonl`` lists out of the splits, and report them.

    Done at every start of the run, so that a resumed run has the same splits.
    """
    bad_rows = list(read_jsonl(stage.path / BAD_ROWS))
    for row in bad_rows[:MAX_NAMED]:
        position = f"{row['file']}:{row['line']}" if row["line"] else f"{row['file']}: {row['id']}"
        context.progress.say(f"left out: {position}: {row['reason']}")
    if bad_rows:
        context.note(
            f"{len(bad_rows)} rows of the data were left out; {stage.name}/{BAD_ROWS} lists them with the reason"
        )
    # A row that the source refused may repeat the id of a good row, which stays: only the row that gave the problem
    # counts. Rows without a line are those that the backbone cannot take, and are named by the problem itself.
    unusable = set()
    for row in bad_rows:
        problem = problems.by_id.get(row["id"]) if row["id"] is not None else None
        if row["line"] is None or (
            problem is not None and location(problems.source, problem) == (row["file"], row["line"])
        ):
            unusable.add(row["id"])
    problems.leave_out(unusable)


# --- decontamination --------------------------------------------------------------------------------------------------

DEPENDS_ON = ("data", "decontaminate", "seed", "task", "sft.train", "sft.train_sha256")
COMPARISON_VERSION = 2  # of the comparison; 2: labels in drawings are compared


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
        if not isinstance(context.config.data, SyntheticData):  # which draws its own problems: no benchmark has them
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
    versions = range(1, COMPARISON_VERSION + 1) if begun else (COMPARISON_VERSION,)
    keys = [_hash([version, config_slice(context.run.config, DEPENDS_ON)]) for version in versions]
    if not (counts_file.is_file() and pairs.is_file() and read_json(counts_file)["key"] in keys):
        write_json(counts_file, {"key": keys[-1], **_compare_with_benchmarks(context, problems)})
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
        named = [
            f"{i} (as {row['against_id']}: {', '.join(row['by'])})" for i, row in list(dropped.items())[:MAX_NAMED]
        ]
        more = f" and {len(dropped) - MAX_NAMED:,} more" if len(dropped) > MAX_NAMED else ""
        context.progress.say(f"left out of training: {'; '.join(named)}{more}; the whole list: {pairs}")
    for line in (*counts["notes"], summary):
        context.note(line)


def _hash(depends_on: Any) -> str:
    return hashlib.sha256(to_json(depends_on).encode()).hexdigest()


def _compare_with_benchmarks(context: RunContext, problems: RunProblems) -> dict[str, Any]:
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


# --- sources ----------------------------------------------------------------------------------------------------------

RECENT = 4096  # images whose hash is kept: problems about the same picture mostly stand together


def record_sources(context: RunContext, problems: RunProblems, stage: Stage) -> None:
    """Write the file into the stage's folder, where it is not there yet."""
    file = stage.path / SOURCES
    if file.exists():
        return
    digest = lru_cache(RECENT)(stored_sha256)
    with context.track("image hashes", sum(map(len, problems.splits.values()))) as track:

        def rows() -> Iterator[dict[str, Any]]:
            for split, in_split in problems.splits.items():
                for problem in in_split:
                    hashes = [digest(ref) for ref in problem.images]
                    from_file = origin(problems.source, problem)
                    yield {"problem_id": problem.id, "split": split, **from_file, "image_sha256": hashes}
                    track.advance(1)

        write_jsonl(file, rows())


def origin(source: ProblemSource, problem: Problem) -> dict[str, Any]:
    """The file and line of a problem, and its images as seen from there."""
    return origin_at(problem, *location(source, problem))


def origin_at(problem: Problem, file: str, line: int | None) -> dict[str, Any]:
    """The same of a problem whose file and line are known."""
    images = [ref if has_scheme(ref) else os.path.relpath(ref, _folder(file)) for ref in problem.images]
    return {"file": file, "line": line, "source": problem.source, "images": images}


def image_at(file: str, image: str) -> str:
    """The reference of an image in a row of sources.jsonl, which ``images.load_image`` opens."""
    return image if has_scheme(image) else os.path.normpath(os.path.join(_folder(file), image))


@lru_cache(maxsize=64)
def _folder(file: str) -> str:
    return str(Path(file).parent.resolve())
