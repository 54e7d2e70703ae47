"""The reader of run folders, for all code that shows, compares, replays, exports, logs or resumes runs.

``read_run`` returns a ``Run``: the contents of run.json and summary.json, and its finished stages, each after the
stages that it was made from. A ``FinishedStage`` returns its files as values, rows or numbered lines. Four rules hold:

*  Only finished stages are read. A folder without stage.json is of a stage under way or of a killed stage, which is
   made again and may have other contents then. So a run can be read while it is under way.
*  A file must be as recorded. Before its first row is returned, its size and SHA-256 are compared with stage.json, once
   per process. For an edited, damaged or foreign file a RunError names the file and the remedy.
*  A checkpoint is compared in the same way when it is opened (``expect_as_recorded``, which mathse.models calls).
*  No code in a run folder is executed. It has JSON and text, and only ``mathse.data.sources`` builds objects from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from mathse.errors import DataError, RunError
from mathse.runs import layout
from mathse.runs.class_names import with_current_names
from mathse.runs.layout import (
    CHECKPOINT,
    DONE,
    METRICS,
    ORM_METRICS,
    PREDICTIONS,
    RUN,
    SUMMARY,
    TRAIN,
    TRAIN_LOG,
    VERDICTS,
    WEIGHTS,
)
from mathse.runs.ledger import add_costs
from mathse.runs.manifest import read_manifest, verify, verify_file
from mathse.runs.rows import JsonlRows
from mathse.runs.settings import flatten
from mathse.runs.store import parse_row, read_json, read_jsonl, sha256_file
from mathse.scoring.metrics import decide, transitions
from mathse.types import Record, Verdict

R = TypeVar("R", bound=Record)

# Keys of a row of summary.json's "stages".
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
    "exposure",
)
# Keys of a line of train_log.jsonl that are measured by the clock (mathse/training/monitor.py), so they differ between
# equal trainings.
MEASURED = ("tokens_per_second", "mfu", "peak_memory_gib", "padding", "data_wait")
FINISHED = "finished"  # the status in a summary


@dataclass(frozen=True)
class FinishedStage:
    """A finished stage: its folder and its ``stage.json``.

    Files have their names in ``mathse.runs.layout`` or a path below the folder ("checkpoint/orm.json").
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    # --- contents of stage.json ---

    @property
    def identity(self) -> str:
        """The hash of its settings and of the stages before it. Equal identities mean equal contents."""
        return str(self.manifest["identity"])

    @property
    def after(self) -> tuple[str, ...]:
        """The names of the stages that it was made from."""
        return tuple(self.manifest["after"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that it depends on, by dotted key, with classes by their recorded names."""
        settings: Mapping[str, Any] = self.manifest["config"]
        return settings

    @property
    def summary(self) -> Mapping[str, Any]:
        """The figures of the stage."""
        summary: Mapping[str, Any] = self.manifest["summary"]
        return summary

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of each of its files."""
        return {file: recorded["sha256"] for file, recorded in self.manifest["outputs"].items()}

    @property
    def weights(self) -> dict[str, str]:
        """The SHA-256 of the weight files directly in the checkpoint folder, by name."""
        weights = {}
        for name, sha256 in self.sha256.items():
            file = Path(name)
            if file.parent == Path(CHECKPOINT) and file.suffix in WEIGHTS:
                weights[file.name] = sha256
        return weights

    @property
    def checkpoint(self) -> Path | None:
        """The folder of its model, or None. Its weights are large and are not compared here; see ``verify``."""
        made = any(name.startswith(f"{CHECKPOINT}/") for name in self.manifest["outputs"])
        return self.folder / CHECKPOINT if made else None

    # --- its files ---

    def has(self, file: str) -> bool:
        """Whether the stage made a file. Raises RunError if its folder has this file from another source."""
        made = file in self.manifest["outputs"]
        if not made and (self.folder / file).is_file():
            raise RunError(
                f"{self.folder / file} is no file of the stage: its {DONE} does not list it, so it was added later; "
                "remove it"
            )
        return made

    def is_here(self, file: str) -> bool:
        """Whether a file that the stage made is in its folder. A copy of a run may lack files."""
        return self.has(file) and (self.folder / file).is_file()

    def path(self, file: str) -> Path:
        """Return the path of a file that the stage made. Raises RunError if it is missing or not as recorded."""
        if not self.has(file):
            raise RunError(f"{self.folder}: the stage has no {file}; name one of {', '.join(self.sha256)}")
        verify_file(self.folder, file, self.manifest["outputs"][file], hash_once)
        return self.folder / file

    def json(self, file: str) -> Any:
        """Return the value of a JSON file; None if the stage has no such file."""
        return read_json(self.path(file)) if self.has(file) else None

    def rows(self, file: str, kind: type[Record] | None = None) -> Iterator[Any]:
        """Yield the rows of a JSONL file as ``kind`` or as plain values; none if the stage has no such file."""
        return read_jsonl(self.path(file), kind) if self.has(file) else iter(())

    def records(self, file: str, kind: type[R]) -> Sequence[R]:
        """Return the rows of a JSONL file as a sequence that reads a row from the disk when it is used."""
        return JsonlRows(self.path(file), kind) if self.has(file) else ()

    def lines(self, file: str, kind: type[Record] | None = None, text: str | None = None) -> Iterator[tuple[int, Any]]:
        """Yield (number, row) for each line, counted from 1.

        With ``text``, only lines that contain it are parsed and yielded, so a search is as fast as the disk.
        """
        if not self.has(file):
            return
        needle = None
        if text is not None:  # in its JSON form, without the quotes
            needle = json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace")
        path = self.path(file)
        with open(path, "rb") as rows:
            for number, line in enumerate(rows, 1):
                if not line.isspace() and (needle is None or needle in line):
                    yield number, parse_row(line, path, number, kind)

    def curve(self) -> list[dict[str, Any]]:
        """Return the lines of its training log; none without training.

        A line has {"step", "loss", "lr", "grad_norm", *MEASURED} or {"step", "val_loss"}. Earlier versions wrote only
        step, loss and rate.
        """
        return list(self.rows(TRAIN_LOG))

    def solved(self) -> dict[str, bool]:
        """Return by problem id whether the student's answer to a test problem is correct; empty without a test.

        Raises DataError for a row that is no answer.
        """
        correct: dict[str, bool] = {}
        for number, row in self.lines(PREDICTIONS):
            if not isinstance(row, Mapping) or "id" not in row or not isinstance(row.get("correct"), bool):
                raise DataError(
                    f'{self.folder / PREDICTIONS}:{number}: is no answer as a run writes it, with "id" and "correct"; '
                    "put the file back"
                )
            correct[str(row["id"])] = row["correct"]
        return correct

    def verify(self, checkpoint: bool = True) -> None:
        """Compare all its files with stage.json; see ``manifest.verify`` for large files.

        Args:
            checkpoint: whether to compare the checkpoint too, which a copy of a run may lack.

        Raises:
            RunError: a file is missing or not as recorded.
        """
        files = self.manifest["outputs"]
        rows = {name: recorded for name, recorded in files.items() if not name.startswith(f"{CHECKPOINT}/")}
        verify(self.folder, files if checkpoint else rows, hash_once)


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        name: the run's name; in a study "STUDY: VARIANT".
        config: nested, as in run.json, with the current names of classes.
        stages: the finished stages, each after the stages that it was made from.
        summary: contents of summary.json; empty before the run is finished.
    """

    folder: Path
    name: str
    task: str
    seed: int
    config: Mapping[str, Any]
    stages: tuple[FinishedStage, ...]
    summary: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        return self.summary.get("status") == FINISHED

    @property
    def threshold(self) -> float:
        """The lowest P(correct) that the judge accepts."""
        return float(self.config.get("judge", {}).get("threshold", 0.5))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """``config`` by dotted key."""
        return flatten(self.config)

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """A row per scored stage, as in summary.json. Without a summary it is computed from the stages."""
        if "stages" in self.summary:
            return [add_costs(entry, self.stages) for entry in self.summary["stages"]]
        entries = []
        before: dict[str, bool] | None = None
        for stage in self.stages:
            if after := stage.solved():
                # A branch may have another part of the test set. Then there are no transitions.
                changed = transitions(before, after) if before and before.keys() == after.keys() else None
                entries.append(add_costs(_build_entry(stage, changed, self.threshold), self.stages))
                before = after
        return entries

    @cached_property
    def orm(self) -> dict[str, Any] | None:
        """The ORM's figures on held-out paths of its own kind of student. summary.json has them without bins."""
        stage = self.stage("orm")
        return (stage.json(METRICS) if stage else None) or dict(self.summary.get("orm") or {}) or None

    @cached_property
    def orm_by_student(self) -> list[tuple[str, dict[str, Any]]]:
        """(stage, the ORM's figures on held-out paths of this stage's student), in the order of the stages."""
        figures = [(stage.name, stage.json(ORM_METRICS)) for stage in self.stages]
        return [(name, metrics) for name, metrics in figures if metrics]

    def stage(self, name: str) -> FinishedStage | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def json(self, file: str) -> Any:
        """Return the value of a JSON file of the run itself, which no stage records; None if it is missing."""
        return read_json(self.folder / file) if (self.folder / file).is_file() else None

    def rows(self, file: str) -> Iterator[Any]:
        """Yield the rows of a JSONL file of the run itself; none if it is missing."""
        return read_jsonl(self.folder / file) if (self.folder / file).is_file() else iter(())

    def verify(self) -> None:
        """Call ``FinishedStage.verify`` for every stage."""
        for stage in self.stages:
            stage.verify()


# --- reading --------------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises RunError for another folder, and DataError for a damaged file."""
    if not is_run(folder):
        raise RunError(
            f"{folder} is not a run folder: it has no {RUN}; pass the folder that a run wrote (outputs/<name>/<time>)"
        )
    head = read_head(folder)
    config, summary = head["config"], read_summary(folder) or {}
    name = f"{config['study']}: {config.get('variant')}" if config.get("study") else head["name"]
    return Run(folder, name, head["task"], head["seed"], config, read_stages(folder), summary)


def read_head(folder: Path) -> dict[str, Any]:
    """Return run.json: name, task, seed and config, with the current names of classes.

    Raises DataError if it is damaged.
    """
    head = _read_object(folder / RUN, {"name": str, "task": str, "seed": int, "config": dict})
    return {**head, "config": with_current_names(head["config"])}


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return summary.json; None before the run is finished. Raises DataError if it is damaged."""
    file = folder / SUMMARY
    if not file.is_file():
        return None
    summary = _read_object(file, {"status": str, "stages": list})
    if not all(isinstance(entry, dict) and "stage" in entry for entry in summary["stages"]):
        raise DataError(f"{file}: each of its stages must be an object with the key stage; put the file back")
    return summary


def read_stages(folder: Path) -> tuple[FinishedStage, ...]:
    """Return the finished stages below a run folder, each after the stages that it was made from.

    Other stages are in the order of their names (``layout.stage_order``), because small stages have equal times.
    """
    remaining = [read_stage(file.parent, folder) for file in folder.rglob(DONE)]
    remaining.sort(key=lambda stage: layout.stage_order(stage.name))
    ordered: list[FinishedStage] = []
    while remaining:
        names = {stage.name for stage in remaining}
        ready = (stage for stage in remaining if names.isdisjoint(stage.after))
        ordered.append(next(ready, remaining[0]))  # in a forged circle no stage is ready, and the first is taken
        remaining.remove(ordered[-1])
    return tuple(ordered)


def read_stage(folder: Path, run: Path | None = None) -> FinishedStage:
    """Return the finished stage in a folder.

    Args:
        run: the run folder around it; None: unknown.

    Raises:
        RunError: the folder has no stage.json, or that of another stage.
    """
    manifest = read_manifest(folder / DONE)
    name = manifest["stage"]
    if run is not None and name != folder.relative_to(run).as_posix():
        raise RunError(f"{folder / DONE} is that of stage {name!r}; put the stage's own back, or remove {folder}")
    return FinishedStage(name, folder, manifest)


def expect_as_recorded(checkpoint: Path) -> None:
    """Compare the files of a checkpoint with the stage.json of its stage.

    Without a stage.json nothing is compared: the stage is being made, or the folder was copied out of its run. A file
    is read once, and its size, time and hash are remembered. Raises RunError for a file that is missing, not as
    recorded, or not the stage's.
    """
    folder = checkpoint.resolve()
    if folder.name != CHECKPOINT or not is_stage(folder.parent):
        return
    stage = read_stage(folder.parent)
    for file in folder.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            stage.has(file.relative_to(stage.folder).as_posix())
    made = {name: recorded for name, recorded in stage.manifest["outputs"].items() if Path(name).parts[0] == CHECKPOINT}
    verify(stage.folder, made, hash_once)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run folder."""
    return (folder / RUN).is_file()


def is_stage(folder: Path) -> bool:
    """Whether a folder is that of a finished stage."""
    return (folder / DONE).is_file()


def find_runs(roots: Iterable[Path]) -> list[Path]:
    """Return all run folders in and below ``roots`` without repeats, in the order of their paths."""
    folders: dict[Path, Path] = {}  # by the resolved run.json, because roots may overlap
    for root in roots:
        for file in sorted(root.rglob(RUN)):
            if file.is_file():
                folders[file.resolve()] = file.parent
    return sorted(folders.values())


def find_run_above(path: Path) -> Path | None:
    """Return the run folder that is ``path`` or contains it, or None."""
    resolved = path.resolve()
    return next((folder for folder in (resolved, *resolved.parents) if is_run(folder)), None)


def find_last_change(folder: Path) -> float:
    """Return the time of a run's last change (opened, or a stage finished) in seconds since 1970.

    Older pages of the run are outdated.
    """
    return max(file.stat().st_mtime for file in (folder / RUN, *folder.rglob(DONE)))


def read_finished_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of the run in ``folder``, or None before it is finished."""
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else None
    return summary if isinstance(summary, dict) and summary.get("status") == FINISHED else None


class GrowingLog:
    """A training log under way: each ``read()`` returns the new whole lines."""

    def __init__(self, stage_folder: Path) -> None:
        self.path = stage_folder / TRAIN_LOG
        self._position = 0  # in bytes

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists() or self.path.stat().st_size <= self._position:
            return []
        with self.path.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line.strip()]


def hash_once(file: Path) -> str:
    """Return the SHA-256 of a file's contents. It is computed once per size and time of change."""
    status = file.stat()
    return _hash_at(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _hash_at(file: Path, size: int, changed: int) -> str:
    return sha256_file(file)


def _read_object(file: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return a JSON object with these keys. Raises DataError for other contents."""
    value = read_json(file)
    if not isinstance(value, dict) or not all(isinstance(value.get(key), kind) for key, kind in kinds.items()):
        raise DataError(f"{file}: must be an object with {', '.join(kinds)}, as a run writes it; put the file back")
    return value


def _build_entry(stage: FinishedStage, changed: dict[str, int] | None, threshold: float) -> dict[str, Any]:
    """Return a row of summary.json for a run under way."""
    # Figures are counted from the files, unless the stage's summary has them. Every row has every key.
    metrics = stage.json(METRICS) or {}
    train = Counter(row["lineage"]["origin"] for row in stage.rows(TRAIN))
    verdicts = Counter(decide(verdict, threshold) for verdict in stage.rows(VERDICTS, Verdict))
    counted: dict[str, Any] = {
        "accuracy": metrics.get("accuracy"),
        "ci95": metrics.get("ci95"),
        "n": metrics.get("total"),
        "train_rows": train.total(),
        "transitions": changed,
        "origins": {kind: train[kind] for kind in ("teacher", "student", "reflection")},
    }
    if verdicts:
        counted |= {kind: verdicts[kind] for kind in ("accepted", "rejected", "unparsed")}
    return {
        "stage": stage.name,
        **dict.fromkeys(ENTRY_KEYS),
        **counted,
        **{key: stage.summary[key] for key in ENTRY_KEYS if stage.summary.get(key) is not None},
    }
