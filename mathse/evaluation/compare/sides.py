"""What a RUN on the command line is, and the marks in it: problem id -> right, wrong or not scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.errors import DataError, RunError
from mathse.evaluation.files import METRICS, SCORED, SETTINGS
from mathse.runs import layout
from mathse.runs.reader import is_run, is_stage, read_stage, read_stages
from mathse.runs.store import read_json, read_jsonl

OWN = "synthetic"  # how evaluate.py calls the test split that the stages of a run are measured on


@dataclass(frozen=True)
class Scores:
    """One student on one benchmark. ``metrics``: what stands in metrics.json."""

    marks: Mapping[str, bool | None]
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error_types(self) -> Mapping[str, Any] | None:
        found = self.metrics.get("error_types")
        return found if found and found["total"] else None


@dataclass(frozen=True)
class Side:
    """A run to compare. ``scores`` by benchmark."""

    label: str
    scores: Mapping[str, Scores]


def read_sides(texts: Sequence[str]) -> list[Side]:
    """What ``read_side`` reads of each. Raises RunError where two have one name: a line of it could be either's."""
    known: dict[str, str] = {}
    for name, folder in map(_named, texts):
        if name in known:
            raise RunError(f"{name}: names {known[name]} and {folder}; give each run a name of its own: NAME=FOLDER")
        known[name] = folder
    return [read_side(text) for text in texts]


def read_side(text: str) -> Side:
    """``FOLDER`` or ``NAME=FOLDER``. Raises RunError where there is nothing to compare in it, or where a run's files
    were changed; DataError where files are damaged."""
    name, folder = _named(text)
    place = Path(folder)
    scores = _of_evaluation(place) or _of_benchmark(place) or _of_training(place)
    if not scores:
        raise RunError(
            f"{folder}: holds no scored answers; pass an output folder of evaluate.py, a stage of a training run that "
            "has predictions.jsonl, or a training run"
        )
    return Side(name, scores)


def _named(text: str) -> tuple[str, str]:
    """(name, folder)"""
    name, equals, folder = text.partition("=")
    return (name, folder) if equals and not Path(text).exists() else (text, text)


def benchmarks_of(sides: Sequence[Side]) -> list[str]:
    """The benchmarks that any side has, in order of appearance."""
    return list(dict.fromkeys(name for side in sides for name in side.scores))


def _of_evaluation(folder: Path) -> dict[str, Scores]:
    found = {file.parent.name: _scored(file) for file in sorted(folder.glob(f"*/{SCORED}"))}
    return found if (folder / SETTINGS).is_file() else {}


def _of_benchmark(folder: Path) -> dict[str, Scores]:
    return {folder.name: _scored(folder / SCORED)} if (folder / SCORED).is_file() else {}


def _of_training(folder: Path) -> dict[str, Scores]:
    """A finished stage of a training run, or the last one of a run that measured its student."""
    stages = read_stages(folder) if is_run(folder) else (read_stage(folder),) if is_stage(folder) else ()
    measured = [stage for stage in stages if stage.has(layout.PREDICTIONS)]
    if not measured:
        return {}
    measured[-1].verify(checkpoint=False)  # a figure stands for its whole stage, also for rows that are not shown
    return {OWN: Scores(measured[-1].solved(), measured[-1].json(layout.METRICS) or {})}


def _scored(file: Path) -> Scores:
    """What evaluate.py scored. Raises DataError where the rows are not those that were counted."""
    if not (file.parent / METRICS).is_file():
        raise RunError(f"{file.parent}: has no {METRICS}; run the same evaluate.py command again, which goes on")
    marks, metrics = _marks(file), read_json(file.parent / METRICS)
    if not isinstance(metrics, dict):
        raise DataError(
            f"{file.parent / METRICS}: no JSON object; run the command that wrote it again, into a new folder"
        )
    if (total := metrics.get("total", len(marks))) != len(marks):
        raise DataError(
            f"{file}: holds {len(marks):,} problems, and {METRICS} beside it counts {total}; run the command that "
            "wrote them again, into a new folder"
        )
    return Scores(marks, metrics)


def _marks(file: Path) -> dict[str, bool | None]:
    try:
        marks = {str(row["id"]): row["correct"] for row in read_jsonl(file)}
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: rows have id and correct ({error!r}); score it with evaluate.py") from None
    for name, mark in marks.items():
        if mark is not None and not isinstance(mark, bool):
            raise DataError(f'{file}: "correct" of {name!r:.80} is true, false or null; score it with evaluate.py')
    return marks
