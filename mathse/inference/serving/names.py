"""The name of a checkpoint at a server, and the folder from which a server loads it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from mathse.errors import CheckpointError
from mathse.runs.store import make_folder, publish_folder, read_json, sha256_file, write_json

SERVED = "served"  # in a run folder: the folders of served checkpoints and the logs of engines
NAME_PREFIX = "mathse-"
# top_k: larger than any vocabulary; 0 and -1 mean "all" to some engines and are errors to others.
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 1_000_000}


def content_name(checkpoint: Path) -> str:
    """Return ``mathse-`` and 12 hex digits that depend on the files of the folder: weights, tokenizer, chat template,
    pixel bounds.

    Raises CheckpointError if the folder has no files.
    """
    files = sorted(file for file in checkpoint.iterdir() if file.is_file()) if checkpoint.is_dir() else []
    if not files:
        raise CheckpointError(f"{checkpoint}: no checkpoint folder, so it cannot be served; remove its stage's folder")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return f"{NAME_PREFIX}{digest.hexdigest()[:12]}"


def make_served_folder(checkpoint: Path, name: str, folder: Path) -> Path:
    """Make ``folder/name``, which links to the checkpoint's files and has a generation_config.json of its own.

    Some engines cache a loaded model by its path, so other weights get another path. Engines take the parameters that a
    request leaves out, such as top_k, from generation_config.json. Qwen2-VL's has top_k = 1, with which all samples of
    a problem are equal; the file made here leaves all parameters to the request.

    Returns:
        The absolute path.
    """
    target = folder.absolute() / name
    is_whole = target.is_dir() and all(file.exists() for file in target.iterdir())  # no link is broken
    if not is_whole:
        make_folder(folder)
        unfinished = folder.absolute() / f".{name}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        generation_config = checkpoint / "generation_config.json"
        for file in checkpoint.iterdir():
            if file.is_file() and file != generation_config:
                (unfinished / file.name).symlink_to(file.resolve())
        generation = read_json(generation_config) if generation_config.is_file() else {}
        write_json(unfinished / generation_config.name, generation | SAMPLING)
        publish_folder(unfinished, target)
    return target
