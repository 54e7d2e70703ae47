"""A stage's manifest: what a stage depends on, which files are its own, and where it was made."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mathse import __version__
from mathse.errors import RunError, SettingsChanged
from mathse.runs.class_names import recorded as by_recorded_names
from mathse.runs.layout import BEGUN, DONE, SCRATCH
from mathse.runs.store import make_folder, read_json, sha256_file, sync_below, to_json, write_json

# What both manifests of a stage start with.
RECORD = {"stage": str, "identity": str, "config": dict, "keys": list, "after": dict}
OUTPUT = {"sha256": str, "bytes": int}  # what a finished stage's manifest says of each file
# Settings that came after runs had been made, each with the value that does what those runs did. With that value a
# setting is no part of what a stage depends on, so that a newer program goes on with older runs.
LATER: dict[str, Any] = {"evolution.reflect.row": "question", "judge.parts": ["orm", "answer"]}
HASHED_BYTES = 64 * 2**20  # files up to this size are read again when a finished stage is reused, larger ones measured


# --- what a stage depends on ----------------------------------------------------------------------------------------


def make_record(name: str, config: dict[str, Any], keys: Sequence[str], after: dict[str, str]) -> dict[str, Any]:
    made_from = json.dumps([name, config, after], sort_keys=True)
    identity = hashlib.sha256(made_from.encode()).hexdigest()
    return {"stage": name, "identity": identity, "config": config, "keys": list(keys), "after": after}


def config_slice(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The settings at or below one of ``keys``, in alphabetical order, without those that ``LATER`` leaves out; classes
    by their recorded names."""
    config = by_recorded_names(config)
    chosen = (key for key in sorted(config) if any(key == k or key.startswith(f"{k}.") for k in keys))
    return {key: config[key] for key in chosen if not (key in LATER and config[key] == LATER[key])}


def depends_on(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record["config"], **{f"identity of stage {name}": identity for name, identity in record["after"].items()}}


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Key -> (recorded value, value now) where they differ; a key that only one side has differs too."""
    recorded = {**{key: value for key, value in LATER.items() if key in now}, **recorded}
    both = {key: tuple(_shown(values, key) for values in (recorded, now)) for key in sorted({*recorded, *now})}
    return {key: (old, new) for key, (old, new) in both.items() if old != new}


def _shown(values: Mapping[str, Any], key: str) -> str:
    return to_json(values[key]) if key in values else "not set"  # as text, because 1 == True == 1.0 in Python


def other_settings(path: Path, changed: Mapping[str, Mapping[str, tuple[str, str]]]) -> SettingsChanged:
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


def unfinished_in(run: Path) -> list[tuple[str, dict[str, Any]]]:
    """(name, record) of every stage in ``run`` that was begun and not finished."""
    return [(file.parent.relative_to(run).as_posix(), read_record(file)) for file in sorted(run.rglob(BEGUN))]


def read_record(file: Path) -> dict[str, Any]:
    """What a stage depends on, from either manifest of it. Raises RunError where the file is no manifest."""
    record = read_json(file)
    if missing := [key for key in RECORD if not _has_kinds(record, {key: RECORD[key]})]:
        raise RunError(f"{file} is not a stage's manifest: it lacks {missing}; remove {file.parent} to make it again")
    described: dict[str, Any] = record
    return described


def read_manifest(file: Path) -> dict[str, Any]:
    """The stage.json of a finished stage. Raises RunError where it is none, and where it lists files that are not below
    its folder: a run folder may come from anybody."""
    if not file.is_file():
        raise RunError(f"{file.parent} is not a finished stage: it has no {file.name}")
    manifest = read_record(file)
    if not _has_kinds(manifest, {"outputs": dict, "summary": dict}) or not all(
        _has_kinds(output, OUTPUT) for output in manifest["outputs"].values()
    ):
        raise RunError(f"{file} does not say which files the stage made; remove {file.parent} to make it again")
    for name in manifest["outputs"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(
                f"{file} lists {name!r}, which is not below {file.parent}; no run writes that: do not use it"
            )
    return manifest


def _has_kinds(value: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


def own_files(folder: Path) -> list[Path]:
    """The files below ``folder``, without manifests, scratch and the folders of stages nested in it."""
    manifests = {*folder.rglob(DONE), *folder.rglob(BEGUN)}
    others = {folder / SCRATCH, *(file.parent for file in manifests)} - {folder}
    files = (path for path in folder.rglob("*") if path.is_file() and path not in manifests)
    return sorted(file for file in files if others.isdisjoint(file.parents))


def verify(folder: Path, outputs: Mapping[str, Any], digest: Callable[[Path], str] = sha256_file) -> None:
    """Raise RunError where one of a finished stage's ``outputs`` is missing or differs from its record; the contents of
    files above HASHED_BYTES are not read. ``digest``: the SHA-256 of a file."""
    for name, recorded in outputs.items():
        verify_file(folder, name, recorded, digest if recorded["bytes"] <= HASHED_BYTES else None)


def verify_file(
    folder: Path, name: str, recorded: Mapping[str, Any], digest: Callable[[Path], str] | None = sha256_file
) -> None:
    """The same for one file. ``digest`` None: only its size is compared."""
    file, size = folder / name, recorded["bytes"]
    if not file.is_file():
        damage = "is missing"
    elif file.stat().st_size != size:
        damage = f"has {file.stat().st_size} bytes, not the recorded {size}"
    elif digest is not None and digest(file) != recorded["sha256"]:
        damage = "has other contents than recorded (sha256)"
    else:
        return
    raise RunError(f"{file} {damage}; put the file back, or remove {folder} so that the stage is made again")


def take_over(source: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make the finished stage at ``source`` stand in ``folder`` too, its manifest last."""
    make_folder(folder)
    for file in own_files(folder):  # what a killed branch left
        file.unlink()
    for name in manifest["outputs"]:
        make_folder((folder / name).parent)
        try:
            os.link(source / name, folder / name)
        except OSError:  # another file system, or one without links; if the copy fails too, that error passes up
            shutil.copy2(source / name, folder / name)
    sync_below(folder, (folder / name for name in manifest["outputs"]))
    write_json(folder / DONE, manifest)
    remove_scratch(folder)


def remove_scratch(folder: Path) -> None:
    remove(folder / BEGUN)
    remove(folder / SCRATCH)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def name_in(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def plain(value: Any) -> Any:
    """``value`` as it comes back from a JSON file: tuples as lists, keys as text."""
    return json.loads(to_json(value))


# --- where a stage was made -----------------------------------------------------------------------------------------


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def versions() -> dict[str, str | None]:
    """Versions of what decides the numbers; read from the packages' metadata, because importing them takes seconds."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "mathse": __version__}
    for package in ("torch", "transformers", "pytorch_lightning"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def git_commit() -> str | None:
    """The commit of this source tree, with "-dirty" where files were changed since; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package may lie in somebody else's repository
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
