"""What a report reads of a run folder; a run that is still under way is read as far as its finished stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mathse.errors import DataError, RunError
from mathse.runs.class_names import today
from mathse.runs.manifest import read_record
from mathse.runs.store import read_json, read_jsonl
from mathse.scoring.metrics import accepted, transitions
from mathse.types import Record, Verdict

Decision = Literal["accepted", "rejected", "unparsed"]

# Where a stage stands in the run; rounds go by number, unknown stages (a user's own) last.
ORDER = {"base": 0, "orm": 1, "distill": 2, "round": 3, "reflection": 4, "final": 5}
ENTRY_KEYS = (
    "accuracy",
    "ci95",
    "n",
    "train_rows",
    "accepted",
    "rejected",
    "unparsed",
    "acceptance_precision",
    "transitions",
    "origins",
    "step_precision",
    "skipped_fit",
)


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder and its ``stage.json``."""

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    def json(self, file: str) -> Any:
        """A JSON file of the stage, or None where the stage has none."""
        path = self.folder / file
        return read_json(path) if path.is_file() else None

    def rows(self, file: str, kind: type[Record] | None = None) -> Iterator[Any]:
        """The rows of a JSONL file of the stage, one at a time; none where the stage has no such file."""
        path = self.folder / file
        return read_jsonl(path, kind) if path.is_file() else iter(())


@dataclass(frozen=True)
class Run:
    """A run folder as the report sees it.

    ``name``: the run's, of one in a study "STUDY: VARIANT". ``config`` is nested, as in run.json.
    """

    folder: Path
    name: str
    task: str
    seed: int
    config: Mapping[str, Any]
    stages: tuple[Stage, ...]
    summary: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        return self.summary.get("status") == "finished"

    @property
    def threshold(self) -> float:
        """The P(correct) from which the judge accepts."""
        return float(self.config.get("judge", {}).get("threshold", 0.5))

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """A row a scored stage, as in summary.json; put together from the stages while there is no summary."""
        return list(self.summary["stages"]) if "stages" in self.summary else _entries(self.stages, self.threshold)

    @cached_property
    def orm(self) -> dict[str, Any] | None:
        """The ORM's figures on held-out paths of its own kind of student; summary.json has them without their bins."""
        stage = self.stage("orm")
        return (stage.json("metrics.json") if stage else None) or dict(self.summary.get("orm") or {}) or None

    @cached_property
    def orm_by_student(self) -> list[tuple[str, dict[str, Any]]]:
        """(stage, the ORM's figures on held-out paths of that stage's student), in the order of the stages."""
        found = ((stage.name, stage.json("orm_metrics.json")) for stage in self.stages)
        return [(name, figures) for name, figures in found if figures]

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises RunError where it is none, DataError where a file of it is damaged."""
    if not (folder / "run.json").is_file():
        raise RunError(
            f"{folder} is not a run folder: it has no run.json; pass the folder that a run wrote "
            "(outputs/<name>/<time>)"
        )
    head = read_head(folder)
    file, config = folder / "summary.json", head["config"]
    summary = _described(file, {"status": str, "stages": list}) if file.is_file() else {}
    if not all(isinstance(entry, dict) and "stage" in entry for entry in summary.get("stages", ())):
        raise DataError(f"{file}: each of its stages must be an object that names its stage; put the file back")
    name = f"{config['study']}: {config.get('variant')}" if config.get("study") else head["name"]
    return Run(folder, name, head["task"], head["seed"], config, tuple(_stages(folder)), summary)


def read_head(folder: Path) -> dict[str, Any]:
    """run.json: name, task, seed and config. Raises DataError where it is damaged."""
    head = _described(folder / "run.json", {"name": str, "task": str, "seed": int, "config": dict})
    return {**head, "config": today(head["config"])}


def _described(file: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A JSON object that has these keys. Raises DataError for anything else."""
    found = read_json(file)
    if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
        raise DataError(f"{file}: must be an object with {', '.join(kinds)}, as a run writes it; put the file back")
    return found


def place(stage: str) -> tuple[int, str]:
    """Sort key of a stage name: "base" < "orm/solver" < "orm" < "distill" < "round_01" < ... < "final"."""
    # "~" sorts after all names, so that a stage follows those inside it, which it builds on.
    return ORDER.get(stage.split("/")[0].split("_")[0], len(ORDER)), stage + "/~"


def title(stage: str) -> str:
    """A stage's name for readers: "round_01" is "round 1", "distill" is "distilled"."""
    head, _, number = stage.partition("_")
    if head == "round" and number.isdigit():
        return f"round {int(number)}"
    return {"distill": "distilled", "orm": "ORM"}.get(stage, stage.replace("orm/", "ORM: ").replace("_", " "))


def decide(verdict: Verdict | None, threshold: float) -> Decision | None:
    """What the verdict meant for the path."""
    if verdict is None:
        return None
    if verdict.status == "unparsed":
        return "unparsed"
    return "accepted" if accepted(verdict, threshold) else "rejected"


def _stages(folder: Path) -> Iterator[Stage]:
    found = {str(m.parent.relative_to(folder)): m for m in folder.rglob("stage.json")}
    for name in sorted(found, key=place):
        yield Stage(name, found[name].parent, read_record(found[name]))


def _entries(stages: tuple[Stage, ...], threshold: float) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    before: dict[str, bool] | None = None
    for stage in stages:
        after = {str(row["id"]): bool(row["correct"]) for row in stage.rows("predictions.jsonl")}
        if not after:
            continue
        # The test set may be cut differently in a branch; then there is nothing to compare.
        changed = transitions(before, after) if before is not None and before.keys() == after.keys() else None
        entries.append(_entry(stage, changed, threshold))
        before = after
    return entries


def _entry(stage: Stage, changed: dict[str, int] | None, threshold: float) -> dict[str, Any]:
    """A row of summary.json, from the stage's own summary where it says a thing, else counted from its files."""
    metrics = stage.json("metrics.json") or {}
    said = dict(stage.manifest.get("summary") or {})
    train = Counter(row["lineage"]["origin"] for row in stage.rows("train.jsonl"))
    verdicts = Counter(decide(word, threshold) for word in stage.rows("verdicts.jsonl", Verdict))
    origins = {kind: train[kind] for kind in ("teacher", "student", "reflection")}
    counted: dict[str, Any] = {
        "accuracy": metrics.get("accuracy"),
        "ci95": metrics.get("ci95"),
        "n": metrics.get("total"),
        "train_rows": train.total(),
        "transitions": changed,
        "origins": origins,
    }
    if verdicts:
        counted |= {kind: verdicts[kind] for kind in ("accepted", "rejected", "unparsed")}
    return {
        "stage": stage.name,
        **dict.fromkeys(ENTRY_KEYS),
        **counted,
        **{key: said[key] for key in ENTRY_KEYS if said.get(key) is not None},
    }
