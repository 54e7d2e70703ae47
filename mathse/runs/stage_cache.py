"""The stages of a run folder: which exist, from which inputs they were made, and whether they may be reused.

A stage exists when its ``stage.json`` exists, which is written last. Its identity is the hash of its name, of the
settings that it depends on and of the identities of the stages before it, so equal identities mean equal contents.
Layout: ``<run>/{run.json, .lock, summary.json}`` and ``<run>/<stage>/{stage.begun.json, fit/, ..., stage.json}``.
``stage.begun.json`` and the scratch folder ``fit/`` exist while a stage is being made.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

from mathse.errors import RunError, SettingsChanged
from mathse.runs import meter
from mathse.runs.fit_ranks import RANKS, choose_settings, describe_change, is_same_but_for_ranks
from mathse.runs.folder_lock import FolderLock
from mathse.runs.layout import (
    BEGUN,
    CHECKPOINT,
    DONE,
    FIRST_FIT,
    PATH_FILES,
    PREDICTION_FILES,
    REFERENCE,
    REFLECTIONS,
    RESUME_POINTS,
    RUN,
    SCRATCH,
    TRAIN_LOG,
    VERDICT_FILES,
)
from mathse.runs.ledger import LEDGER, build_ledger, list_kept_until
from mathse.runs.manifest import MAX_HASHED_BYTES, RECORD, read_manifest, read_record, remember, verify
from mathse.runs.provenance import read_git_commit, read_versions
from mathse.runs.reader import is_run, read_finished_summary, read_stages
from mathse.runs.settings import config_slice, find_differences
from mathse.runs.store import find_leftovers, make_folder, read_json, sha256_file, sync_below, to_json, write_json

Work = Literal["fit", "sample", "judge"]


@dataclass(frozen=True)
class Compute:
    """The compute time of a run.

    Attributes:
        seconds: returns the seconds so far: CPU time of all processes, or wall-clock time times the number of GPUs.
    """

    device: Literal["cpu", "gpu"]
    seconds: Callable[[], float]


class RunFolder:
    """An open run folder, locked by this process. Use it as a context manager, or call ``close()``.

    Attributes:
        other_ranks: a sentence on the effect of a change of ranks (see ``fit_ranks``), or None.
        compute: the clock for the seconds in a stage's ledger.
    """

    other_ranks: str | None = None
    compute: Compute = Compute("cpu", time.process_time)

    def __init__(self, path: Path, config: Mapping[str, Any], seed: int, lock: FolderLock) -> None:
        self.path = path
        self.config = _normalise(config)
        self.seed = seed
        self._lock = lock
        self._sources: list[Path] = []

    @classmethod
    def open(
        cls, path: Path, config: Mapping[str, Any], *, name: str, task: str, seed: int, nested: Mapping[str, Any]
    ) -> Self:
        """Create or reopen a run folder.

        A stage with other settings that has no row and no resume point yet is removed, so that a failed first attempt
        can be corrected.

        Args:
            config: dotted key -> value.
            nested: the same settings for run.json.

        Raises:
            RunError: another process has the folder, or another stage in it was made with other settings, ranks
                excepted. Only the lock file has been written then.
        """
        make_folder(path)
        with ExitStack() as on_error:
            lock = on_error.enter_context(closing(FolderLock(path)))
            run = cls(path, config, seed, lock)
            # Every stage in the folder, finished or begun, must have the current settings. Ranks may differ.
            begun = {file.parent.relative_to(path).as_posix(): file for file in sorted(path.rglob(BEGUN))}
            records: dict[str, Mapping[str, Any]] = {name: read_record(file) for name, file in begun.items()}
            records |= {stage.name: stage.manifest for stage in read_stages(path)}
            without_work: list[str] = []
            with_other_ranks: dict[str, Any] = {}  # stage -> its settings
            refused: dict[str, dict[str, tuple[str, str]]] = {}  # stage -> differences
            for stage, record in records.items():
                changed = find_differences(record["config"], config_slice(run.config, record["keys"]))
                if not changed:
                    continue
                is_unfinished = stage in begun and not (path / stage / DONE).exists()
                if is_same_but_for_ranks(changed):
                    with_other_ranks[stage] = record["config"]
                elif is_unfinished and not _has_work(path / stage):
                    without_work.append(stage)
                else:
                    refused[stage] = changed
            if refused:
                raise _build_refusal(path, refused)
            run.other_ranks = describe_change(path, with_other_ranks, run.config)
            for stage in without_work:
                for file in list_own_files(path / stage):
                    file.unlink()
                _remove_scratch(path / stage)

            # run.json is written only after a change, because its time is the start of the run.
            head = _normalise({"name": name, "task": task, "seed": seed, "config": nested})
            if not (path / RUN).exists() or read_json(path / RUN) != head:
                write_json(path / RUN, head)
            on_error.pop_all()
        return run

    def stage(self, name: str, keys: Sequence[str], after: Sequence[Stage] = ()) -> Stage:
        """Open a stage, finished or to be made.

        Args:
            name: "orm", or "orm/solver" inside it.
            keys: the stage depends on the settings at and below these keys.
            after: the stages that it is made from.

        Raises:
            RunError: the stage exists with another identity, a file of the finished stage is missing or damaged, or one
                of its inputs has changed.
        """
        if SCRATCH in Path(name).parts:
            raise ValueError(f"a stage cannot be called {SCRATCH!r} ({name!r}): this is a stage's scratch folder")
        # Name, settings and the stages before it decide a stage's contents. Seed and versions are recorded, not hashed.
        identities = {s.name: s.identity for s in after}
        record = _build_record(name, config_slice(self.config, keys), keys, identities)
        folder = self.path / name
        begun = read_record(folder / BEGUN) if (folder / BEGUN).exists() else None
        finished = read_manifest(folder / DONE) if (folder / DONE).exists() else None
        for existing in (begun, finished):
            if existing and existing["identity"] != record["identity"]:
                changed = find_differences(_list_dependencies(existing), _list_dependencies(record))
                if not is_same_but_for_ranks(changed):
                    raise _build_refusal(self.path, {name: changed})
        if finished:
            record = {key: finished[key] for key in RECORD}  # with the ranks that made it
            verify(folder, finished["outputs"])
            if (file := self._find_changed_input(finished)) is not None:
                raise RunError(
                    f"stage {name} in {self.path} was made from another {file} than is in the folder now; put that "
                    f"file's stage back, or remove {folder} and the stages after it so that they are made again"
                )
            _remove_scratch(folder)  # a kill may have come after the manifest was written
        elif begun:
            config = choose_settings(begun["config"], record["config"], folder)
            if config != record["config"]:
                is_same = config == begun["config"]
                record = _build_record(name, config, begun["keys"] if is_same else keys, identities)
        elif (finished := self._copy_from_sources(record)) is not None:
            record = {key: finished[key] for key in RECORD}
        return Stage(self, record, finished)

    def branch_from(self, sources: Sequence[Path]) -> None:
        """Reuse finished stages of the run folders ``sources`` from now on.

        ``stage`` takes a missing stage from a source that has it with the same identity and the same inputs. The newest
        source is preferred. Files are shared by hard links. Raises RunError if a source is no run folder.
        """
        for path in sources:
            if not is_run(path):
                raise RunError(f"{path} is not a run folder: it has no {RUN}; name a folder that train.py made")
        self._sources = sorted(sources, key=_opened_at, reverse=True)

    def _copy_from_sources(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Link or copy the stage ``record`` from a source and return its manifest; None if no source has it.

        Raises RunError if a file in the source is damaged.
        """
        target = self.path / record["stage"]
        for run in self._sources:
            source = run / record["stage"]
            if not (source / DONE).exists():
                continue
            manifest = read_manifest(source / DONE)
            if manifest["identity"] != record["identity"]:
                # Earlier versions also recorded the ranks of a stage without training.
                changed = find_differences(_list_dependencies(manifest), _list_dependencies(record))
                if not is_same_but_for_ranks(changed) or record["config"].keys() & set(RANKS):
                    continue
            if self._find_changed_input(manifest) is not None:
                continue
            verify(source, manifest["outputs"])
            make_folder(target)
            for file in list_own_files(target):  # of a killed branch
                file.unlink()
            for name in manifest["outputs"]:
                make_folder((target / name).parent)
                try:
                    os.link(source / name, target / name)
                except OSError:  # another file system, or a file system without links
                    shutil.copy2(source / name, target / name)
            sync_below(target, (target / name for name in manifest["outputs"]))
            write_json(target / DONE, manifest)  # written last, because it makes the stage exist
            _remove_scratch(target)
            return manifest
        return None

    def _find_changed_input(self, manifest: Mapping[str, Any]) -> str | None:
        """Return an input of the stage ``manifest`` that a stage in this folder has with other contents, or None.

        Answers of a teacher or a server differ between two runs with equal settings and equal identity.
        """
        outputs = {stage.name: stage.manifest["outputs"] for stage in read_stages(self.path)}
        for file, sha256 in manifest["inputs"].items():
            stage = next((str(p) for p in Path(file).parents if str(p) in outputs), None)
            if stage is None:
                continue
            current = outputs[stage].get(name_in(Path(stage), Path(file)), {})
            if current.get("sha256", sha256) != sha256:
                return str(file)
        return None

    def close(self) -> None:
        meter.stop()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """After an error run.json of a folder without stages is removed, so that a refused start leaves no run."""
        if error is not None and not any(True for name in (BEGUN, DONE) for _ in self.path.rglob(name)):
            (self.path / RUN).unlink(missing_ok=True)
            self._lock.remove()
        self.close()


class Stage:
    """A stage of a run. Use: ``RunFolder.stage``, ``begin()``, make its files below ``path``, ``finish(summary)``."""

    def __init__(self, run: RunFolder, record: dict[str, Any], finished: dict[str, Any] | None) -> None:
        self.name: str = record["stage"]
        self.identity: str = record["identity"]
        self.path = run.path / self.name
        self._run = run
        self._record = record
        self._begun: dict[str, Any] | None = None
        self._finished = finished
        self._clock = self._computed = 0.0
        make_folder(self.path)

    @property
    def done(self) -> bool:
        """Whether it is finished with these settings. Its files are as recorded."""
        return self._finished is not None

    @property
    def summary(self) -> dict[str, Any]:
        """The argument of ``finish``."""
        if self._finished is None:
            raise RuntimeError(f"stage {self.name} has no summary before it is finished")
        return dict(self._finished["summary"])

    def begin(self) -> None:
        """Record on the disk that the stage is being made, and start its clock or continue that of a killed process."""
        begun = self.path / BEGUN
        if not begun.exists():
            times = {"fit": 0.0, "sample": 0.0, "judge": 0.0}
            clocks = {"wall_s": 0.0, "compute_s": 0.0, "time_s": times}
            write_json(begun, {**self._record, "started": _format_utc_now(), **clocks})
        self._begun = read_json(begun)
        if self._begun["identity"] != self.identity:  # it continues with other ranks
            self._begun |= self._record
            write_json(begun, self._begun)
        before = list(self._record["after"])
        self._meter = meter.start(
            self.path, self.path / SCRATCH / meter.SPENT, lambda: list_kept_until(before, read_stages(self._run.path))
        )
        self._clock, self._computed = time.monotonic(), self._run.compute.seconds()

    @contextmanager
    def time(self, work: Work, account: meter.Account = "method") -> Iterator[None]:
        """Within the context, count seconds as ``work``, and tokens and operations on ``account``.

        Contexts do not nest. The seconds of a context that fails or is killed are not counted.
        """
        begun = self._require_begun()
        start = time.monotonic()
        with meter.on_account(account):
            yield
        begun["time_s"][work] += time.monotonic() - start
        self._count_wall_time(begun)
        write_json(self.path / BEGUN, begun)

    def finish(self, summary: Mapping[str, Any], inputs: Sequence[Path] = ()) -> None:
        """Hash all files of the stage and its inputs, and write stage.json. After this the stage exists.

        Args:
            summary: figures of the stage.
            inputs: files or folders that it was made from.
        """
        begun = self._require_begun()
        for path in find_leftovers(self.path):  # of killed writers
            _remove(path)

        # Files are on the disk before the manifest that lists them.
        files = list_own_files(self.path)
        sync_below(self.path, files)
        outputs: dict[str, Any] = {}
        for file in files:
            sha256, nbytes = sha256_file(file), file.stat().st_size
            outputs[name_in(self.path, file)] = {"sha256": sha256, "bytes": nbytes}
            if nbytes > MAX_HASHED_BYTES:
                remember(file, sha256)
        input_files: list[Path] = []
        for path in inputs:
            input_files += list_own_files(path) if path.is_dir() else [path]

        self._count_wall_time(begun)
        other = max(0.0, begun["wall_s"] - sum(begun["time_s"].values()))
        compute_seconds = begun.get("compute_s")  # absent if an earlier version began the stage
        if compute_seconds is not None:
            compute_seconds = round(compute_seconds, 3)
        seconds: dict[str, float | None] = {self._run.compute.device: compute_seconds}
        manifest = {
            **self._record,
            "inputs": {name_in(self._run.path, file): sha256_file(file) for file in input_files},
            "outputs": outputs,
            "summary": summary,
            "seed": self._run.seed,
            "versions": read_versions(),
            "git": read_git_commit(),
            "started": begun["started"],
            "finished": _format_utc_now(),
            "wall_s": round(begun["wall_s"], 3),
            "time_s": {work: round(s, 3) for work, s in {**begun["time_s"], "other": other}.items()},
            LEDGER: build_ledger(self._meter, summary, seconds),
        }
        meter.stop()
        write_json(self.path / DONE, manifest)
        self._finished = _normalise(manifest)
        _remove_scratch(self.path)

    def _require_begun(self) -> dict[str, Any]:
        if self._begun is None:
            raise RuntimeError(f"stage {self.name} is timed or finished before begin()")
        return self._begun

    def _count_wall_time(self, begun: dict[str, Any]) -> None:
        now = time.monotonic()
        begun["wall_s"] += now - self._clock
        self._clock = now
        computed = self._run.compute.seconds()
        if "compute_s" in begun:
            begun["compute_s"] += computed - self._computed
        self._computed = computed


# --- a stage's files ------------------------------------------------------------------------------------------------


def list_own_files(folder: Path) -> list[Path]:
    """Return the files below ``folder`` without manifests, scratch folders and nested stages."""
    manifests = {*folder.rglob(DONE), *folder.rglob(BEGUN)}
    excluded = {folder / SCRATCH, *(file.parent for file in manifests)} - {folder}
    files = (path for path in folder.rglob("*") if path.is_file() and path not in manifests)
    return sorted(file for file in files if excluded.isdisjoint(file.parents))


def _has_work(folder: Path) -> bool:
    """Whether a begun stage has rows of a model, a resume point, or a checkpoint of its training."""
    for name in (*PATH_FILES, *VERDICT_FILES, *PREDICTION_FILES, REFLECTIONS, REFERENCE):
        if (folder / name).is_file() and (folder / name).stat().st_size:
            return True
    if any(any((folder / SCRATCH).glob(pattern)) for pattern in RESUME_POINTS):
        return True
    return any((f / TRAIN_LOG).is_file() and (f / CHECKPOINT).exists() for f in (folder, folder / FIRST_FIT))


def name_in(folder: Path, file: Path) -> str:
    """The name of a file in manifests: its path below ``folder``; outside ``folder`` its whole path."""
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _remove_scratch(folder: Path) -> None:
    _remove(folder / BEGUN)
    _remove(folder / SCRATCH)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- settings and inputs of a stage ---------------------------------------------------------------------------------


def _build_record(
    name: str, config: Mapping[str, Any], keys: Sequence[str], after: Mapping[str, str]
) -> dict[str, Any]:
    hashed = json.dumps([name, config, after], sort_keys=True)
    identity = hashlib.sha256(hashed.encode()).hexdigest()
    return {"stage": name, "identity": identity, "config": config, "keys": list(keys), "after": after}


def _list_dependencies(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record["config"], **{f"identity of stage {name}": identity for name, identity in record["after"].items()}}


def _build_refusal(path: Path, changed: Mapping[str, Mapping[str, tuple[str, str]]]) -> SettingsChanged:
    """Return the error for other settings: a line per key, with its stages.

    Args:
        changed: stage -> key -> (recorded value, current value).
    """
    stages: dict[tuple[str, str, str], list[str]] = {}
    for name, keys in changed.items():
        for key, (old, new) in keys.items():
            if key in RANKS and keys.keys() - set(RANKS):  # ranks are not the reason
                continue
            stages.setdefault((key, old, new), []).append(name)
    lines = [
        f"  {key}: recorded {old}, now {new} (stages made with it: {', '.join(dict.fromkeys(names))})"
        for (key, old, new), names in sorted(stages.items())
    ]
    head = (
        f"run folder {path} was made with other settings; put the recorded values back, choose another hydra.run.dir, "
        "or add resume=branch to reuse what still fits:"
    )
    return SettingsChanged("\n".join([head, *lines]))


def _normalise(value: Any) -> Any:
    """Return ``value`` as it is read from a JSON file: tuples as lists, keys as text."""
    return json.loads(to_json(value))


def _format_utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- finding a run folder -------------------------------------------------------------------------------------------


def find_newest_unfinished(root: Path, name: str) -> Path | None:
    """Return the unfinished run of ``name`` below ``root`` (``root/name/*``) that was started last, or None."""
    runs = [file.parent for file in (root / name).glob(f"*/{RUN}")]
    return max((run for run in runs if read_finished_summary(run) is None), key=_opened_at, default=None)


def name_branch(path: Path) -> Path:
    """Return the first unused name for a branch of ``path``: "<path>-branch-01", "-02", ... Nothing is created."""
    stem = re.sub(r"-branch-\d+$", "", path.name)  # a branch of a branch is a sibling
    return next(p for n in count(1) if not (p := path.with_name(f"{stem}-branch-{n:02d}")).exists())


def _opened_at(run: Path) -> tuple[int, str]:
    """The sort key of runs: the time when the run was opened, in nanoseconds, and its name."""
    return (run / RUN).stat().st_mtime_ns, run.name
