"""The check itself: rows in, rows used and rows listed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from mathse.commands.data_check.counts import Counts
from mathse.commands.data_check.page import page
from mathse.config import build
from mathse.config.schema import TrainConfig
from mathse.data.decontamination import ComparedRow, Index
from mathse.data.decontamination.benchmark_files import index_of
from mathse.data.decontamination.index import ComparedImage
from mathse.data.decontamination.search import Search
from mathse.data.images import load_image
from mathse.data.problems import NoProblems, bad_rows_text, location
from mathse.errors import DataError, MathSEError
from mathse.inference.rows import solve_row
from mathse.models import quiet
from mathse.models.base import Backbone
from mathse.models.model_spec import ModelSpec
from mathse.models.prompt_reader import reader_as_set
from mathse.models.row import Row
from mathse.reporting.progress import Progress
from mathse.reporting.progress.wording import aligned
from mathse.reporting.report import write_page
from mathse.runs.layout import BAD_ROWS, DECONTAMINATION_PAIRS
from mathse.runs.store import make_folder, write_json, write_jsonl
from mathse.scoring.answers import extract_answer, same_answer
from mathse.types import Problem

WARNINGS = "warnings.jsonl"
FIGURES, PAGE = "data_check.json", "data_check.html"


class Check:
    """One look at all of a source's problems."""

    def __init__(self, config: TrainConfig, source: Any, backbone: Backbone | None, index: Index) -> None:
        self.config, self.source, self.backbone = config, source, backbone
        self.search = Search(index, source, drop=False)  # a run drops, a look reports
        self.counts = Counts()
        self.bad: list[dict[str, object]] = list(source.bad_rows) if source is not None else []
        self.too_long = 0
        self.warnings: list[dict[str, Any]] = []
        self.pairs: list[dict[str, Any]] = []

    def look(self, problem: Problem) -> None:
        """Count a problem, or list it."""
        try:
            opened = [load_image(ref) for ref in problem.images]
        except DataError as error:
            self._list(problem, str(error))
            return
        if (reason := self._refused(problem, opened)) is not None:
            self._list(problem, reason)
            return
        compared = ComparedRow.of_images(problem, [ComparedImage.of(image) for image in opened])
        self.counts.add(problem, compared)
        for row in self.search.rows(problem, compared):
            (self.warnings if row["by"] == ["duplicate"] else self.pairs).append(row)
            if row["by"] == ["duplicate"]:
                self._compare_answers(problem, row)
        if problem.solution is not None and not self._reaches(problem, problem.solution):
            self._warn(problem, "solution", f"the solution does not end in the answer {problem.answer!r:.60}")

    def _refused(self, problem: Problem, opened: Sequence[Image]) -> str | None:
        """Why the backbone cannot take a problem, as in a run (mathse/evolution/filter.py)."""
        if self.backbone is None:
            return None
        asked = solve_row(self.backbone.prompt_style, problem)
        if (reason := self.backbone.refusal(asked)) is not None:  # which names a picture by its file
            return reason
        row = Row(**{**asked, "images": opened})  # decoded once
        reason = self.backbone.too_long(row, self.backbone.context - self.config.evaluation.max_new_tokens)
        self.too_long += reason is not None
        return reason

    def _compare_answers(self, problem: Problem, row: dict[str, Any]) -> None:
        first = self.source.get(row["against_id"])
        if not same_answer(problem.answer, first.answer, first.choices):
            said = f"answer {problem.answer!r:.60}, and the same question has {first.answer!r:.60} in row {first.id}"
            self._warn(problem, "contradiction", said)

    def _reaches(self, problem: Problem, solution: str) -> bool:
        answer = extract_answer(solution)
        return answer is None or same_answer(answer, problem.answer, problem.choices)

    def _list(self, problem: Problem, reason: str) -> None:
        file, line = location(self.source, problem)
        self.bad.append({"file": file, "line": line, "id": problem.id, "reason": reason})

    def _warn(self, problem: Problem, kind: str, said: str) -> None:
        file, line = location(self.source, problem)
        self.warnings.append({"id": problem.id, "file": file, "line": line, "by": [kind], "said": said})

    def figures(self) -> dict[str, Any]:
        """data_check.json."""
        warned = [row["by"][0] for row in self.warnings]
        return {
            "rows": self.counts.rows + len(self.bad),
            "used": self.counts.rows,
            "listed": len(self.bad),
            "too_long": self.too_long,
            **self.counts.to_json(),
            "duplicates": warned.count("duplicate"),
            "contradictions": warned.count("contradiction"),
            "solutions_without_the_answer": warned.count("solution"),
            "decontamination": {"problems": len(self.search.index), **self.search.counts}
            if self.search.index
            else None,
            "backbone": None if self.backbone is None else self.backbone.family,
        }


def check(config: TrainConfig, folder: Path) -> str | None:
    """Look at the data and write what was found into ``folder``; what to say where a bad row is an error, else None."""
    quiet()
    make_folder(folder)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(config.progress))
        notes: list[str] = []
        source, bad = _source(config)
        done = Check(config, source, _backbone(config, notes) if source else None, _index(config, notes))
        done.bad += bad
        problems = _problems(source)
        track = progress.track("rows", len(problems))
        for problem in problems:
            done.look(problem)
            track.advance(1)
        track.close()
        figures = {**done.figures(), "splits": _splits(source), "notes": [*notes, *(source.notes if source else ())]}
        _write(config, folder, done, figures)
        for line in aligned(_table(figures)):
            progress.say(line)
        for note in figures["notes"]:
            progress.say(note)
        progress.say(f"{folder / PAGE}; the rows listed: {folder / BAD_ROWS}")
    strict = getattr(config.data, "on_bad_row", "error") == "error"
    return bad_rows_text(done.bad, done.counts.rows) if strict and len(done.bad) > done.too_long else None


def _write(config: TrainConfig, folder: Path, done: Check, figures: dict[str, Any]) -> None:
    write_jsonl(folder / BAD_ROWS, done.bad)
    write_jsonl(folder / WARNINGS, done.warnings)
    if figures["decontamination"]:
        write_jsonl(folder / DECONTAMINATION_PAIRS, done.pairs)
    write_json(folder / FIGURES, figures)
    write_page(page(config, figures, done.bad, [*done.warnings, *done.pairs], done.counts.samples), folder / PAGE)


def _source(config: TrainConfig) -> tuple[Any, list[dict[str, object]]]:
    """The source, its bad rows listed whatever ``on_bad_row`` says; none, and the rows, where no row can be used."""
    section = config.data
    if is_dataclass(section) and hasattr(section, "on_bad_row"):
        section = replace(section, on_bad_row="skip")  # type: ignore[type-var]
    try:
        return build(section), []
    except NoProblems as error:
        if not error.bad_rows:
            raise
        return None, error.bad_rows


def _backbone(config: TrainConfig, notes: list[str]) -> Backbone | None:
    changes = {"init_seed": 0} if getattr(config.backbone, "path", "") is None else {}
    try:
        return reader_as_set(config.backbone, ModelSpec(config.backbone, changes).open)
    except (MathSEError, OSError, MemoryError) as error:
        said = " ".join(str(error).split())[:300]
        notes.append(f"The backbone could not be opened ({said}), so no prompt was measured.")
        return None


def _index(config: TrainConfig, notes: list[str]) -> Index:
    asked = config.decontaminate
    if asked.action == "off" or not asked.against:
        return Index()
    return index_of(asked.against, asked.text_similarity, asked.picture_distance, notes.append)


def _problems(source: Any) -> Sequence[Problem]:
    """Every problem of a source once, in its order."""
    if source is None:
        return []
    if (table := getattr(source, "table", None)) is not None:
        found: Sequence[Problem] = table.select(table.ids())
        return found
    return list({p.id: p for split in source.splits().values() for p in split}.values())


def _splits(source: Any) -> dict[str, int]:
    return {} if source is None else {name: len(problems) for name, problems in source.splits().items()}


def _table(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    def cells() -> Iterator[tuple[str, str]]:
        yield "", "rows"
        for name in ("rows", "used", "listed", "too_long", "duplicates", "contradictions"):
            yield name.replace("_", " "), f"{figures[name]:,}"
        for group in ("by_source", "by_language", "by_answer", "by_pictures"):
            for name, count in figures[group].items():
                yield f"{group.removeprefix('by_')}: {name}", f"{count:,}"

    return list(cells())
