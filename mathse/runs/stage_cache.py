"""The run folder as resume point: which stages stand, what they were made from, and whether they may be reused.

A stage exists when its ``stage.json`` exists; that file is written last. Its identity is the hash of its name, of the
settings it depends on and of the identities of the stages before it, so equal identities mean equal contents.
Layout: ``<run>/{run.json, .lock, summary.json}`` and ``<run>/<stage>/{stage.begun.json, fit/, ..., stage.json}``;
``stage.begun.json`` stands while a stage is being made, ``fit/`` is its scratch folder and goes with it.
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
from mathse.runs.fit_ranks import RANKS, going_on, is_same_but_for_ranks, what_changes
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
from mathse.runs.ledger import LEDGER, recorded
from mathse.runs.manifest import HASHED_BYTES, RECORD, read_manifest, read_record, verify
from mathse.runs.provenance import git_commit, versions
from mathse.runs.reader import finished_summary, is_run, read_stages
from mathse.runs.settings import config_slice, differences
from mathse.runs.store import leftovers, make_folder, read_json, sha256_file, sync_below, to_json, write_json
from mathse.runs.verified_files import remember

Work = Literal["fit", "sample", "judge"]


@dataclass(frozen=True)
class Compute:
    """``seconds()``: so far, of all that the run computes with: processes' CPU time, or a clock times the GPUs."""

    device: Literal["cpu", "gpu"]
    seconds: Callable[[], float]


class RunFolder:
    """An open run folder; one process has it at a time. Use as a context manager, or call ``close()``.

    ``other_ranks``: what changes where stages here were made by other ranks than today's, in a sentence (see
    ``fit_ranks``); else None. ``compute``: what the seconds of a stage's ledger are counted by.
    """

    other_ranks: str | None = None
    compute: Compute = Compute("cpu", time.process_time)

    def __init__(self, path: Path, config: Mapping[str, Any], seed: int, lock: FolderLock) -> None:
        self.path = path
        self.config = _as_read_back(config)
        self.seed = seed
        self._lock = lock
        self._sources: list[Path] = []

    @classmethod
    def open(
        cls, path: Path, config: Mapping[str, Any], *, name: str, task: str, seed: int, nested: Mapping[str, Any]
    ) -> Self:
        """Create or reopen ``path`` for ``config`` (dotted key -> value); ``nested`` is the same for run.json.

        A stage that was begun with other settings and has made no row and no resume point is begun anew: a first
        attempt that failed does not stand in the way of its correction. Raises RunError where another process holds the
        folder, or where any other stage in it was made with other settings than those of ranks; but for the lock,
        nothing has been written then.
        """
        make_folder(path)
        with ExitStack() as on_error:
            lock = on_error.enter_context(closing(FolderLock(path)))
            run = cls(path, config, seed, lock)
            # Every stage in the folder, finished or begun, must have been made with today's settings, if not today's
            # ranks.
            records = {stage.name: stage.manifest for stage in read_stages(path)}
            begun = {file.parent.relative_to(path).as_posix(): file for file in sorted(path.rglob(BEGUN))}
            records = {name: read_record(file) for name, file in begun.items()} | records
            changed = {
                name: differing
                for name, record in records.items()
                if (differing := differences(record["config"], config_slice(run.config, record["keys"])))
            }
            unfinished = [n for n in changed if n in begun and not (path / n / DONE).exists()]
            without_work = [n for n in unfinished if not (is_same_but_for_ranks(changed[n]) or _has_work(path / n))]
            for name in without_work:
                del changed[name]
            by_others = {
                n: records[n]["config"] for n, differing in changed.items() if is_same_but_for_ranks(differing)
            }
            if others := {name: differing for name, differing in changed.items() if name not in by_others}:
                raise _other_settings(path, others)
            run.other_ranks = what_changes(path, by_others, run.config)
            for name in without_work:
                for file in own_files(path / name):
                    file.unlink()
                _remove_scratch(path / name)
            # Written only where it says something new: its time is that of the run's start.
            head = _as_read_back({"name": name, "task": task, "seed": seed, "config": nested})
            if not (path / RUN).exists() or read_json(path / RUN) != head:
                write_json(path / RUN, head)
            on_error.pop_all()
        return run

    def stage(self, name: str, keys: Sequence[str], after: Sequence[Stage] = ()) -> Stage:
        """The stage ``name`` ("orm", or "orm/solver" inside it), which depends on the settings at and below ``keys``
        and on the stages ``after``.

        Raises RunError where it stands here already, finished or begun, with another identity, where a file of the
        finished stage is missing or damaged, or where one that it was made from has been made anew with other contents.
        """
        if SCRATCH in Path(name).parts:
            raise ValueError(f"a stage cannot be called {SCRATCH!r} ({name!r}): that is a stage's scratch folder")
        # Name, settings and the stages before it decide what a stage holds; seed and versions are noted, not hashed.
        identities = {s.name: s.identity for s in after}
        record = _record(name, config_slice(self.config, keys), keys, identities)
        folder = self.path / name
        begun = read_record(folder / BEGUN) if (folder / BEGUN).exists() else None
        finished = read_manifest(folder / DONE) if (folder / DONE).exists() else None
        for existing in (begun, finished):
            if existing and existing["identity"] != record["identity"]:
                changed = differences(_depends_on(existing), _depends_on(record))
                if not is_same_but_for_ranks(changed):
                    raise _other_settings(self.path, {name: changed})
        if finished:
            record = {key: finished[key] for key in RECORD}  # of the ranks that made it
            verify(folder, finished["outputs"])
            if (file := self._changed_input(finished)) is not None:
                raise RunError(
                    f"stage {name} in {self.path} was made from another {file} than stands here now; put that file's "
                    f"stage back, or remove {folder} and the stages after it so that they are made again"
                )
            _remove_scratch(folder)  # a kill may have come between the manifest and this
        elif begun:
            config = going_on(begun["config"], record["config"], folder)
            if config != record["config"]:
                same = config == begun["config"]
                record = _record(name, config, begun["keys"] if same else keys, identities)
        elif (finished := self._take_over(record)) is not None:
            record = {key: finished[key] for key in RECORD}
        return Stage(self, record, finished)

    def branch_from(self, sources: Sequence[Path]) -> None:
        """From now on ``stage`` takes a stage that does not stand here over from a run folder of ``sources`` that holds
        it finished with the same identity, made from what stands here. The newest source is preferred; files are
        shared by hard link.

        Raises RunError where a source is no run folder.
        """
        for path in sources:
            if not is_run(path):
                raise RunError(f"{path} is not a run folder: it has no {RUN}; name a folder that train.py made")
        self._sources = sorted(sources, key=_opened_at, reverse=True)

    def _take_over(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """The manifest of the stage ``record``, after its files have come from a source; None where none has it.

        Raises RunError where a file to be taken over is damaged.
        """
        target = self.path / record["stage"]
        for run in self._sources:
            source = run / record["stage"]
            if not (source / DONE).exists():
                continue
            manifest = read_manifest(source / DONE)
            if manifest["identity"] != record["identity"]:
                # Earlier versions recorded ranks also of a stage that fits nothing.
                changed = differences(_depends_on(manifest), _depends_on(record))
                if not is_same_but_for_ranks(changed) or record["config"].keys() & set(RANKS):
                    continue
            if self._changed_input(manifest) is not None:
                continue
            verify(source, manifest["outputs"])
            make_folder(target)
            for file in own_files(target):  # what a killed branch left
                file.unlink()
            for name in manifest["outputs"]:
                make_folder((target / name).parent)
                try:
                    os.link(source / name, target / name)
                except OSError:  # another file system, or one without links; an error of the copy passes up
                    shutil.copy2(source / name, target / name)
            sync_below(target, (target / name for name in manifest["outputs"]))
            write_json(target / DONE, manifest)  # last: with it the stage exists
            _remove_scratch(target)
            return manifest
        return None

    def _changed_input(self, manifest: Mapping[str, Any]) -> str | None:
        """A file that the stage of ``manifest`` was made from and that a stage here has with other contents, or None.
        A teacher's or a server's answers differ from one making to the next, though settings and identity do not."""
        outputs = {stage.name: stage.manifest["outputs"] for stage in read_stages(self.path)}
        for file, sha256 in manifest["inputs"].items():
            maker = next((str(p) for p in Path(file).parents if str(p) in outputs), None)
            current = outputs[maker].get(name_in(Path(maker), Path(file)), {}) if maker else {}
            if current.get("sha256", sha256) != sha256:
                return str(file)
        return None

    def close(self) -> None:
        meter.stop()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """After an error a folder that holds no stage is taken back: a start that was refused leaves no run."""
        if error is not None and not any(True for name in (BEGUN, DONE) for _ in self.path.rglob(name)):
            (self.path / RUN).unlink(missing_ok=True)
            self._lock.remove()
        self.close()


class Stage:
    """One stage of a run: ``begin()``, make its files below ``path``, ``finish(summary)``. Made by RunFolder.stage."""

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
        """Finished with these settings, and its files are as recorded."""
        return self._finished is not None

    @property
    def summary(self) -> dict[str, Any]:
        """What ``finish`` was given."""
        if self._finished is None:
            raise RuntimeError(f"stage {self.name} has no summary before it is finished")
        return dict(self._finished["summary"])

    def begin(self) -> None:
        """Note on the disk that the stage is being made, and start its clock (or go on with a killed process's)."""
        begun = self.path / BEGUN
        if not begun.exists():
            times = {"fit": 0.0, "sample": 0.0, "judge": 0.0}
            clocks = {"wall_s": 0.0, "compute_s": 0.0, "time_s": times}
            write_json(begun, {**self._record, "started": _utc_now(), **clocks})
        self._begun = read_json(begun)
        if self._begun["identity"] != self.identity:  # it goes on with other ranks
            self._begun |= self._record
            write_json(begun, self._begun)
        self._meter = meter.start(self.path, self.path / SCRATCH / meter.SPENT)
        self._clock, self._computed = time.monotonic(), self._run.compute.seconds()

    @contextmanager
    def time(self, work: Work, account: meter.Account = "method") -> Iterator[None]:
        """Count the block's seconds as ``work``, and its tokens and operations on ``account``. Blocks do not nest; the
        seconds of one that fails or is killed are not counted."""
        begun = self._require_begun()
        start = time.monotonic()
        with meter.on_account(account):
            yield
        begun["time_s"][work] += time.monotonic() - start
        self._count_wall_time(begun)
        write_json(self.path / BEGUN, begun)

    def finish(self, summary: Mapping[str, Any], inputs: Sequence[Path] = ()) -> None:
        """Hash ``inputs`` (files or folders) and all files of the stage, and write stage.json: the stage now exists."""
        begun = self._require_begun()
        # What killed writers left goes before the files are listed.
        for path in leftovers(self.path):
            _remove(path)
        made = own_files(self.path)
        sync_below(self.path, made)  # the manifest must never outlast what it lists
        outputs: dict[str, Any] = {
            name_in(self.path, f): {"sha256": sha256_file(f), "bytes": f.stat().st_size} for f in made
        }
        for name, output in outputs.items():
            if output["bytes"] > HASHED_BYTES:
                remember(self.path / name, output["sha256"])  # it has just been read
        made_from = [file for path in inputs for file in (own_files(path) if path.is_dir() else [path])]
        self._count_wall_time(begun)
        other = max(0.0, begun["wall_s"] - sum(begun["time_s"].values()))
        computed = begun.get("compute_s")  # not where an earlier version began the stage
        seconds: dict[str, float | None] = {}
        seconds[self._run.compute.device] = None if computed is None else round(computed, 3)
        manifest = {
            **self._record,
            "inputs": {name_in(self._run.path, file): sha256_file(file) for file in made_from},
            "outputs": outputs,
            "summary": summary,
            "seed": self._run.seed,
            "versions": versions(),
            "git": git_commit(),
            "started": begun["started"],
            "finished": _utc_now(),
            "wall_s": round(begun["wall_s"], 3),
            "time_s": {work: round(s, 3) for work, s in {**begun["time_s"], "other": other}.items()},
            LEDGER: recorded(self._meter, summary, seconds),
        }
        meter.stop()
        write_json(self.path / DONE, manifest)
        self._finished = _as_read_back(manifest)
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


def own_files(folder: Path) -> list[Path]:
    """The files below ``folder``, without manifests, scratch and the folders of stages nested in it."""
    manifests = {*folder.rglob(DONE), *folder.rglob(BEGUN)}
    others = {folder / SCRATCH, *(file.parent for file in manifests)} - {folder}
    files = (path for path in folder.rglob("*") if path.is_file() and path not in manifests)
    return sorted(file for file in files if others.isdisjoint(file.parents))


def _has_work(folder: Path) -> bool:
    """Whether a stage that was begun holds rows that a model wrote, a resume point of a fit, or a fitted checkpoint."""
    rows = (*PATH_FILES, *VERDICT_FILES, *PREDICTION_FILES, REFLECTIONS, REFERENCE)
    written = any((folder / name).is_file() and (folder / name).stat().st_size for name in rows)
    points = any(True for pattern in RESUME_POINTS for _ in (folder / SCRATCH).glob(pattern))
    fits = (folder, folder / FIRST_FIT)
    return written or points or any((f / TRAIN_LOG).is_file() and (f / CHECKPOINT).exists() for f in fits)


def name_in(folder: Path, file: Path) -> str:
    """A file's name below ``folder``, as manifests have it; of a file elsewhere its whole path."""
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _remove_scratch(folder: Path) -> None:
    _remove(folder / BEGUN)
    _remove(folder / SCRATCH)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- what a stage depends on ----------------------------------------------------------------------------------------


def _record(name: str, config: Mapping[str, Any], keys: Sequence[str], after: Mapping[str, str]) -> dict[str, Any]:
    hashed = json.dumps([name, config, after], sort_keys=True)
    identity = hashlib.sha256(hashed.encode()).hexdigest()
    return {"stage": name, "identity": identity, "config": config, "keys": list(keys), "after": after}


def _depends_on(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record["config"], **{f"identity of stage {name}": identity for name, identity in record["after"].items()}}


def _other_settings(path: Path, changed: Mapping[str, Mapping[str, tuple[str, str]]]) -> SettingsChanged:
    """The refusal for ``changed``: stage -> key -> (recorded, now). One line a key, with the stages that need it."""
    stages: dict[tuple[str, str, str], list[str]] = {}
    for name, keys in changed.items():
        for key, (old, new) in keys.items():
            if key in RANKS and keys.keys() - set(RANKS):  # they alone would be no reason
                continue
            stages.setdefault((key, old, new), []).append(name)
    lines = [
        f"  {key}: recorded {old}, now {new} (stages made with it: {', '.join(dict.fromkeys(names))})"
        for (key, old, new), names in sorted(stages.items())
    ]
    remedy = "put the recorded values back, choose another hydra.run.dir, or add resume=branch to reuse what still fits"
    return SettingsChanged("\n".join([f"run folder {path} was made with other settings; {remedy}:", *lines]))


def _as_read_back(value: Any) -> Any:
    """``value`` as it comes back from a JSON file: tuples as lists, keys as text."""
    return json.loads(to_json(value))


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- which run ------------------------------------------------------------------------------------------------------


def newest_unfinished(root: Path, name: str) -> Path | None:
    """The unfinished run of ``name`` below ``root`` (``root/name/*``) that was started last, or None."""
    runs = [file.parent for file in (root / name).glob(f"*/{RUN}")]
    return max((run for run in runs if finished_summary(run) is None), key=_opened_at, default=None)


def branch_folder(path: Path) -> Path:
    """The next free name beside ``path`` for a branch of it: "<path>-branch-01", "-02", ...; nothing is created."""
    stem = re.sub(r"-branch-\d+$", "", path.name)  # a branch of a branch is a sibling too
    return next(p for n in count(1) if not (p := path.with_name(f"{stem}-branch-{n:02d}")).exists())


def _opened_at(run: Path) -> tuple[int, str]:
    """Sort key: when the run was opened, in nanoseconds; among equals its name."""
    return (run / RUN).stat().st_mtime_ns, run.name
