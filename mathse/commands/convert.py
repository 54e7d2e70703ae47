"""``mathse convert SRC DST``: save a published InternVL2.5 or InternVL3 folder in transformers' layout.

Training and evaluation open published folders directly. This command is for servers and scripts that read only
transformers' layout, such as a script that adds a run's adapter to its base with peft. The checkpoint is opened and
saved, and must fit into memory once.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from mathse.config.program import format_command
from mathse.errors import CheckpointError

PUBLISHED_LAYOUT = "internvl_chat"  # model_type in config.json
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}  # name in safetensors -> in torch


def convert(source: Path, destination: Path, dtype: str | None = None) -> Path:
    """Save the published folder ``source`` in transformers' layout as ``destination``. Returns ``destination``.

    The weights keep the dtype of the first tensor unless ``dtype`` is given. ``destination`` appears when it is
    complete, and the rest of a killed conversion is removed first.

    Raises CheckpointError, before a weight is read, for a folder that is not a complete InternVL2.5 or InternVL3 in the
    published layout, and for a full disk.
    """
    from mathse.models import load
    from mathse.models.checkpoint import expect_family, read_headers  # load torch, which --help does not need
    from mathse.runs.store import make_folder, publish_folder

    language = expect_family(source, "internvl2_5", (PUBLISHED_LAYOUT,)).get("llm_config")
    of_qwen = isinstance(language, dict) and language.get("architectures") == ["Qwen2ForCausalLM"]
    family = "internvl3" if of_qwen else "internvl2_5"
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(f"{destination} exists and is not empty; name a new folder")
    # The converted weights have the size of the published weights.
    stored = read_headers(source)
    make_folder(destination.parent)
    size = sum(file.stat().st_size for file in {tensor.file for tensor in stored.values()})
    free = shutil.disk_usage(destination.parent).free
    if free < size:
        raise CheckpointError(
            f"{destination.parent} has {free / 2**30:.1f} GiB free and the weights take {size / 2**30:.1f} GiB; make "
            "room, or convert to another disk"
        )
    backbone = load(family, source, dtype=dtype or DTYPES[next(iter(stored.values())).dtype])
    # Write beside the destination and rename, so that a killed conversion leaves no half checkpoint.
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
    """Run the subcommand and return its exit code. Raises CheckpointError as ``convert`` does."""
    parser = argparse.ArgumentParser(
        prog=format_command("convert"),
        description="Save a published InternVL2.5 or InternVL3 checkpoint in transformers' layout, which servers open.",
    )
    parser.add_argument("source", metavar="SRC", help="a folder, or a hub id such as OpenGVLab/InternVL2_5-8B")
    parser.add_argument("destination", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--revision", help="a branch, tag or commit of the hub id")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: that of the source")
    arguments = parser.parse_args(argv)
    from mathse.models import silence_transformers
    from mathse.models.checkpoint import read_config, resolve

    silence_transformers()
    source = resolve(arguments.source, arguments.revision)
    if read_config(source).get("model_type") == "internvl":
        raise CheckpointError(f"{source} is in transformers' layout already; use it directly")
    convert(source, arguments.destination, dtype=arguments.dtype)
    print(f"{arguments.destination}: InternVL in transformers' layout")
    return 0
