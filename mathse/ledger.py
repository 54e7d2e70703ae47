"""The run folder as resume point: which stages stand, what they were made from, and whether they may be reused.

A stage exists when its ``stage.json`` exists; that file is written last. Its identity is the hash of its name, of the
settings it depends on and of the identities of the stages before it, so equal identities mean equal contents.
Layout: ``<run>/{run.json, .lock, summary.json}`` and ``<run>/<stage>/{stage.begun.json, fit/, ..., stage.json}``;
``stage.begun.json`` stands while a stage is being made, ``fit/`` is its scratch folder and goes with it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

from mathse import __version__
from mathse.errors import RunError, SettingsChanged
from mathse.store import FolderLock, leftovers, make_folder, read_json, sha256_file, sync_below, to_json, write_json

RUN, SUMMARY, DONE, BEGUN, SCRATCH = "run.json", "summary.json", "stage.json", "stage.begun.json", "fit"
RECORD = ("stage", "identity", "config", "keys", "after")  # what both manifests of a stage start with
HASHED_BYTES = 64 * 2**20  # files up to this size are read again when a finished stage is reused, larger ones measured

Work = Literal["fit", "sample", "judge"]


class RunFolder:
    """An open run folder; one process has it at a time. Use as a context manager, or call ``close()``."""

    def __init__(self, path: Path, config: Mapping[str, Any], seed: int, lock: FolderLock) -> None:
        self.path = path
        self.config = _plain(config)
        self.seed = seed
        self._lock = lock

    @classmethod
    def open(
        cls, path: Path, config: Mapping[str, Any], *, name: str, task: str, seed: int, nested: Mapping[str, Any]
    ) -> Self:
        """Create or reopen ``path`` for ``config`` (dotted key -> value); ``nested`` is the same for run.json.

        Raises RunError where another process holds the folder, or where a stage in it was made with other settings;
        but for the lock, nothing has been written then.
        """
        make_folder(path)
        with ExitStack() as on_error:
            lock = on_error.enter_context(closing(FolderLock(path)))
            run = cls(path, config, seed, lock)
            run._refuse_other_settings()
            described = _plain({"name": name, "task": task, "seed": seed, "config": nested})
            if not (path / RUN).exists() or read_json(path / RUN) != described:
                write_json(path / RUN, described)
            on_error.pop_all()
        return run

    def stage(self, name: str, keys: Sequence[str], after: Sequence[Stage] = ()) -> Stage:
        """The stage ``name`` ("orm", or "orm/solver" inside it), which depends on the settings at and below ``keys``
        and on the stages ``after``.

        Raises RunError where it stands here already, finished or begun, with another identity, or where a file of the
        finished stage is missing or damaged.
        """
        if SCRATCH in Path(name).parts:
            raise ValueError(f"a stage cannot be called {SCRATCH!r} ({name!r}): that is a stage's scratch folder")
        record = _record(name, _slice(self.config, keys), keys, {s.name: s.identity for s in after})
        folder = self.path / name
        begun, finished = (_read_record(folder / m) if (folder / m).exists() else None for m in (BEGUN, DONE))
        for found in (begun, finished):
            if found and found["identity"] != record["identity"]:
                raise _other_settings(self.path, {name: _differences(_depends_on(found), _depends_on(record))})
        if finished:
            _verify(folder, finished)
            _remove_scratch(folder)  # a kill may have come between the manifest and this
        return Stage(self, record, finished)

    def branch_from(self, sources: Sequence[Path]) -> list[str]:
        """Take over every finished stage of the run folders ``sources`` that these settings would make again alike;
        their names, in the order of dependence. The newest source is preferred; files are shared by hard link.

        Raises RunError where a source is no run folder or a file to be taken over is damaged.
        """
        here = {name: record["identity"] for name, record in _stages(self.path, DONE)}
        offers = [
            (source / name, name, manifest)
            for source in sorted(map(_run_folder, sources), key=_age, reverse=True)
            for name, manifest in _stages(source, DONE)
            if not _differences(manifest["config"], _slice(self.config, manifest["keys"]))
        ]
        taken: list[str] = []
        while ready := next((o for o in offers if o[1] not in here and o[2]["after"].items() <= here.items()), None):
            folder, name, manifest = ready
            _verify(folder, manifest)
            _take_over(folder, self.path / name, manifest)
            here[name] = manifest["identity"]
            taken.append(name)
        return taken

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_other_settings(self) -> None:
        changed: dict[str, dict[str, tuple[str, str]]] = {}
        for name, record in (*_stages(self.path, DONE), *_stages(self.path, BEGUN)):
            if found := _differences(record["config"], _slice(self.config, record["keys"])):
                changed[name] = found
        if changed:
            raise _other_settings(self.path, changed)


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
        self._clock = 0.0
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
            write_json(begun, {**self._record, "started": _now(), "wall_s": 0.0, "time_s": times})
        self._begun = read_json(begun)
        self._clock = time.monotonic()

    @contextmanager
    def time(self, work: Work) -> Iterator[None]:
        """Count the block's seconds as ``work``. Blocks do not nest; one that fails or is killed is not counted."""
        begun = self._require_begun()
        start = time.monotonic()
        yield
        begun["time_s"][work] += time.monotonic() - start
        self._count_wall_time(begun)
        write_json(self.path / BEGUN, begun)

    def finish(self, summary: Mapping[str, Any], inputs: Sequence[Path] = ()) -> None:
        """Hash ``inputs`` (files or folders) and all files of the stage, and write stage.json: the stage now exists."""
        begun = self._require_begun()
        for path in leftovers(self.path):
            _remove(path)
        written = _own_files(self.path)
        sync_below(self.path, written)  # the manifest must never outlast what it lists
        outputs = {_name_in(self.path, f): {"sha256": sha256_file(f), "bytes": f.stat().st_size} for f in written}
        read = [file for path in inputs for file in (_own_files(path) if path.is_dir() else [path])]
        hashes = {_name_in(self._run.path, file): sha256_file(file) for file in read}
        self._count_wall_time(begun)
        other = max(0.0, begun["wall_s"] - sum(begun["time_s"].values()))
        manifest = {
            **self._record,
            "inputs": hashes,
            "outputs": outputs,
            "summary": summary,
            "seed": self._run.seed,
            "versions": _versions(),
            "git": _git_commit(),
            "started": begun["started"],
            "finished": _now(),
            "wall_s": round(begun["wall_s"], 3),
            "time_s": {work: round(s, 3) for work, s in {**begun["time_s"], "other": other}.items()},
        }
        write_json(self.path / DONE, manifest)
        self._finished = _plain(manifest)
        _remove_scratch(self.path)

    def _require_begun(self) -> dict[str, Any]:
        if self._begun is None:
            raise RuntimeError(f"stage {self.name} is timed or finished before begin()")
        return self._begun

    def _count_wall_time(self, begun: dict[str, Any]) -> None:
        now = time.monotonic()
        begun["wall_s"] += now - self._clock
        self._clock = now


# --- which run ------------------------------------------------------------------------------------------------------


def finished_summary(path: Path) -> dict[str, Any] | None:
    """The summary of the run at ``path``, or None where it has not finished."""
    if not (path / SUMMARY).exists():
        return None
    summary = read_json(path / SUMMARY)
    return summary if isinstance(summary, dict) and summary.get("status") == "finished" else None


def newest_unfinished(root: Path, name: str) -> Path | None:
    """The unfinished run of ``name`` below ``root`` (``root/name/*``) that was started last, or None."""
    runs = [file.parent for file in (root / name).glob(f"*/{RUN}")]
    return max((run for run in runs if finished_summary(run) is None), key=_age, default=None)


def branch_folder(path: Path) -> Path:
    """The next free name beside ``path`` for a branch of it: "<path>-branch-01", "-02", ...; nothing is created."""
    stem = re.sub(r"-branch-\d+$", "", path.name)  # a branch of a branch is a sibling too
    return next(p for n in count(1) if not (p := path.with_name(f"{stem}-branch-{n:02d}")).exists())


def _age(run: Path) -> tuple[int, str]:
    return (run / RUN).stat().st_mtime_ns, run.name


def _run_folder(path: Path) -> Path:
    if not (path / RUN).exists():
        raise RunError(f"{path} is not a run folder: it has no {RUN}; name a folder that train.py made")
    return path


# --- what a stage depends on ----------------------------------------------------------------------------------------


def _record(name: str, config: dict[str, Any], keys: Sequence[str], after: dict[str, str]) -> dict[str, Any]:
    made_from = json.dumps([name, config, after], sort_keys=True)
    identity = hashlib.sha256(made_from.encode()).hexdigest()
    return {"stage": name, "identity": identity, "config": config, "keys": list(keys), "after": after}


def _slice(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The settings at or below one of ``keys``, in alphabetical order."""
    return {key: config[key] for key in sorted(config) if any(key == k or key.startswith(f"{k}.") for k in keys)}


def _depends_on(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record["config"], **{f"identity of stage {name}": identity for name, identity in record["after"].items()}}


def _differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Key -> (recorded value, value now) where they differ; a key that only one side has differs too."""
    both = {key: tuple(_shown(values, key) for values in (recorded, now)) for key in sorted({*recorded, *now})}
    return {key: (old, new) for key, (old, new) in both.items() if old != new}


def _shown(values: Mapping[str, Any], key: str) -> str:
    return to_json(values[key]) if key in values else "not set"  # as text, because 1 == True == 1.0 in Python


def _other_settings(path: Path, changed: Mapping[str, Mapping[str, tuple[str, str]]]) -> SettingsChanged:
    """The refusal for ``changed``: stage -> key -> (recorded, now). One line a key, with the stages that need it."""
    stages: dict[tuple[str, str, str], list[str]] = {}
    for name, keys in changed.items():
        for key, (old, new) in keys.items():
            stages.setdefault((key, old, new), []).append(name)
    lines = [
        f"  {key}: recorded {old}, now {new} (stages made with it: {', '.join(dict.fromkeys(names))})"
        for (key, old, new), names in sorted(stages.items())
    ]
    remedy = "put the recorded values back, choose another hydra.run.dir, or add resume=branch to reuse what still fits"
    return SettingsChanged("\n".join([f"run folder {path} was made with other settings; {remedy}:", *lines]))


# --- a stage's files ------------------------------------------------------------------------------------------------


def _stages(run: Path, manifest: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, record) of every stage in ``run`` that has a ``manifest``."""
    return [(file.parent.relative_to(run).as_posix(), _read_record(file)) for file in sorted(run.rglob(manifest))]


def _read_record(file: Path) -> dict[str, Any]:
    record = read_json(file)
    if not isinstance(record, dict) or (missing := [key for key in RECORD if key not in record]):
        raise RunError(f"{file} is not a stage's manifest: it lacks {missing}; remove {file.parent} to make it again")
    return record


def _own_files(folder: Path) -> list[Path]:
    """The files below ``folder``, without manifests, scratch and the folders of stages nested in it."""
    manifests = {*folder.rglob(DONE), *folder.rglob(BEGUN)}
    others = {folder / SCRATCH, *(file.parent for file in manifests)} - {folder}
    files = (path for path in folder.rglob("*") if path.is_file() and path not in manifests)
    return sorted(file for file in files if others.isdisjoint(file.parents))


def _verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise RunError where an output of the finished stage is missing or differs from its record."""
    for name, recorded in manifest["outputs"].items():
        file, size = folder / name, recorded["bytes"]
        if not file.is_file():
            damage = "is missing"
        elif file.stat().st_size != size:
            damage = f"has {file.stat().st_size} bytes, not the recorded {size}"
        elif size <= HASHED_BYTES and sha256_file(file) != recorded["sha256"]:
            damage = "has other contents than recorded (sha256)"
        else:
            continue
        raise RunError(f"{file} {damage}; put the file back, or remove {folder} so that the stage is made again")


def _take_over(source: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make the finished stage at ``source`` stand in ``folder`` too, its manifest last."""
    make_folder(folder)
    for file in _own_files(folder):  # what a killed branch left
        file.unlink()
    for name in manifest["outputs"]:
        make_folder((folder / name).parent)
        try:
            os.link(source / name, folder / name)
        except OSError:  # another file system, or one without links; if the copy fails too, that error passes up
            shutil.copy2(source / name, folder / name)
    sync_below(folder, (folder / name for name in manifest["outputs"]))
    write_json(folder / DONE, manifest)
    _remove_scratch(folder)


def _remove_scratch(folder: Path) -> None:
    _remove(folder / BEGUN)
    _remove(folder / SCRATCH)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _name_in(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _plain(value: Any) -> Any:
    """``value`` as it comes back from a JSON file: tuples as lists, keys as text."""
    return json.loads(to_json(value))


# --- where a stage was made -----------------------------------------------------------------------------------------


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def _versions() -> dict[str, str | None]:
    """Versions of what decides the numbers; read from the packages' metadata, because importing them takes seconds."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "mathse": __version__}
    for package in ("torch", "transformers", "pytorch_lightning"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def _git_commit() -> str | None:
    """The commit of this source tree, with "-dirty" where files were changed since; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # an installed package may lie in somebody else's repository
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
