"""``mathse convert SRC DST``: a published InternVL2.5 or InternVL3 folder, saved in transformers' layout.

Training and evaluation open published folders as they are; this is for servers and scripts that know transformers'
layout alone, such as one that puts a run's adapter on its base with plain peft. The checkpoint is opened and saved, so
it has to fit into memory once.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from mathse.config.program import program
from mathse.errors import CheckpointError

PUBLISHED_LAYOUT = "internvl_chat"  # model_type in config.json
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}  # by their names in safetensors


def convert(source: Path, destination: Path, dtype: str | None = None) -> Path:
    """Save the published folder ``source`` in transformers' layout as ``destination``, which it returns.

    Weights keep the dtype of the first of them unless ``dtype`` names another. ``destination`` appears when it is
    whole; what a killed conversion left beside it is removed first. Raises CheckpointError, before a weight is read,
    for a folder that is not a whole InternVL2.5 or InternVL3 in the published layout, and for a disk without room.
    """
    from mathse.models import load
    from mathse.models.checkpoint import expect_family, headers  # here: --help needs no torch
    from mathse.runs.store import make_folder, publish_folder

    language = expect_family(source, "internvl2_5", (PUBLISHED_LAYOUT,)).get("llm_config")
    of_qwen = isinstance(language, dict) and language.get("architectures") == ["Qwen2ForCausalLM"]
    family = "internvl3" if of_qwen else "internvl2_5"
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(f"{destination} exists and is not empty; name a new folder")
    stored = headers(source)
    make_folder(destination.parent)
    size = sum(file.stat().st_size for file in {tensor.file for tensor in stored.values()})
    free = shutil.disk_usage(destination.parent).free
    if free < size:
        raise CheckpointError(
            f"{destination.parent} has {free / 2**30:.1f} GiB free and the weights take {size / 2**30:.1f} GiB; make "
            "room, or convert to another disk"
        )
    backbone = load(family, source, dtype=dtype or DTYPES[next(iter(stored.values())).dtype])
    unfinished = destination.with_name(f".{destination.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    try:
        unfinished.mkdir()
        backbone.save(unfinished)
        if destination.exists():
            destination.rmdir()
        publish_folder(unfinished, destination)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return destination


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=program("convert"),
        description="Save a published InternVL2.5 or InternVL3 checkpoint in transformers' layout, which servers open.",
    )
    parser.add_argument("source", metavar="SRC", help="a folder, or a hub id such as OpenGVLab/InternVL2_5-8B")
    parser.add_argument("destination", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--revision", help="of a hub id")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: as the source has it")
    arguments = parser.parse_args(argv)
    from mathse.models import quiet
    from mathse.models.checkpoint import read_config, resolve

    quiet()
    source = resolve(arguments.source, arguments.revision)
    if read_config(source).get("model_type") == "internvl":
        raise CheckpointError(f"{source} is in transformers' layout already; use it as it is")
    convert(source, arguments.destination, dtype=arguments.dtype)
    print(f"{arguments.destination}: InternVL in transformers' layout")
    return 0
