"""What a RUN on the command line is, and the marks in it: problem id -> right, wrong or not scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.errors import DataError, RunError
from mathse.store import read_json, read_jsonl

OWN = "synthetic"  # how evaluate.py calls the test split that the stages of a run are measured on
SCORED, PREDICTIONS, METRICS = "scored.jsonl", "predictions.jsonl", "metrics.json"


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


def read_side(text: str) -> Side:
    """``FOLDER`` or ``NAME=FOLDER``. Raises RunError where there is nothing to compare in it."""
    name, equals, folder = text.partition("=")
    if not equals or Path(text).exists():
        name, folder = text, text
    place = Path(folder)
    scores = _of_evaluation(place) or _of_benchmark(place) or _of_stage(_last_stage(place))
    if not scores:
        raise RunError(
            f"{folder}: holds no scored answers; pass an output folder of evaluate.py, a stage of a training run that "
            "has predictions.jsonl, or a training run"
        )
    return Side(name, scores)


def benchmarks_of(sides: Sequence[Side]) -> list[str]:
    """The benchmarks that any side has, in order of appearance."""
    return list(dict.fromkeys(name for side in sides for name in side.scores))


def _of_evaluation(folder: Path) -> dict[str, Scores]:
    found = {file.parent.name: _scored(file) for file in sorted(folder.glob(f"*/{SCORED}"))}
    return found if (folder / "evaluation.json").is_file() else {}


def _of_benchmark(folder: Path) -> dict[str, Scores]:
    return {folder.name: _scored(folder / SCORED)} if (folder / SCORED).is_file() else {}


def _of_stage(folder: Path) -> dict[str, Scores]:
    file = folder / PREDICTIONS
    rows = list(read_jsonl(file)) if file.is_file() else []
    return {OWN: Scores(_marks(file, rows), _metrics(folder))} if rows and "correct" in rows[0] else {}


def _last_stage(folder: Path) -> Path:
    """The last scored stage of a training run; ``folder`` itself where it is none."""
    if not (folder / "run.json").is_file():
        return folder
    from mathse.report.runs import place

    scored = [file.parent for file in folder.rglob(PREDICTIONS) if (file.parent / "stage.json").is_file()]
    return max(scored, key=lambda stage: place(str(stage.relative_to(folder))), default=folder)


def _scored(file: Path) -> Scores:
    if not (file.parent / METRICS).is_file():
        raise RunError(f"{file.parent}: has no {METRICS}; run the same evaluate.py command again, which goes on")
    return Scores(_marks(file, list(read_jsonl(file))), _metrics(file.parent))


def _metrics(folder: Path) -> dict[str, Any]:
    file = folder / METRICS
    return dict(read_json(file)) if file.is_file() else {}


def _marks(file: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, bool | None]:
    try:
        return {str(row["id"]): None if row["correct"] is None else bool(row["correct"]) for row in rows}
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: rows have id and correct ({error!r}); score it with evaluate.py") from None
