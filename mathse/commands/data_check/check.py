"""The check itself: rows in, rows used and rows listed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from mathse.commands.data_check.counts import DataCounts
from mathse.commands.data_check.page import page
from mathse.config import build
from mathse.config.schema import TrainConfig
from mathse.data.decontamination import ComparedRow, Index
from mathse.data.decontamination.benchmark_files import index_of
from mathse.data.decontamination.index import ComparedImage
from mathse.data.decontamination.search import Search
from mathse.data.domains import final_answer, has_answer, open_domain
from mathse.data.images import load_image
from mathse.data.problems import NoProblems, bad_rows_text, location
from mathse.data.sources import with_domain
from mathse.errors import DataError, MathSEError
from mathse.inference.rows import solve_row
from mathse.models import quiet
from mathse.models.base import Backbone
from mathse.models.model_spec import ModelSpec
from mathse.models.prompt_reader import reader_as_set
from mathse.models.row import Row
from mathse.reporting.pages import write_page
from mathse.reporting.progress import Progress
from mathse.reporting.progress.wording import align_columns
from mathse.runs.layout import BAD_ROWS, DECONTAMINATION_PAIRS
from mathse.runs.store import make_folder, write_json, write_jsonl
from mathse.types import Problem

WARNINGS = "warnings.jsonl"
FIGURES, PAGE = "data_check.json", "data_check.html"


class DataCheck:
    """One look at all of a source's problems.

    Attributes:
        counts: of the rows that can be used.
        bad: the rows that cannot: {"file", "line", "id", "reason"}.
        too_long: how many of those are too long for the backbone.
        warnings: rows to look at: repeated ones, answers that contradict each other or the row's own solution.
        pairs: rows that are in a benchmark.
    """

    def __init__(self, config: TrainConfig, source: Any, backbone: Backbone | None, index: Index) -> None:
        self.config, self.source, self.backbone = config, source, backbone
        self.search = Search(index, source, drop=False)  # a run drops, a look reports
        self.counts = DataCounts()
        self.bad: list[dict[str, object]] = list(source.bad_rows) if source is not None else []
        self.too_long = 0
        self.warnings: list[dict[str, Any]] = []
        self.pairs: list[dict[str, Any]] = []

    def look(self, problem: Problem) -> None:
        """Count a problem, or list it."""
        try:
            images = [load_image(ref) for ref in problem.images]
        except DataError as error:
            reason: str | None = str(error)
        else:
            reason = self._refusal(problem, images)
        if reason is not None:
            file, line = location(self.source, problem)
            self.bad.append({"file": file, "line": line, "id": problem.id, "reason": reason})
            return
        pictures = ComparedRow.of_images(problem, [ComparedImage.of(image) for image in images])
        self.counts.add(problem, pictures)
        for row in self.search.rows(problem, pictures):
            if row["by"] != ["duplicate"]:
                self.pairs.append(row)
                continue
            self.warnings.append(row)
            first = self.source.get(row["against_id"])
            if not has_answer(first, problem.answer):
                both = f"answer {problem.answer!r:.60}, and the same question has {first.answer!r:.60}"
                self._warn(problem, "contradiction", f"{both} in row {first.id}")
        answer = None if problem.solution is None else final_answer(problem, problem.solution)
        if answer is not None and not has_answer(problem, answer):
            self._warn(problem, "solution", f"the solution does not end in the answer {problem.answer!r:.60}")

    def _refusal(self, problem: Problem, images: Sequence[Image]) -> str | None:
        """Why the backbone cannot take a problem, as in a run (mathse/evolution/filter.py)."""
        if self.backbone is None:
            return None
        row = solve_row(self.backbone.prompt_style, problem)
        if (reason := self.backbone.refusal(row)) is not None:  # which names a picture by its file
            return reason
        opened = Row(**{**row, "images": images})  # decoded once
        reason = self.backbone.too_long(opened, self.backbone.context - self.config.evaluation.max_new_tokens)
        self.too_long += reason is not None
        return reason

    def _warn(self, problem: Problem, kind: str, text: str) -> None:
        file, line = location(self.source, problem)
        self.warnings.append({"id": problem.id, "file": file, "line": line, "by": [kind], "said": text})

    def figures(self) -> dict[str, Any]:
        """data_check.json."""
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
    """Look at the data and write the result into ``folder``; the error where a bad row is one, else None."""
    quiet()
    make_folder(folder)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(config.progress))
        notes: list[str] = []

        # The source, its bad rows listed whatever on_bad_row says; none, and the rows, where no row can be used.
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

        backbone = _backbone(config, notes) if source else None
        wanted = config.decontaminate
        index = Index()
        if wanted.action != "off" and wanted.against:
            index = index_of(wanted.against, wanted.text_similarity, wanted.picture_distance, notes.append)
        data_check = DataCheck(config, source, backbone, index)
        data_check.bad += unusable
        problems = _problems(source)
        track = progress.track("rows", len(problems))
        for problem in problems:
            data_check.look(problem)
            track.advance(1)
        track.close()

        splits = {} if source is None else {name: len(problems) for name, problems in source.splits().items()}
        notes += source.notes if source else ()
        figures = {**data_check.figures(), "splits": splits, "notes": notes}
        write_jsonl(folder / BAD_ROWS, data_check.bad)
        write_jsonl(folder / WARNINGS, data_check.warnings)
        if figures["decontamination"]:
            write_jsonl(folder / DECONTAMINATION_PAIRS, data_check.pairs)
        write_json(folder / FIGURES, figures)
        rows_to_look_at = [*data_check.warnings, *data_check.pairs]
        write_page(page(config, figures, data_check.bad, rows_to_look_at, data_check.counts.samples), folder / PAGE)

        table = [("", "rows")]
        for name in ("rows", "used", "listed", "too_long", "duplicates", "contradictions"):
            table.append((name.replace("_", " "), f"{figures[name]:,}"))
        for group in ("by_source", "by_language", "by_answer", "by_pictures"):
            table += [(f"{group.removeprefix('by_')}: {name}", f"{count:,}") for name, count in figures[group].items()]
        for line in (*align_columns(table), *notes):
            progress.say(line)
        progress.say(f"{folder / PAGE}; the rows listed: {folder / BAD_ROWS}")
    strict = getattr(config.data, "on_bad_row", "error") == "error"
    fails = strict and len(data_check.bad) > data_check.too_long
    return bad_rows_text(data_check.bad, data_check.counts.rows) if fails else None


def _backbone(config: TrainConfig, notes: list[str]) -> Backbone | None:
    changes = {"init_seed": 0} if getattr(config.backbone, "path", "") is None else {}
    try:
        return reader_as_set(config.backbone, ModelSpec(config.backbone, changes).open)
    except (MathSEError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        notes.append(f"The backbone could not be opened ({reason}), so no prompt was measured.")
        return None


def _problems(source: Any) -> Sequence[Problem]:
    """Every problem of a source once, in its order."""
    if source is None:
        return []
    if (table := getattr(source, "table", None)) is not None:
        problems: Sequence[Problem] = table.select(table.ids())
        return problems
    return list({p.id: p for split in source.splits().values() for p in split}.values())
