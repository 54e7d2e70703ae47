"""The results that ``mathse compare`` compares: the folder of a RUN, and the mark of each problem (right, wrong or
not scored)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from mathse.config.data import name_set
from mathse.errors import DataError, RunError
from mathse.evaluation.folder import SCORED, SETTINGS
from mathse.runs.layout import CONTROLS, METRICS, PREDICTIONS
from mathse.runs.ledger import add_costs, sum_seconds_until
from mathse.runs.reader import FinishedStage, is_run, is_stage, read_stage, read_stages
from mathse.runs.settings import nest
from mathse.runs.store import read_json, read_jsonl


@dataclass(frozen=True)
class Scores:
    """The result of a student on a benchmark. ``metrics``: the content of metrics.json."""

    marks: Mapping[str, bool | None]  # problem id -> right; None: not scored
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error_types(self) -> Mapping[str, Any] | None:
        counts = self.metrics.get("error_types")
        return counts if counts and counts["total"] else None


@dataclass(frozen=True)
class RunResults:
    """A run to compare. ``scores``: by benchmark."""

    label: str
    scores: Mapping[str, Scores]
    spent: Mapping[str, Any] | None = None  # costs of a training run's student; None: no training run
    seconds: Mapping[str, float] | None = None  # by device; None: not known
    controls: Mapping[str, Any] | None = None  # the run beside its controls (mathse control); None: none were made


def read_all_results(arguments: Sequence[str]) -> list[RunResults]:
    """Read the results of each argument. Raises RunError for two runs with the same name."""
    folders: dict[str, str] = {}
    for name, folder in map(_name_and_folder, arguments):
        if name in folders:
            raise RunError(f"{name}: names {folders[name]} and {folder}; give each run a name of its own: NAME=FOLDER")
        folders[name] = folder
    return [read_results(argument) for argument in arguments]


def read_results(argument: str) -> RunResults:
    """Read the results in ``FOLDER`` or ``NAME=FOLDER``.

    Raises RunError if the folder has no results or a run's files were changed, DataError for damaged files.
    """
    name, text = _name_and_folder(argument)
    folder = Path(text)
    scores: dict[str, Scores] = {}
    spent = seconds = controls = None
    if (folder / SETTINGS).is_file():
        # 1. An output folder of evaluate.py: all of its benchmarks.
        scores = {file.parent.name: _read_scores(file) for file in sorted(folder.glob(f"*/{SCORED}"))}
    if not scores and (folder / SCORED).is_file():
        # 2. The folder of a benchmark in it.
        scores = {folder.name: _read_scores(folder / SCORED)}
    if not scores:
        # 3. A training run: its last stage with a measured student. Or a finished stage of a training run.
        stages: Sequence[FinishedStage] = ()
        run_stages: Sequence[FinishedStage] = ()
        if is_run(folder):
            stages = run_stages = read_stages(folder)
            controls = read_json(folder / CONTROLS) if (folder / CONTROLS).is_file() else None
        elif is_stage(folder):
            stages, run_stages = (read_stage(folder),), _stages_of_run(folder)
        if measured := [stage for stage in stages if stage.has(PREDICTIONS)]:
            last = measured[-1]
            last.verify(checkpoint=False)  # a figure counts all rows of its stage, so all files are checked
            data = nest(last.settings).get("data", {})
            scores = {name_set(data): Scores(last.solved(), last.json(METRICS) or {})}
            spent, seconds = add_costs({"stage": last.name}, run_stages), sum_seconds_until(last.name, run_stages)
    if not scores:
        raise RunError(
            f"{text}: holds no scored answers; pass an output folder of evaluate.py, a stage of a training run that "
            "has predictions.jsonl, or a training run"
        )
    return RunResults(name, scores, spent, seconds, controls)


def _stages_of_run(stage: Path) -> Sequence[FinishedStage]:
    """Return all stages of the run that contains a stage's folder; empty if no run contains it."""
    for folder in stage.absolute().parents:
        if is_run(folder):
            return read_stages(folder)
    return ()


def benchmarks_of(results: Sequence[RunResults]) -> list[str]:
    """Return the benchmarks of all runs, in order of appearance."""
    return list(dict.fromkeys(chain.from_iterable(run.scores for run in results)))


def _name_and_folder(argument: str) -> tuple[str, str]:
    name, equals, folder = argument.partition("=")
    return (name, folder) if equals and not Path(argument).exists() else (argument, argument)


def _read_scores(file: Path) -> Scores:
    """Read the scores of evaluate.py. Raises DataError if the rows differ from the rows that metrics.json counts."""
    metrics_file = file.with_name(METRICS)
    if not metrics_file.is_file():
        raise RunError(f"{file.parent}: has no {METRICS}; run the same evaluate.py command again, which continues")
    try:
        marks = {str(row["id"]): row["correct"] for row in read_jsonl(file)}
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: rows have id and correct ({error!r}); score it with evaluate.py") from None
    for problem_id, mark in marks.items():
        if mark is not None and not isinstance(mark, bool):
            value = f'"correct" of {problem_id!r:.80}'
            raise DataError(f"{file}: {value} is true, false or null; score it with evaluate.py")
    metrics = read_json(metrics_file)
    if not isinstance(metrics, dict):
        raise DataError(f"{metrics_file}: no JSON object; run the command that wrote it again, into a new folder")
    if (total := metrics.get("total", len(marks))) != len(marks):
        raise DataError(
            f"{file}: holds {len(marks):,} problems, and {METRICS} beside it counts {total}; run the command that "
            "wrote them again, into a new folder"
        )
    return Scores(marks, metrics)
