"""The problems of a run: its splits, and which problems are left out of them. It loads no torch.

Problems are left out for two reasons. No problem is shortened.

- They are unusable: a model cannot take their picture or their length, or their picture cannot be decoded.
  ``base/bad_rows.jsonl`` lists them beside the rows that the data source refused, as {"file", "line", "id", "reason"}.
  Rows of the data = rows in use + rows in the list, so users can check their files against a run.
- They are problems of a benchmark. ``decontamination.jsonl`` lists the pairs (see
  mathse/data/decontamination/search.py), and ``decontamination.json`` counts them.

``base/sources.jsonl`` records the file, line and images of every problem.
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
from mathse.data.problems import REPEATS, FileData, location
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

MAX_NAMED = 5  # rows that the screen names; the files list all


class RunProblems:
    """The splits of a run, without the problems that are left out.

    Args:
        source: the run's data.
        limit: test problems that students answer. None: all.
    """

    def __init__(self, source: Any, limit: int | None = None) -> None:
        self.source, self.limit = source, limit
        self.left_out: set[str] = set()

    @cached_property
    def splits(self) -> dict[str, Sequence[Problem]]:
        """The splits by name. A source of files reads a problem each time that it is used."""
        return dict(self.source.splits())

    @cached_property
    def by_id(self) -> MutableMapping[str, Problem]:
        """Every problem that a path may belong to, including problems that are left out."""
        if isinstance(self.source, FileData):
            return ProblemsById(self.source.table)
        problems = chain.from_iterable(self.splits.values())
        return {problem.id: problem for problem in problems}

    def require(self, config: TrainConfig) -> str:
        """Check that no split that the run needs is empty: such a run would train, judge or measure nothing.

        Returns:
            A sentence with the size of each split.

        Raises:
            DataError: a split is empty. A file with few rows may leave one without any.
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
        """Remove problems from the splits, except from the splits ``but``. ``by_id`` keeps them."""
        self.left_out |= ids
        for name, problems in self.splits.items():
            if name not in but:
                self.splits[name] = without(problems, ids)

    def add(self, problem_id: str) -> Problem:
        """Return a problem of the source, of any split, and add it to ``by_id``."""
        if problem_id not in self.by_id:
            self.by_id[problem_id] = self.source.get(problem_id)
        return self.by_id[problem_id]

    @property
    def distillable(self) -> Sequence[Problem]:
        """The problems of task=distill."""
        return without(self.source.distillable(), self.left_out)

    @property
    def ids_of_d(self) -> list[str]:
        """D, the problems of Algorithm 1."""
        return [*ids_of(self.splits["seed"]), *ids_of(self.splits["pool"])]

    @property
    def test(self) -> Sequence[Problem]:
        return self.splits["test"][: self.limit]


# --- unusable problems ------------------------------------------------------------------------------------------------

MIN_PROMPT_TOKENS = 16  # a context that leaves fewer tokens has no room for a question


def find_unreadable_images(context: RunContext, problems: RunProblems) -> list[dict[str, Any]]:
    """Return the problems with an image that cannot be decoded, as rows of ``bad_rows.jsonl``.

    Each image is decoded once, before any weights are loaded. Images that the source has decoded already are skipped.

    Raises:
        DataError: there is such an image, and ``data.on_bad_row`` is "error".
    """
    source = problems.source
    if not isinstance(source, FileData) or not source.images.headed:
        return []
    headed = sorted(source.images.headed)  # the source has read only the header of these
    reasons: dict[str, str] = {}  # by image
    with context.track("images", len(headed)) as track:
        for path, reason in zip(headed, unreadable(headed), strict=True):
            if reason is not None:
                reasons[path] = reason
            track.advance(1)
    bad_rows = []
    for problem in chain.from_iterable(problems.splits.values()):
        image = next((ref for ref in problem.images if ref in reasons), None)
        if image is not None:
            file, line = location(source, problem)
            bad_rows.append({"file": file, "line": line, "id": problem.id, "reason": reasons[image]})
    if bad_rows and source.on_bad_row == "error":
        first = bad_rows[0]
        raise DataError(
            f"{first['file']}:{first['line']}: {first['reason']}; data.on_bad_row=skip leaves such rows out"
        )
    return bad_rows


def find_pictures_without_reader(context: RunContext, problems: RunProblems) -> list[dict[str, Any]]:
    """Return the problems with a picture if a model of the run reads only text, as rows of ``bad_rows.jsonl``.

    The settings say which models read pictures, so no model is opened.

    Raises:
        DataError: there is such a problem, and ``data.on_bad_row`` is not "skip".
    """
    config = context.config
    orm = config.orm.backbone if config.orm.see_image and needs_orm(config) else None
    text_only = next((b for b in (config.backbone, orm) if getattr(b, "max_images", None) == 0), None)
    if text_only is None:
        return []
    if text_only is config.backbone:
        remedy = "choose a backbone that reads pictures (backbone=hf)"
    else:
        remedy = "pass orm.see_image=false, or another orm.backbone"
    bad_rows = []
    for problem in chain.from_iterable(problems.splits.values()):
        if problem.images:
            file, line = location(problems.source, problem)
            reason = f"has a picture, and {text_only.path} reads text alone; {remedy}"
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
    """Write the stage's ``bad_rows.jsonl``: rows that the source refused, ``bad_rows``, and problems that ``backbone``
    cannot take.

    A prompt without room for an answer is always left out. ``data.on_bad_row`` decides about a problem with images that
    the family of the backbone cannot take.

    Raises:
        DataError: such an image under ``data.on_bad_row=error``; or too many rows, or a whole split, would be left out.
        ConfigError: answers fill the whole context of the model.
    """
    max_answer = context.config.evaluation.max_new_tokens
    max_prompt = backbone.context - max_answer  # tokens
    if max_prompt < MIN_PROMPT_TOKENS:
        raise ConfigError(
            f"evaluation.max_new_tokens = {max_answer:,}: leaves {max(0, max_prompt):,} tokens for a prompt, since the "
            f"model's context is {backbone.context:,}; pass a smaller one"
        )
    strict = getattr(context.config.data, "on_bad_row", "error") == "error"
    listed = {row["id"] for row in bad_rows}
    refused = []
    for problem in chain.from_iterable(problems.splits.values()):
        if problem.id in listed:
            continue
        row = solve_row(backbone.prompt_style, problem)
        reason = backbone.refusal(row)
        if reason and strict:
            raise DataError(f"{problem.source}: {problem.id}: {reason}; data.on_bad_row=skip leaves such rows out")
        reason = reason or backbone.too_long(row, max_prompt)
        if reason:
            refused.append({"file": problem.source, "line": None, "id": problem.id, "reason": reason})
    left_out = [*problems.source.bad_rows, *bad_rows, *refused]
    write_jsonl(stage.path / BAD_ROWS, left_out)
    _limit_left_out(context, problems, left_out)


def _limit_left_out(context: RunContext, problems: RunProblems, left_out: Sequence[dict[str, Any]]) -> None:
    """Raise DataError if more rows are left out than ``data.max_left_out`` allows, or a whole split. Repeated rows do
    not count."""
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
    of_split = f", among them all of {', '.join(empty)}" if empty else ""
    raise DataError(
        f"{len(unusable):,} of {total:,} rows cannot be used{of_split}; at most {allowed:.0%} may be left out "
        f"(data.max_left_out = {allowed:g}). The first: {_name_position(unusable[0])}: {unusable[0]['reason']}"
    )


def leave_out_listed(context: RunContext, problems: RunProblems, stage: Stage) -> None:
    """Remove the problems in the stage's ``bad_rows.jsonl`` from the splits, and report them.

    Each start of a run does this, so a resumed run has the same splits.
    """
    bad_rows = list(read_jsonl(stage.path / BAD_ROWS))
    for row in bad_rows[:MAX_NAMED]:
        context.progress.say(f"left out: {_name_position(row)}: {row['reason']}")
    if bad_rows:
        context.note(
            f"{len(bad_rows)} rows of the data were left out; {stage.name}/{BAD_ROWS} lists them with the reason"
        )
    # A row that the source refused may repeat the id of a good row, which stays. So a row with a line counts only if
    # its problem came from this line. A row without a line is a problem that the backbone cannot take.
    unusable = set()
    for row in bad_rows:
        problem = problems.by_id.get(row["id"]) if row["id"] is not None else None
        if row["line"] is None or (
            problem is not None and location(problems.source, problem) == (row["file"], row["line"])
        ):
            unusable.add(row["id"])
    problems.leave_out(unusable)


def _name_position(row: dict[str, Any]) -> str:
    """The position of a bad row in messages: its file with the line, or with the id."""
    return f"{row['file']}:{row['line']}" if row["line"] else f"{row['file']}: {row['id']}"


# --- decontamination --------------------------------------------------------------------------------------------------
# The training data is compared with the problems of ``decontaminate.against`` before the first fit. The comparison is
# made once, and again if the data, a benchmark or a setting has changed.

# Version of the comparison, part of the key in decontamination.json. 2: labels in drawings are compared.
COMPARISON_VERSION = 2
COMPARISON_KEYS = ("data", "decontaminate", "seed", "task", "sft.train", "sft.train_sha256")


def list_decontamination_keys(config: TrainConfig) -> tuple[str, ...]:
    """Return the settings that stages depend on because rows may be dropped; none if no row is dropped."""
    settings = config.decontaminate
    return ("decontaminate",) if settings.action == "drop" and settings.against else ()


def decontaminate(context: RunContext, problems: RunProblems) -> None:
    """Compare the training data with benchmarks, write the report, and leave dropped rows out of every split but test.

    The test split stays whole, because a benchmark may be the test file.

    Raises:
        DataError: no training row remains.
    """
    settings = context.config.decontaminate
    if settings.action == "off" or not settings.against:
        # The synthetic task draws its own problems, and no benchmark has them.
        if not isinstance(context.config.data, SyntheticData):
            why = "is off" if settings.action == "off" else "was given no benchmark"
            context.notes.append(
                f"Decontamination {why}, so no training row was compared with a benchmark's problems; "
                "decontaminate.against=[FILES] names those to keep out."
            )
        return

    # 1) Compare, unless the report belongs to the same settings, files and version. A run with stages keeps a report of
    # an earlier version, so that D stays the same.
    pairs_file, counts_file = context.run.path / DECONTAMINATION_PAIRS, context.run.path / DECONTAMINATION
    has_stages = (context.run.path / "base" / DONE).is_file()
    versions = range(1, COMPARISON_VERSION + 1) if has_stages else (COMPARISON_VERSION,)
    settings_of_comparison = config_slice(context.run.config, COMPARISON_KEYS)
    keys = [hashlib.sha256(to_json([version, settings_of_comparison]).encode()).hexdigest() for version in versions]
    if not (counts_file.is_file() and pairs_file.is_file() and read_json(counts_file)["key"] in keys):
        write_json(counts_file, {"key": keys[-1], **_compare_with_benchmarks(context, problems)})

    # 2) Leave the dropped rows out.
    dropped = {row["id"]: row for row in read_jsonl(pairs_file) if row["dropped"]}
    problems.leave_out(set(dropped), but=("test",))
    counts = read_json(counts_file)
    if counts["dropped"] == counts["rows"]:
        raise DataError(
            f"{pairs_file}: every training row is in a benchmark; train on other data, or have them reported and kept: "
            "decontaminate.action=report"
        )

    # 3) Report.
    if dropped:
        first = list(dropped.items())[:MAX_NAMED]
        named = [f"{i} (as {row['against_id']}: {', '.join(row['by'])})" for i, row in first]
        more = f" and {len(dropped) - MAX_NAMED:,} more" if len(dropped) > MAX_NAMED else ""
        context.progress.say(f"left out of training: {'; '.join(named)}{more}; the whole list: {pairs_file}")
    outcome = f"{counts['dropped']:,} were dropped" if settings.action == "drop" else "reported, not dropped"
    summary = (
        f"decontamination: of {counts['rows']:,} training rows {counts['matched']:,} are among {counts['problems']:,} "
        f"benchmark problems ({outcome}); {counts['weak']:,} share only a question that does not tell which problem it "
        f"is, and {counts['duplicates']:,} repeat another row (kept): {DECONTAMINATION_PAIRS}"
    )
    for line in (*counts["notes"], summary):
        context.note(line)


def _compare_with_benchmarks(context: RunContext, problems: RunProblems) -> dict[str, Any]:
    """Write the pairs of a training row and a benchmark problem.

    Returns:
        The number of pairs by kind, the number of benchmark problems, and notes for the summary.
    """
    config, notes = context.config, list[str]()
    settings = config.decontaminate
    index = index_of(settings.against, settings.text_similarity, settings.picture_distance, notes.append)
    search = Search(index, problems.source, drop=settings.action == "drop")

    # Training may learn from every split but test; in task=distill from every row; in task=sft from its rows too.
    parts: list[Sequence[Problem]]
    if config.task == "distill":
        parts = [problems.source.distillable()]
    else:
        parts = [split for name, split in problems.splits.items() if name != "test"]
    if config.task == "sft":
        in_splits = {problem.id for problem in chain.from_iterable(parts)}
        rows = read_jsonl(Path(str(config.sft.train)), ReasoningPath)
        ids = dict.fromkeys(row.problem_id for row in rows)  # each id once, in the order of the rows
        parts.append([problems.by_id[i] for i in ids if i not in in_splits])

    with context.track("decontamination", sum(map(len, parts))) as track:

        def find_pairs() -> Iterator[dict[str, Any]]:
            for problem in chain.from_iterable(parts):
                yield from search.rows(problem)
                track.advance(1)

        write_jsonl(context.run.path / DECONTAMINATION_PAIRS, find_pairs())
    return {"problems": len(index), **search.counts, "notes": notes}


# --- sources ----------------------------------------------------------------------------------------------------------
# A row of base/sources.jsonl:
#     {"problem_id": "geo/12", "split": "pool", "file": "data/geo.jsonl", "line": 12, "source": "geo.jsonl",
#      "images": ["images/12.png"], "image_sha256": ["5f0c..."]}
# ``images`` are paths relative to the file's folder, or references of pictures that are drawn or in a table. A hash is
# the hash of the stored bytes (``sha256sum``); of a drawn picture, the hash of its pixels. Files may change after a
# run, but this record is written once, before the first fit.

MAX_RECENT_IMAGES = 4096  # cached hashes; problems with the same picture are mostly neighbours


def record_sources(context: RunContext, problems: RunProblems, stage: Stage) -> None:
    """Write the stage's ``sources.jsonl`` unless it exists: a row per problem, split by split."""
    file = stage.path / SOURCES
    if file.exists():
        return
    digest = lru_cache(MAX_RECENT_IMAGES)(stored_sha256)
    with context.track("image hashes", sum(map(len, problems.splits.values()))) as track:

        def make_rows() -> Iterator[dict[str, Any]]:
            for split, in_split in problems.splits.items():
                for problem in in_split:
                    hashes = [digest(ref) for ref in problem.images]
                    origin = describe_origin(problem, *location(problems.source, problem))
                    yield {"problem_id": problem.id, "split": split, **origin, "image_sha256": hashes}
                    track.advance(1)

        write_jsonl(file, make_rows())


def describe_origin(problem: Problem, file: str, line: int | None) -> dict[str, Any]:
    """Return the file and line of a problem, and its images relative to the file's folder."""
    images = [ref if has_scheme(ref) else os.path.relpath(ref, _resolve_folder(file)) for ref in problem.images]
    return {"file": file, "line": line, "source": problem.source, "images": images}


def resolve_image(file: str, image: str) -> str:
    """Return the reference of an image in a row of ``sources.jsonl``, for ``images.load_image``."""
    return image if has_scheme(image) else os.path.normpath(os.path.join(_resolve_folder(file), image))


@lru_cache(maxsize=64)
def _resolve_folder(file: str) -> str:
    return str(Path(file).parent.resolve())
