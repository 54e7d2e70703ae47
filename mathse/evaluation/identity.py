"""What the answers in a run folder were made with: a rerun with other settings does not go on with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.config import flatten
from mathse.config.actors import ServerGenerator
from mathse.config.schema import EvaluateConfig
from mathse.errors import SettingsChanged
from mathse.evaluation.decoding import Decoding
from mathse.evaluation.files import IDENTITY
from mathse.evaluation.opened import Opened
from mathse.runs.class_names import recorded
from mathse.runs.store import make_folder, read_json, sha256_file, write_json


def keep_identity(config: EvaluateConfig, folder: Path, benchmarks: Sequence[Opened], how: Decoding | None) -> None:
    """Write each benchmark's ``identity.json``. Raises SettingsChanged, before anything is written, where one says
    otherwise."""
    made_by = made_with(config, how)
    keep({opened.folder / IDENTITY: {**made_by, **asked_of(config, opened)} for opened in benchmarks}, folder)


def keep(identities: Mapping[Path, Mapping[str, Any]], folder: Path) -> None:
    """Write identities, a file each, if all of them agree with what is there; else SettingsChanged."""
    for file, now in identities.items():
        now = recorded(now)
        before = read_json(file) if file.exists() else now
        if changed := sorted(key for key in {*now, *before} if now.get(key) != before.get(key)):
            raise SettingsChanged(
                f"{folder} holds an evaluation with other settings ({', '.join(changed)}); choose another hydra.run.dir"
            )
    for file, now in identities.items():
        make_folder(file.parent)
        write_json(file, recorded(now))


def made_with(config: EvaluateConfig, how: Decoding | None) -> dict[str, Any]:
    """Who answered, and how; ``how`` None: a file."""
    if how is None:
        return {"predictions_sha256": sha256_file(Path(str(config.predictions))), "n_samples": config.n_samples}
    if isinstance(config.generator, ServerGenerator):
        asked = {"server_model": config.generator.model, "prompt_style": config.generator.style}
        return {**asked, **how.described(), "batch_size": how.batch_size}
    backbone = {key: value for key, value in flatten(config).items() if key.startswith("backbone.")}
    checkpoint = config.checkpoint or (None if isinstance(config.backbone, dict) else config.backbone.path)
    return {
        "checkpoint": config.checkpoint,
        "checkpoint_sha256": fingerprint(checkpoint),
        **backbone,
        **how.described(),
        "batch_size": how.batch_size,
    }


def asked_of(config: EvaluateConfig, opened: Opened) -> dict[str, Any]:
    """What was asked: the rows by content, and the settings that chose them."""
    flat = flatten(config)
    world = {key: value for key, value in flat.items() if opened.bench.hub is None and key.startswith("data.")}
    return {
        "problems": len(opened.items),
        "problems_sha256": opened.digest(),
        "prompt": opened.bench.prompt,
        **world,
    }


def fingerprint(checkpoint: str | None) -> str | None:
    """The SHA-256 of a checkpoint's weights, of all shards together; None where there are none on this disk."""
    files = sorted(Path(checkpoint).glob("*.safetensors")) if checkpoint else []
    if len(files) < 2:
        return sha256_file(files[0]) if files else None
    return " ".join(f"{file.name}:{sha256_file(file)[:16]}" for file in files)
