"""The results that ``mathse compare`` compares: what a RUN on the command line is, and its problem ids with their marks
(right, wrong or not scored)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.config.data import name_set
from mathse.errors import DataError, RunError
from mathse.evaluation.folder import SCORED, SETTINGS
from mathse.runs.layout import METRICS, PREDICTIONS
from mathse.runs.ledger import seconds_until, with_costs
from mathse.runs.reader import FinishedStage, is_run, is_stage, read_stage, read_stages
from mathse.runs.settings import nested
from mathse.runs.store import read_json, read_jsonl


@dataclass(frozen=True)
class Scores:
    """One student on one benchmark. ``metrics``: the content of metrics.json."""

    marks: Mapping[str, bool | None]  # problem id -> right; None: not scored
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error_types(self) -> Mapping[str, Any] | None:
        counts = self.metrics.get("error_types")
        return counts if counts and counts["total"] else None


@dataclass(frozen=True)
class RunResults:
    """A run to compare. ``scores`` by benchmark."""

    label: str
    scores: Mapping[str, Scores]
    spent: Mapping[str, Any] | None = None  # of a training run: what its student took; None: another folder
    seconds: Mapping[str, float] | None = None  # by device; None: not known


def read_all_results(arguments: Sequence[str]) -> list[RunResults]:
    """``read_results`` of each. Raises RunError where two have one name: a line of it could be either's."""
    folders: dict[str, str] = {}
    for name, folder in map(_name_and_folder, arguments):
        if name in folders:
            raise RunError(f"{name}: names {folders[name]} and {folder}; give each run a name of its own: NAME=FOLDER")
        folders[name] = folder
    return [read_results(argument) for argument in arguments]


def read_results(argument: str) -> RunResults:
    """The results in ``FOLDER`` or ``NAME=FOLDER``. Raises RunError where there is nothing to compare in it, or where a
    run's files were changed; DataError where files are damaged."""
    name, text = _name_and_folder(argument)
    folder = Path(text)
    scores: dict[str, Scores] = {}
    spent = seconds = None
    if (folder / SETTINGS).is_file():
        # An output folder of evaluate.py: its benchmarks.
        scores = {file.parent.name: _scores_in(file) for file in sorted(folder.glob(f"*/{SCORED}"))}
    if not scores and (folder / SCORED).is_file():
        # One benchmark's folder in it.
        scores = {folder.name: _scores_in(folder / SCORED)}
    if not scores:
        # A finished stage of a training run, or a run's last one that measured its student.
        stages = read_stages(folder) if is_run(folder) else (read_stage(folder),) if is_stage(folder) else ()
        whole = stages if is_run(folder) else _stages_beside(folder)
        if measured := [stage for stage in stages if stage.has(PREDICTIONS)]:
            last = measured[-1]
            last.verify(checkpoint=False)  # a figure stands for its whole stage, also for rows that are not shown
            data = nested(last.settings).get("data", {})
            scores = {name_set(data): Scores(last.solved(), last.json(METRICS) or {})}
            spent, seconds = with_costs({"stage": last.name}, whole), seconds_until(last.name, whole)
    if not scores:
        raise RunError(
            f"{text}: holds no scored answers; pass an output folder of evaluate.py, a stage of a training run that "
            "has predictions.jsonl, or a training run"
        )
    return RunResults(name, scores, spent, seconds)


def _stages_beside(stage: Path) -> Sequence[FinishedStage]:
    """The stages of the run that a stage's folder lies in; none where it lies in no run."""
    run = next((folder for folder in stage.absolute().parents if is_run(folder)), None)
    return read_stages(run) if run is not None else ()


def benchmarks_of(results: Sequence[RunResults]) -> list[str]:
    """The benchmarks that any run has, in order of appearance."""
    return list(dict.fromkeys(name for run in results for name in run.scores))


def _name_and_folder(argument: str) -> tuple[str, str]:
    name, equals, folder = argument.partition("=")
    return (name, folder) if equals and not Path(argument).exists() else (argument, argument)


def _scores_in(file: Path) -> Scores:
    """What evaluate.py scored. Raises DataError where the rows are not those that were counted."""
    metrics_file = file.with_name(METRICS)
    if not metrics_file.is_file():
        raise RunError(f"{file.parent}: has no {METRICS}; run the same evaluate.py command again, which goes on")
    try:
        marks = {str(row["id"]): row["correct"] for row in read_jsonl(file)}
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: rows have id and correct ({error!r}); score it with evaluate.py") from None
    for identity, mark in marks.items():
        if mark is not None and not isinstance(mark, bool):
            raise DataError(f'{file}: "correct" of {identity!r:.80} is true, false or null; score it with evaluate.py')
    metrics = read_json(metrics_file)
    if not isinstance(metrics, dict):
        raise DataError(f"{metrics_file}: no JSON object; run the command that wrote it again, into a new folder")
    if (total := metrics.get("total", len(marks))) != len(marks):
        raise DataError(
            f"{file}: holds {len(marks):,} problems, and {METRICS} beside it counts {total}; run the command that "
            "wrote them again, into a new folder"
        )
    return Scores(marks, metrics)
