"""The check itself: counts the rows that can be used, lists the others, and writes both."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from mathse.commands.data_check.page import render_page
from mathse.config import build
from mathse.config.schema import TrainConfig
from mathse.data.answer_form import answer_form
from mathse.data.decontamination import ComparedRow, Index
from mathse.data.decontamination.benchmark_files import index_of
from mathse.data.decontamination.index import ComparedImage
from mathse.data.decontamination.search import Search
from mathse.data.domains import final_answer, has_answer, open_domain
from mathse.data.images import load_image
from mathse.data.language import language
from mathse.data.problems import NoProblems, bad_rows_text, location
from mathse.data.sources import with_domain
from mathse.errors import DataError, MathSEError
from mathse.inference.rows import solve_row
from mathse.models import silence_transformers
from mathse.models.base import Backbone
from mathse.models.model_spec import ModelSpec
from mathse.models.prompt_reader import open_reader
from mathse.models.row import Row
from mathse.reporting.pages import write_page
from mathse.reporting.progress import Progress
from mathse.reporting.progress.wording import align_columns
from mathse.runs.layout import BAD_ROWS, DECONTAMINATION_PAIRS
from mathse.runs.store import make_folder, write_json, write_jsonl
from mathse.seeds import derive
from mathse.types import Problem

WARNINGS = "warnings.jsonl"
FIGURES, PAGE = "data_check.json", "data_check.html"
MAX_SAMPLES = 24  # rows on the page
# Upper ends of the classes in which lengths and sizes are counted.
LENGTH_ENDS = (50, 100, 200, 400, 800, 1600)  # characters of a question
SIDE_ENDS = (64, 128, 256, 512, 1024, 2048, 4096)  # pixels of a picture's longer side


class DataCounts:
    """Counts the usable rows by source, language, form of answer, pictures, lengths and sizes.

    Memory has a few numbers per row, and the samples.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.samples: list[Problem] = []
        self._by: dict[str, Counter[str]] = {name: Counter() for name in ("source", "language", "answer", "pictures")}
        self._lengths, self._sides = array("L"), array("L")
        self._sample_keys: list[int] = []  # in ascending order, one per sample
        self._pictures: Counter[str] = Counter()  # by content

    def add(self, problem: Problem, row: ComparedRow) -> None:
        """Count a usable row."""
        self.rows += 1
        values = {
            "source": problem.source or "-",
            "language": str(problem.metadata.get("language") or language(problem.question, problem.choices)),
            "answer": answer_form(problem.answer, problem.choices).kind,
            "pictures": str(len(problem.images)),
        }
        for name, value in values.items():
            self._by[name][value] += 1
        self._lengths.append(len(problem.question))
        for image in row.images:
            self._sides.append(max(image.grey.shape))
            self._pictures[image.pixels] += 1

        # The samples have the lowest hashes of their ids: the same rows each time, spread over the whole set.
        key = derive(0, "sample", problem.id)
        if len(self._sample_keys) < MAX_SAMPLES or key < self._sample_keys[-1]:
            index = sum(known < key for known in self._sample_keys)
            self._sample_keys.insert(index, key)
            self.samples.insert(index, problem)
            del self._sample_keys[MAX_SAMPLES:], self.samples[MAX_SAMPLES:]

    def to_json(self) -> dict[str, Any]:
        shared = sum(count - 1 for count in self._pictures.values())
        return {
            **{f"by_{name}": dict(counter.most_common()) for name, counter in self._by.items()},
            "question_length": _describe_spread(self._lengths, LENGTH_ENDS),
            "picture_side": _describe_spread(self._sides, SIDE_ENDS),
            "pictures_shown_again": shared,
        }


def _describe_spread(values: Sequence[int], ends: Sequence[int]) -> dict[str, Any]:
    """Return the least, median and greatest value, and the number of values up to each end."""
    if not values:
        return {"least": None, "median": None, "greatest": None, "up_to": {}}
    ordered = sorted(values)
    up_to: dict[str, int] = {}
    low = 0
    for high in ends:
        if count := sum(low < value <= high for value in ordered):
            up_to[f"{high:,}"] = count
        low = high
    if count := sum(value > low for value in ordered):
        up_to[f"more than {low:,}"] = count
    return {
        "least": ordered[0],
        "median": ordered[len(ordered) // 2],
        "greatest": ordered[-1],
        "up_to": up_to,
    }


class DataCheck:
    """The check of all problems of a source.

    Attributes:
        counts: counts of the usable rows.
        bad: the rows that cannot be used: {"file", "line", "id", "reason"}.
        too_long: the number of bad rows that are too long for the backbone.
        warnings: rows to look at: repeated rows, answers that contradict each other or the row's own solution.
        pairs: rows of a benchmark.
    """

    def __init__(self, config: TrainConfig, source: Any, backbone: Backbone | None, index: Index) -> None:
        self.config, self.source, self.backbone = config, source, backbone
        self.search = Search(index, source, drop=False)  # a run drops rows of a benchmark, a check reports them
        self.counts = DataCounts()
        self.bad: list[dict[str, object]] = list(source.bad_rows) if source is not None else []
        self.too_long = 0
        self.warnings: list[dict[str, Any]] = []
        self.pairs: list[dict[str, Any]] = []

    def check_problem(self, problem: Problem) -> None:
        """Count a problem, or list it as bad."""
        try:
            images = [load_image(ref) for ref in problem.images]
        except DataError as error:
            reason: str | None = str(error)
        else:
            reason = self._find_refusal(problem, images)
        if reason is not None:
            file, line = location(self.source, problem)
            self.bad.append({"file": file, "line": line, "id": problem.id, "reason": reason})
            return
        pictures = ComparedRow.of_images(problem, [ComparedImage.of(image) for image in images])
        self.counts.add(problem, pictures)
        # Rows of a benchmark, and rows that repeat an earlier row.
        for row in self.search.rows(problem, pictures):
            if row["by"] != ["duplicate"]:
                self.pairs.append(row)
                continue
            self.warnings.append(row)
            first = self.source.get(row["against_id"])
            if not has_answer(first, problem.answer):
                both = f"answer {problem.answer!r:.60}, and the same question has {first.answer!r:.60}"
                self._warn(problem, "contradiction", f"{both} in row {first.id}")
        # A solution should end in the row's own answer.
        answer = None if problem.solution is None else final_answer(problem, problem.solution)
        if answer is not None and not has_answer(problem, answer):
            self._warn(problem, "solution", f"the solution does not end in the answer {problem.answer!r:.60}")

    def _find_refusal(self, problem: Problem, images: Sequence[Image]) -> str | None:
        """Return the reason against a problem, as in a run (mathse/evolution/problems.py); None if it can be used."""
        if self.backbone is None:
            return None
        row = solve_row(self.backbone.prompt_style, problem)
        if (reason := self.backbone.refusal(row)) is not None:  # this reason names a picture by its file
            return reason
        opened = Row(**{**row, "images": images})  # each picture is decoded once
        reason = self.backbone.too_long(opened, self.backbone.context - self.config.evaluation.max_new_tokens)
        self.too_long += reason is not None
        return reason

    def _warn(self, problem: Problem, kind: str, text: str) -> None:
        file, line = location(self.source, problem)
        self.warnings.append({"id": problem.id, "file": file, "line": line, "by": [kind], "said": text})

    def figures(self) -> dict[str, Any]:
        """Return the contents of data_check.json."""
        kinds = [row["by"][0] for row in self.warnings]
        searched = {"problems": len(self.search.index), **self.search.counts} if self.search.index else None
        return {
            "rows": self.counts.rows + len(self.bad),
            "used": self.counts.rows,
            "listed": len(self.bad),
            "too_long": self.too_long,
            **self.counts.to_json(),
            "duplicates": kinds.count("duplicate"),
            "contradictions": kinds.count("contradiction"),
            "solutions_without_the_answer": kinds.count("solution"),
            "decontamination": searched,
            "backbone": None if self.backbone is None else self.backbone.family,
        }


def check(config: TrainConfig, folder: Path) -> str | None:
    """Check the data and write the results into ``folder``. Returns the error if a bad row is an error, else None."""
    silence_transformers()
    make_folder(folder)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(config.progress))
        notes: list[str] = []

        # The check lists all bad rows, also with on_bad_row=error. Without a usable row there is no source.
        section: Any = config.data
        if is_dataclass(section) and hasattr(section, "on_bad_row"):
            section = replace(section, on_bad_row="skip")  # type: ignore[type-var]
        source, unusable = None, list[dict[str, object]]()
        try:
            source = with_domain(build(section), open_domain(config.task_domain))
        except NoProblems as error:
            if not error.bad_rows:
                raise
            unusable = error.bad_rows

        backbone = _open_backbone(config, notes) if source else None
        settings = config.decontaminate
        index = Index()
        if settings.action != "off" and settings.against:
            index = index_of(settings.against, settings.text_similarity, settings.picture_distance, notes.append)
        data_check = DataCheck(config, source, backbone, index)
        data_check.bad += unusable
        problems = _list_problems(source)
        track = progress.track("rows", len(problems))
        for problem in problems:
            data_check.check_problem(problem)
            track.advance(1)
        track.close()

        # Write the results, then print the counts.
        splits = {} if source is None else {name: len(problems) for name, problems in source.splits().items()}
        notes += source.notes if source else ()
        figures = {**data_check.figures(), "splits": splits, "notes": notes}
        write_jsonl(folder / BAD_ROWS, data_check.bad)
        write_jsonl(folder / WARNINGS, data_check.warnings)
        if figures["decontamination"]:
            write_jsonl(folder / DECONTAMINATION_PAIRS, data_check.pairs)
        write_json(folder / FIGURES, figures)
        rows_to_look_at = [*data_check.warnings, *data_check.pairs]
        html = render_page(config, figures, data_check.bad, rows_to_look_at, data_check.counts.samples)
        write_page(html, folder / PAGE)

        table = [("", "rows")]
        for name in ("rows", "used", "listed", "too_long", "duplicates", "contradictions"):
            table.append((name.replace("_", " "), f"{figures[name]:,}"))
        for group in ("by_source", "by_language", "by_answer", "by_pictures"):
            table += [(f"{group.removeprefix('by_')}: {name}", f"{count:,}") for name, count in figures[group].items()]
        for line in (*align_columns(table), *notes):
            progress.say(line)
        progress.say(f"{folder / PAGE}; listed rows: {folder / BAD_ROWS}")
    strict = getattr(config.data, "on_bad_row", "error") == "error"
    fails = strict and len(data_check.bad) > data_check.too_long
    return bad_rows_text(data_check.bad, data_check.counts.rows) if fails else None


def _open_backbone(config: TrainConfig, notes: list[str]) -> Backbone | None:
    """Open the part of the backbone that writes prompts. A missing backbone gives None and a note."""
    changes = {"init_seed": 0} if getattr(config.backbone, "path", "") is None else {}
    try:
        return open_reader(config.backbone, ModelSpec(config.backbone, changes).open)
    except (MathSEError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        notes.append(f"The backbone could not be opened ({reason}), so no prompt was measured.")
        return None


def _list_problems(source: Any) -> Sequence[Problem]:
    """Return each problem of a source once, in its order."""
    if source is None:
        return []
    if (table := getattr(source, "table", None)) is not None:
        problems: Sequence[Problem] = table.select(table.ids())
        return problems
    problems_by_id: dict[str, Problem] = {}
    for split in source.splits().values():
        problems_by_id |= {problem.id: problem for problem in split}
    return list(problems_by_id.values())
