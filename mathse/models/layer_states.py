"""Stored hidden states of the frozen lower layers (``freeze_layers``), computed once for a row instead of every epoch.

A file of the feature store has a row's hidden states (h, T), in the dtype of the layers' output, with its token ids and
everything else that the upper layers read. Its name is a hash of everything that its numbers depend on: the row as the
model reads it, the weights that are not trained, and the precision. So the training runs of an evolution, which have
the same lower layers, share files. A row goes through the layers by itself, without padding: its states depend neither
on other rows nor on a resume.

A training run uses stored states for all rows or for none. Before its first step, missing rows go through the layers,
each rank's share on that rank; during its steps no lower layer, no connector and no tower runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from torch import Tensor

from mathse.errors import DataError
from mathse.models.base import Backbone, Encoded
from mathse.models.feature_store import GIB, FeatureStore
from mathse.models.lower_layers import (
    STATES,
    compute_states,
    find_layers,
    find_reason_against_states,
    make_layer_numbering,
)
from mathse.models.parts import iterate_parameters
from mathse.models.precision import choose_pixel_dtype
from mathse.models.row import Row
from mathse.runs.store import to_json

FORMAT = 1  # version of the files
# Names of the tensors in a file: token ids, number of prompt tokens, prefix of other per-token tensors.
IDS, PROMPT, EXTRA = "ids", "prompt", "extra."


@dataclass(frozen=True)
class LayerStates:
    """The files of the rows of a training run, in the rows' order.

    It has no tensor, so it can be sent to ranks and loader processes.

    Attributes:
        pixels: dtype in which pictures are read.
        autocast: float32 weights compute in bfloat16.
    """

    store: FeatureStore
    files: tuple[Path, ...]
    pixels: torch.dtype
    autocast: bool

    def read(self, number: int) -> Encoded:
        """Return a row with its states among its ``extras``. Raises DataError if its file is missing or damaged."""
        file = self.files[number]
        tensors = self.store.read(file)
        if tensors is None:
            raise DataError(
                f"{file}: is missing or damaged and was present when the training run began; start the same command "
                "again: it computes the file again and resumes the run"
            )
        ids, prompt = tensors[IDS].tolist(), int(tensors[PROMPT])
        extras = {name.removeprefix(EXTRA): tensor for name, tensor in tensors.items() if name.startswith(EXTRA)}
        return Encoded(ids[:prompt], ids[prompt:], {}, {**extras, STATES: tensors[STATES]})

    def fill(self, backbone: Backbone, rows: Sequence[Row], share: slice) -> None:
        """Compute the missing states of these rows, the rows of ``files``; each rank computes its ``share``."""
        row_of = dict(zip(self.files, rows, strict=True))
        for file in list(row_of)[share]:
            if self.store.read(file) is None:
                encoded = backbone.encode([row_of[file]])[0].with_pixels_in(self.pixels)
                with compute_as_in_training(backbone, self.autocast):
                    states = compute_states(backbone, make_batch(backbone, encoded))
                tensors = {IDS: torch.tensor(encoded.ids), PROMPT: torch.tensor([len(encoded.prompt)])}
                tensors |= {f"{EXTRA}{name}": tensor.contiguous() for name, tensor in encoded.extras.items()}
                self.store.write(file, {**tensors, STATES: convert_to_per_token(states)})

    def select(self, numbers: slice) -> LayerStates:
        """Return the states of a part of the rows."""
        return replace(self, files=self.files[numbers])


def prepare(backbone: Backbone, rows: Sequence[Row], store: FeatureStore, precision: str) -> LayerStates | str:
    """Name the files of these rows and make room for the missing ones; return the reason if that is impossible.

    Args:
        backbone: prepared for training, on the device of the training.
    """
    pixels, autocast = choose_pixel_dtype(precision), precision == "bf16-mixed"
    folder, context = _describe_computation(backbone, autocast)
    lengths: dict[Path, int] = {}  # file -> tokens
    files = []
    examples: dict[bool, Encoded] = {}  # the first row with a picture, and the first without
    for row in rows:
        encoded = backbone.encode([row])[0].with_pixels_in(pixels)
        file = store.folder / folder / f"{_hash_row(context, encoded)}.safetensors"
        files.append(file)
        lengths[file] = len(encoded.ids)
        examples.setdefault(bool(encoded.features), encoded)
    # Test on the examples whether states can replace the lower layers of this model.
    for encoded in examples.values():
        with compute_as_in_training(backbone, autocast):
            batch = make_batch(backbone, encoded)
            states = compute_states(backbone, batch)
            extras = {**encoded.extras, STATES: convert_to_per_token(states)}
            stored = make_batch(backbone, replace(encoded, features={}, extras=extras))
            if (reason := find_reason_against_states(backbone, batch, stored)) is not None:
                return reason
    missing = {file for file in lengths if not store.has(file)}
    if missing:
        needed = states.nbytes // states.shape[1] * sum(lengths[file] for file in missing)
        store.folder.mkdir(parents=True, exist_ok=True)
        free = store.make_room(needed, lengths.keys() - missing)
        if free < needed:
            return (
                f"those of {len(missing):,} rows would take {needed / GIB:.1f} GiB and {store.folder} has room for "
                f"{max(0, free) / GIB:.1f} of {store.max_bytes / GIB:.1f} GiB; raise trainer.tower_features_gb"
            )
    return LayerStates(store, tuple(files), pixels, autocast)


@contextmanager
def compute_as_in_training(backbone: Backbone, autocast: bool) -> Iterator[None]:
    """Within the context, the model computes as in a training step, without dropout and without gradients."""
    was_training = backbone.model.training
    backbone.model.eval()
    try:
        with torch.no_grad(), torch.autocast(backbone.device.type, torch.bfloat16, enabled=autocast):
            yield
    finally:
        backbone.model.train(was_training)


def make_batch(backbone: Backbone, encoded: Encoded) -> dict[str, Tensor]:
    """Return a batch of one row on the model's device."""
    return {name: tensor.to(backbone.device) for name, tensor in backbone.pad([encoded]).items()}


def convert_to_per_token(states: Tensor) -> Tensor:
    """Convert (1, T, h) to (h, T), the form of per-token tensors, on the CPU."""
    return states[0].T.to("cpu").contiguous()


def _describe_computation(backbone: Backbone, autocast: bool) -> tuple[str, list[object]]:
    """Return everything beside a row that its states depend on: a short hash of the weights, and the full list."""
    digest = hashlib.sha256(backbone.family.encode())
    number_of, (_, layers) = make_layer_numbering(backbone), find_layers(backbone)
    for _, name, parameter in iterate_parameters(backbone):
        if parameter.requires_grad or backbone.frozen_layers <= number_of(name) < len(layers):
            continue
        values = parameter.detach().to("cpu").flatten()
        digest.update(f"{name} {tuple(parameter.shape)} {values.dtype}".encode())
        digest.update(values.contiguous().view(torch.uint8).numpy().data)
    config = backbone.model.config.get_text_config()
    settings = {name: str(value) for name, value in config.to_dict().items() if not name.startswith("_")}
    device = backbone.device.type
    machine = [torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()] if device == "cpu" else [device]
    versions = [FORMAT, torch.__version__, transformers.__version__]
    how = [settings, config._attn_implementation, backbone.frozen_layers, autocast, *machine, *versions]
    return digest.hexdigest()[:16], [digest.hexdigest(), *how]


def _hash_row(context: list[object], encoded: Encoded) -> str:
    digest = hashlib.sha256(to_json([context, encoded.prompt, encoded.response]).encode())
    for name, tensor in sorted({**encoded.extras, **encoded.features}.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
