"""From a published InternVL2.5 folder to one that plain transformers opens.

Everything is checked from the headers of the weight files first; then the weights go over, one output file at a time.
The folder gets its name when it is whole.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import InternVLConfig

from mathse.errors import CheckpointError
from mathse.models import quiet
from mathse.models.checkpoint import as_dtype, expect_family, read_config, resolve
from mathse.models.internvl2_5 import layout
from mathse.models.internvl2_5.processor import build_processor, generation_config
from mathse.models.internvl2_5.source import Stored, opened, stored_tensors, weight_files
from mathse.models.internvl2_5.tokenizer import IMAGE, build_tokenizer
from mathse.runs.store import make_folder, publish_folder, write_json

FILE_BYTES = 2 * 2**30  # of an output file; a conversion takes about twice that in memory


@dataclass(frozen=True)
class Piece:
    """A published tensor and what it becomes."""

    stored: Stored
    move: layout.Move
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return torch.Size(self.stored.shape).numel() * self.dtype.itemsize


def is_original(folder: Path) -> bool:
    """Is this folder in the published layout, whose own code no longer runs on transformers 5?"""
    return read_config(folder).get("model_type") == layout.ORIGINAL


def convert(
    source: Path,
    destination: Path,
    dtype: str | torch.dtype | None = None,
    file_bytes: int = FILE_BYTES,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the published folder ``source`` in transformers' layout to ``destination``, which it returns.

    Weights keep their dtype unless ``dtype`` names another. ``destination`` appears when it is whole; what a killed
    conversion left beside it is removed first. Raises CheckpointError, before a weight is written, for a folder that is
    not InternVL2.5 in the published layout, for a missing file or tensor, an unknown tensor, a wrong shape.
    """
    published = expect_family(source, "internvl2_5", (layout.ORIGINAL,))
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(f"{destination} exists and is not empty; name a new folder")
    tokenizer = build_tokenizer(source)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    config = layout.native_config(published, image_token_id=image_id, where=str(source / "config.json"))
    if len(tokenizer) > config.text_config.vocab_size:
        rows = config.text_config.vocab_size
        raise CheckpointError(f"{source}: the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows")
    pieces = plan(stored_tensors(weight_files(source)), config, as_dtype(dtype) if dtype else None, source)
    make_folder(destination.parent)
    _expect_room(destination.parent, sum(piece.nbytes for piece in pieces))
    unfinished = destination.with_name(f".{destination.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    try:
        unfinished.mkdir()
        _write_weights(pieces, unfinished, file_bytes, tell)
        for part in (config, config.text_config, config.vision_config):
            part.dtype = pieces[0].dtype
        config.save_pretrained(unfinished)
        generation_config(source, tokenizer).save_pretrained(unfinished)
        build_processor(source, published, tokenizer).save_pretrained(unfinished)
        if destination.exists():
            destination.rmdir()
        publish_folder(unfinished, destination)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return destination


def plan(stored: Sequence[Stored], config: InternVLConfig, dtype: torch.dtype | None, folder: Path) -> list[Piece]:
    """What each tensor becomes. Raises CheckpointError unless together they are the native model's, shape by shape."""
    try:
        expected = layout.expected_shapes(config)
    except ValueError as e:
        raise CheckpointError(f"{folder}: there is no model with the sizes in its config.json ({e})") from None
    pieces = []
    for tensor in stored:
        try:
            move = layout.move(tensor.name, config)
        except KeyError:
            raise CheckpointError(
                f"{tensor.file}: InternVL2.5 has no tensor {tensor.name}; name a checkpoint as it was published"
            ) from None
        if move is None or (config.tie_word_embeddings and move.names == ("lm_head.weight",)):
            continue
        _expect_shapes(tensor, move, expected)
        pieces.append(Piece(tensor, move, dtype or tensor.dtype))
    if missing := expected.keys() - {name for piece in pieces for name in piece.move.names}:
        raise CheckpointError(
            f"{folder}: {len(missing)} of the tensors that config.json asks for are in no weight file, among them what "
            f"becomes {min(missing)}; download the checkpoint again"
        )
    return pieces


def _expect_shapes(tensor: Stored, move: layout.Move, expected: dict[str, tuple[int, ...]]) -> None:
    try:
        shapes = move.shapes(tensor.shape)
    except (RuntimeError, ValueError):
        shapes = ()  # cannot be shared out at all
    wanted = tuple(expected.get(name, ()) for name in move.names)
    if shapes != wanted:
        becomes = ", ".join(f"{name} {list(shape)}" for name, shape in zip(move.names, wanted, strict=True))
        raise CheckpointError(
            f"{tensor.file}: {tensor.name} has the shape {list(tensor.shape)}, which cannot become {becomes}, as "
            "config.json says; weights and config.json do not belong together"
        )


def _expect_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise CheckpointError(
            f"{folder} has {free / 2**30:.1f} GiB free and the weights take {wanted / 2**30:.1f} GiB; make room, or "
            "convert to another disk"
        )


# --- writing ---------------------------------------------------------------------------------------------------------


def _write_weights(pieces: Sequence[Piece], folder: Path, file_bytes: int, tell: Callable[[str], None]) -> None:
    """The weight files and their index, as ``save_pretrained`` would name them."""
    batches = list(_batches(pieces, file_bytes))
    names = [f"model-{k:05}-of-{len(batches):05}.safetensors" for k in range(1, len(batches) + 1)]
    if len(batches) == 1:
        names = ["model.safetensors"]
    held: dict[str, str] = {}
    for name, batch in zip(names, batches, strict=True):
        tensors = dict(_native(batch))
        save_file(tensors, folder / name, metadata={"format": "pt"})
        held |= dict.fromkeys(tensors, name)
        tell(f"{name}: {len(tensors)} tensors")
    if len(batches) > 1:
        total = sum(piece.nbytes for piece in pieces)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(held.items()))}
        write_json(folder / "model.safetensors.index.json", index)


def _batches(pieces: Sequence[Piece], file_bytes: int) -> Iterator[list[Piece]]:
    """Pieces of an output file each, in the order of the source."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if batch and size + piece.nbytes > file_bytes:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece.nbytes
    yield batch


def _native(batch: Sequence[Piece]) -> Iterator[tuple[str, Tensor]]:
    for file in dict.fromkeys(piece.stored.file for piece in batch):
        with opened(file) as tensors:
            for piece in (p for p in batch if p.stored.file == file):
                parts = piece.move.split(tensors.read(piece.stored.name))
                for name, part in zip(piece.move.names, parts, strict=True):
                    # a copy: the parts are views of the file, and the file is closed before they are written
                    yield layout.saved_name(name), part.to(piece.dtype, copy=True).contiguous()


# --- python -m mathse convert ----------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mathse convert",
        description="Write a published InternVL2.5 checkpoint so that plain transformers (and vLLM) open it.",
    )
    parser.add_argument("source", metavar="SRC", help="a folder, or a hub id such as OpenGVLab/InternVL2_5-8B")
    parser.add_argument("destination", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--revision", help="of a hub id")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: as the source has it")
    asked = parser.parse_args(argv)
    quiet()
    source = resolve(asked.source, asked.revision)
    if read_config(source).get("model_type") == layout.NATIVE:
        raise CheckpointError(f"{source} is in transformers' layout already; use it as it is")
    convert(source, asked.destination, dtype=asked.dtype, tell=lambda line: print(line, flush=True))
    print(f"{asked.destination}: InternVL2.5 in transformers' layout")
    return 0
