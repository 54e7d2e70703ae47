"""The one reader of a run folder. Whoever shows, compares, replays, exports, logs or resumes a run asks it.

``read_run`` gives a ``Run``: what run.json and summary.json say, and its finished stages, each after those that it was
made from. A ``FinishedStage`` gives its files as values, rows or numbered lines. Four rules hold for all of them:

*  Only finished stages are read. What stands in a folder without a stage.json is being made, or a kill has left it; it
   is made again and may come out otherwise. So a run can be read while it is under way.
*  A file is what its stage recorded. Before its first row is given out its size and SHA-256 are compared with
   stage.json, once a process; an edited, damaged or foreign file is a RunError that names it and what to do.
*  A checkpoint is compared likewise by whoever opens it (``expect_as_recorded``, which mathse.models calls).
*  No code of a run folder is run: all of it is JSON and text, and only ``mathse.data.sources`` builds anything from it.
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
from mathse.runs.ledger import with_costs
from mathse.runs.manifest import read_manifest, verify, verify_file
from mathse.runs.rows import JsonlRows
from mathse.runs.settings import flatten
from mathse.runs.store import parse_row, read_json, read_jsonl, sha256_file
from mathse.scoring.metrics import decide, transitions
from mathse.types import Record, Verdict

R = TypeVar("R", bound=Record)

# A row of summary.json's "stages".
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
# Of a line of train_log.jsonl: what was measured over the steps before it, by the clock (mathse/training/watch.py). No
# two fits have the same.
MEASURED = ("tokens_per_second", "mfu", "peak_memory_gib", "padding", "data_wait")
FINISHED = "finished"  # the status in a summary


@dataclass(frozen=True)
class FinishedStage:
    """A finished stage: its folder and its ``stage.json``. Files are named as in ``mathse.runs.layout``, or by a path
    below the folder ("checkpoint/orm.json")."""

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    # --- what stage.json says ---

    @property
    def identity(self) -> str:
        """Hash of the settings it depends on and of the stages before it: equal identities mean equal contents."""
        return str(self.manifest["identity"])

    @property
    def after(self) -> tuple[str, ...]:
        """The names of the stages it was made from."""
        return tuple(self.manifest["after"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings it depends on, by dotted key; classes by the names that the run recorded."""
        settings: Mapping[str, Any] = self.manifest["config"]
        return settings

    @property
    def summary(self) -> Mapping[str, Any]:
        """The stage in numbers."""
        summary: Mapping[str, Any] = self.manifest["summary"]
        return summary

    @property
    def sha256(self) -> dict[str, str]:
        """Of each of its files."""
        return {file: recorded["sha256"] for file, recorded in self.manifest["outputs"].items()}

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of the checkpoint's files of weights, by their names in it; an adapter's merge is not among them."""
        inside = ((Path(name), digest) for name, digest in self.sha256.items())
        return {f.name: sha for f, sha in inside if f.parent == Path(CHECKPOINT) and f.suffix in WEIGHTS}

    @property
    def checkpoint(self) -> Path | None:
        """The folder of its model, None where it made none. Its weights are large and not read here: see ``verify``."""
        made = any(name.startswith(f"{CHECKPOINT}/") for name in self.manifest["outputs"])
        return self.folder / CHECKPOINT if made else None

    # --- its files ---

    def has(self, file: str) -> bool:
        """Whether the stage made such a file. Raises RunError where one lies in its folder that it did not make."""
        made = file in self.manifest["outputs"]
        if not made and (self.folder / file).is_file():
            raise RunError(
                f"{self.folder / file} is no file of the stage: {DONE} beside it does not list it, so somebody else "
                "put it there; remove it"
            )
        return made

    def is_here(self, file: str) -> bool:
        """Whether a file that the stage made still lies in its folder: a run may have been copied without some."""
        return self.has(file) and (self.folder / file).is_file()

    def path(self, file: str) -> Path:
        """Where a file that the stage made lies, for those who open it themselves.

        Raises RunError where it is missing or not as recorded.
        """
        if not self.has(file):
            raise RunError(f"{self.folder}: the stage has no {file}; name one of {', '.join(self.sha256)}")
        verify_file(self.folder, file, self.manifest["outputs"][file], known_sha256)
        return self.folder / file

    def json(self, file: str) -> Any:
        """The value of a JSON file; None where the stage has no such file."""
        return read_json(self.path(file)) if self.has(file) else None

    def rows(self, file: str, kind: type[Record] | None = None) -> Iterator[Any]:
        """The rows of a JSONL file, one at a time, as ``kind`` or as plain values; none where it has no such file."""
        return read_jsonl(self.path(file), kind) if self.has(file) else iter(())

    def records(self, file: str, kind: type[R]) -> Sequence[R]:
        """The same as a sequence whose rows stay on the disk until they are used."""
        return JsonlRows(self.path(file), kind) if self.has(file) else ()

    def lines(self, file: str, kind: type[Record] | None = None, text: str | None = None) -> Iterator[tuple[int, Any]]:
        """(number, row) of each line, counted from 1. With ``text``: only of lines that contain it, and only these are
        parsed, so that a file is searched as fast as the disk reads."""
        if not self.has(file):
            return
        needle = None
        if text is not None:  # as it stands in the file, without the quotes
            needle = json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace")
        path = self.path(file)
        with open(path, "rb") as rows:
            for number, line in enumerate(rows, 1):
                if not line.isspace() and (needle is None or needle in line):
                    yield number, parse_row(line, path, number, kind)

    def curve(self) -> list[dict[str, Any]]:
        """The lines of its fit's log: {"step", "loss", "lr", "grad_norm", and what was ``MEASURED``} or {"step",
        "val_loss"}; none where it fitted nothing. Earlier versions wrote step, loss and rate alone."""
        return list(self.rows(TRAIN_LOG))

    def solved(self) -> dict[str, bool]:
        """Which test problems its student answered rightly, by id; empty where it was not measured.

        Raises DataError for a row that is no answer.
        """
        right: dict[str, bool] = {}
        for number, row in self.lines(PREDICTIONS):
            if not isinstance(row, Mapping) or "id" not in row or not isinstance(row.get("correct"), bool):
                raise DataError(
                    f'{self.folder / PREDICTIONS}:{number}: is no answer as a run writes it, with "id" and "correct"; '
                    "put the file back"
                )
            right[str(row["id"])] = row["correct"]
        return right

    def verify(self, checkpoint: bool = True) -> None:
        """Compare all its files with stage.json, of the largest ones the size; ``checkpoint``: that too, without which
        a run may have been copied. Raises RunError for the first file that is missing or not as recorded."""
        files = self.manifest["outputs"]
        rows = {name: recorded for name, recorded in files.items() if not name.startswith(f"{CHECKPOINT}/")}
        verify(self.folder, files if checkpoint else rows, known_sha256)


@dataclass(frozen=True)
class Run:
    """A run folder. ``name``: the run's, of one in a study "STUDY: VARIANT". ``config`` is nested, as in run.json, with
    the classes where they are today. ``stages``: the finished ones, each after those that it was made from."""

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
        """The P(correct) from which the judge accepts."""
        return float(self.config.get("judge", {}).get("threshold", 0.5))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """``config`` by dotted key."""
        return flatten(self.config)

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """A row a scored stage, as in summary.json; put together from the stages while there is no summary."""
        if "stages" in self.summary:
            return [with_costs(entry, self.stages) for entry in self.summary["stages"]]
        entries = []
        before: dict[str, bool] | None = None
        for stage in self.stages:
            if after := stage.solved():
                # The test set may be cut differently in a branch; then there is nothing to compare.
                changed = transitions(before, after) if before and before.keys() == after.keys() else None
                entries.append(with_costs(_entry(stage, changed, self.threshold), self.stages))
                before = after
        return entries

    @cached_property
    def orm(self) -> dict[str, Any] | None:
        """The ORM's figures on held-out paths of its own kind of student; summary.json has them without their bins."""
        stage = self.stage("orm")
        return (stage.json(METRICS) if stage else None) or dict(self.summary.get("orm") or {}) or None

    @cached_property
    def orm_by_student(self) -> list[tuple[str, dict[str, Any]]]:
        """(stage, the ORM's figures on held-out paths of that stage's student), in the order of the stages."""
        measured = ((stage.name, stage.json(ORM_METRICS)) for stage in self.stages)
        return [(name, figures) for name, figures in measured if figures]

    def stage(self, name: str) -> FinishedStage | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def json(self, file: str) -> Any:
        """The value of a JSON file of the run itself, which no stage records; None where there is none."""
        return read_json(self.folder / file) if (self.folder / file).is_file() else None

    def rows(self, file: str) -> Iterator[Any]:
        """The rows of a JSONL file of the run itself; none where there is no such file."""
        return read_jsonl(self.folder / file) if (self.folder / file).is_file() else iter(())

    def verify(self) -> None:
        """``FinishedStage.verify`` of every stage."""
        for stage in self.stages:
            stage.verify()


# --- reading --------------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises RunError where it is none, DataError where a file of it is damaged."""
    if not is_run(folder):
        raise RunError(
            f"{folder} is not a run folder: it has no {RUN}; pass the folder that a run wrote (outputs/<name>/<time>)"
        )
    head = read_head(folder)
    config, summary = head["config"], read_summary(folder) or {}
    name = f"{config['study']}: {config.get('variant')}" if config.get("study") else head["name"]
    return Run(folder, name, head["task"], head["seed"], config, read_stages(folder), summary)


def read_head(folder: Path) -> dict[str, Any]:
    """run.json: name, task, seed and config, with the classes where they are today. Raises DataError where it is
    damaged."""
    head = _checked_object(folder / RUN, {"name": str, "task": str, "seed": int, "config": dict})
    return {**head, "config": with_current_names(head["config"])}


def read_summary(folder: Path) -> dict[str, Any] | None:
    """summary.json; None where the run has not finished. Raises DataError where it is damaged."""
    file = folder / SUMMARY
    if not file.is_file():
        return None
    summary = _checked_object(file, {"status": str, "stages": list})
    if not all(isinstance(entry, dict) and "stage" in entry for entry in summary["stages"]):
        raise DataError(f"{file}: each of its stages must be an object that names its stage; put the file back")
    return summary


def read_stages(folder: Path) -> tuple[FinishedStage, ...]:
    """The finished stages below a run folder, each after those that it was made from; else in the order of their names
    (``layout.stage_order``), not of their times, which small stages share."""
    remaining = [read_stage(file.parent, folder) for file in folder.rglob(DONE)]
    remaining.sort(key=lambda stage: layout.stage_order(stage.name))
    ordered: list[FinishedStage] = []
    while remaining:
        names = {stage.name for stage in remaining}
        ready = (stage for stage in remaining if names.isdisjoint(stage.after))
        ordered.append(next(ready, remaining[0]))  # no stage is ready in a forged circle; then simply the first
        remaining.remove(ordered[-1])
    return tuple(ordered)


def read_stage(folder: Path, run: Path | None = None) -> FinishedStage:
    """A finished stage, by its folder; ``run``: the run folder that it lies in. Raises RunError for a folder that holds
    no stage.json or another stage's."""
    manifest = read_manifest(folder / DONE)
    name = manifest["stage"]
    if run is not None and name != folder.relative_to(run).as_posix():
        raise RunError(f"{folder / DONE} is that of stage {name!r}; put the stage's own back, or remove {folder}")
    return FinishedStage(name, folder, manifest)


def expect_as_recorded(checkpoint: Path) -> None:
    """Compare the files of a checkpoint with the stage.json of the stage that it lies in; nothing to compare with where
    there is none: the stage is being made, or the folder was copied out of its run.

    A file is read once: its size, time and hash are remembered. Raises RunError for the first file that is missing, not
    as recorded, or not the stage's.
    """
    folder = checkpoint.resolve()
    if folder.name != CHECKPOINT or not is_stage(folder.parent):
        return
    stage = read_stage(folder.parent)
    for file in folder.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            stage.has(file.relative_to(stage.folder).as_posix())
    made = {name: recorded for name, recorded in stage.manifest["outputs"].items() if Path(name).parts[0] == CHECKPOINT}
    verify(stage.folder, made, known_sha256)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / RUN).is_file()


def is_stage(folder: Path) -> bool:
    """Whether a folder is a finished stage's."""
    return (folder / DONE).is_file()


def runs_below(roots: Iterable[Path]) -> list[Path]:
    """All run folders in and below ``roots``, each once, in the order of their paths."""
    files = {file.resolve(): file.parent for root in roots for file in sorted(root.rglob(RUN)) if file.is_file()}
    return sorted(files.values())


def run_above(path: Path) -> Path | None:
    """The run folder that ``path`` is or lies in; None where it lies in none."""
    resolved = path.resolve()
    return next((folder for folder in (resolved, *resolved.parents) if is_run(folder)), None)


def last_change(folder: Path) -> float:
    """When a run was opened or last finished a stage, in seconds since 1970. Older pages are out of date."""
    return max(file.stat().st_mtime for file in (folder / RUN, *folder.rglob(DONE)))


def finished_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of the run in ``folder``, or None where it has not finished."""
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else None
    return summary if isinstance(summary, dict) and summary.get("status") == FINISHED else None


class GrowingLog:
    """A fit's log while it is written: each ``read()`` gives the lines that are new and whole."""

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


def known_sha256(file: Path) -> str:
    """The SHA-256 of a file's contents, computed once as long as its size and time of change stay the same."""
    status = file.stat()
    return _sha256_at(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _sha256_at(file: Path, size: int, changed: int) -> str:
    return sha256_file(file)


def _checked_object(file: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A JSON object that has these keys. Raises DataError for anything else."""
    value = read_json(file)
    if not isinstance(value, dict) or not all(isinstance(value.get(key), kind) for key, kind in kinds.items()):
        raise DataError(f"{file}: must be an object with {', '.join(kinds)}, as a run writes it; put the file back")
    return value


def _entry(stage: FinishedStage, changed: dict[str, int] | None, threshold: float) -> dict[str, Any]:
    """A row of summary.json for a run that is under way: values of the stage's own summary, others from its files."""
    # Counted from the files...
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
    # ...unless the stage recorded the figure itself. Every row has every key.
    return {
        "stage": stage.name,
        **dict.fromkeys(ENTRY_KEYS),
        **counted,
        **{key: stage.summary[key] for key in ENTRY_KEYS if stage.summary.get(key) is not None},
    }
