"""The name of a checkpoint at a server, and the folder that a server loads it from."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from mathse.errors import CheckpointError
from mathse.runs.store import make_folder, publish_folder, read_json, sha256_file, write_json

SERVED = "served"  # in a run folder: the folders of served checkpoints, logs of the engines
OURS = "mathse-"  # prefix of all names
GENERATION = "generation_config.json"
# top_k: more than any vocabulary has; 0 and -1 mean "all" to some engines, and a mistake to others
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 1_000_000}


def content_name(checkpoint: Path) -> str:
    """``mathse-`` and 12 hex digits that the files of the folder decide: weights, tokenizer, template, pixel bounds.

    Raises CheckpointError where there are none.
    """
    files = sorted(file for file in checkpoint.iterdir() if file.is_file()) if checkpoint.is_dir() else []
    if not files:
        raise CheckpointError(f"{checkpoint}: no checkpoint folder, so it cannot be served; remove its stage's folder")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return f"{OURS}{digest.hexdigest()[:12]}"


def served_folder(checkpoint: Path, name: str, folder: Path) -> Path:
    """``folder/name``, an absolute path: links to the checkpoint's files, and a generation_config.json of its own.

    Some engines keep a loaded model by its path, so other weights get another path. Engines take what a request leaves
    out (top_k, for one) from generation_config.json, and Qwen2-VL's has top_k = 1, with which all samples of a problem
    are the same; this one leaves all to the request.
    """
    target = folder.absolute() / name
    if not (target.is_dir() and all(file.exists() for file in target.iterdir())):  # or its links are broken
        make_folder(folder)
        unfinished = folder.absolute() / f".{name}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for file in checkpoint.iterdir():
            if file.is_file() and file.name != GENERATION:
                (unfinished / file.name).symlink_to(file.resolve())
        generation = read_json(checkpoint / GENERATION) if (checkpoint / GENERATION).is_file() else {}
        write_json(unfinished / GENERATION, generation | SAMPLING)
        publish_folder(unfinished, target)
    return target
