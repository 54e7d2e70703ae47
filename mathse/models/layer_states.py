"""Hidden states of the frozen lower layers (``freeze_layers``), computed once a row instead of in every epoch.

A row's hidden states are kept in the numbers that the layers put out, (h, T), with its token ids and all else that the
upper layers read, in the store of tower features. A file is named by what its numbers depend on: the row as the model
reads it, the weights that do not train, and how they are computed; so the fits of a run, whose students have the lower
layers in common, share files. A row goes through the layers by itself, without padding: its states do not depend on the
rows beside it, nor on whether a fit was resumed.

A fit is all or nothing: before its first step the rows that are missing go through the layers, each rank's share on
that rank; in its steps no lower layer, no connector and no tower runs.
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
from mathse.models.lower_layers import STATES, layer_numbers, layers_of, states_of, why_not_kept
from mathse.models.parts import named_parts
from mathse.models.precision import pixels_of
from mathse.models.row import Row
from mathse.runs.store import to_json

FORMAT = 1  # of the files
IDS, PROMPT, EXTRA = "ids", "prompt", "extra."  # names in a file: token ids, how many are the prompt's, other tensors


@dataclass(frozen=True)
class LayerStates:
    """The files of a fit's rows in a store, in the rows' order; it holds no tensor, and travels to ranks and workers.

    ``pixels``: the dtype in which pictures are read. ``autocast``: float32 weights compute in bfloat16.
    """

    store: FeatureStore
    files: tuple[Path, ...]
    pixels: torch.dtype
    autocast: bool

    def read(self, number: int) -> Encoded:
        """A row, its states among its ``extras``. Raises DataError where its file is gone or damaged."""
        file = self.files[number]
        tensors = self.store.read(file)
        if tensors is None:
            raise DataError(
                f"{file}: was there when the fit began, and is gone or damaged; start the same command again: "
                "it is computed anew, and the fit goes on"
            )
        ids, prompt = tensors[IDS].tolist(), int(tensors[PROMPT])
        extras = {name.removeprefix(EXTRA): tensor for name, tensor in tensors.items() if name.startswith(EXTRA)}
        return Encoded(ids[:prompt], ids[prompt:], {}, {**extras, STATES: tensors[STATES]})

    def fill(self, backbone: Backbone, rows: Sequence[Row], share: slice) -> None:
        """Compute what is missing of these rows, which are those of ``files``; of several ranks each its ``share``."""
        row_of = dict(zip(self.files, rows, strict=True))
        for file in list(row_of)[share]:
            if self.store.read(file) is None:
                encoded = backbone.encode([row_of[file]])[0].with_pixels_in(self.pixels)
                with computing(backbone, self.autocast):
                    states = states_of(backbone, batch_of(backbone, encoded))
                tensors = {IDS: torch.tensor(encoded.ids), PROMPT: torch.tensor([len(encoded.prompt)])}
                tensors |= {f"{EXTRA}{name}": tensor.contiguous() for name, tensor in encoded.extras.items()}
                self.store.write(file, {**tensors, STATES: per_token(states)})

    def part(self, numbers: slice) -> LayerStates:
        return replace(self, files=self.files[numbers])


def prepare(backbone: Backbone, rows: Sequence[Row], store: FeatureStore, precision: str) -> LayerStates | str:
    """The states of these rows, with room for those that are missing; or why they cannot be kept.

    ``backbone`` is ready to be fitted, on the device of the fit.
    """
    pixels, autocast = pixels_of(precision), precision == "bf16-mixed"
    folder, context = _computed_by(backbone, autocast)
    lengths: dict[Path, int] = {}  # tokens
    files = []
    tried: dict[bool, Encoded] = {}
    for row in rows:
        encoded = backbone.encode([row])[0].with_pixels_in(pixels)
        file = store.folder / folder / f"{_digest(context, encoded)}.safetensors"
        files.append(file)
        lengths[file] = len(encoded.ids)
        tried.setdefault(bool(encoded.features), encoded)  # the first row with a picture, and the first of text alone
    for encoded in tried.values():
        with computing(backbone, autocast):
            states = states_of(backbone, batch_of(backbone, encoded))
            kept = replace(encoded, features={}, extras={**encoded.extras, STATES: per_token(states)})
            if (reason := why_not_kept(backbone, batch_of(backbone, encoded), batch_of(backbone, kept))) is not None:
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
def computing(backbone: Backbone, autocast: bool) -> Iterator[None]:
    """Within, the model computes as in a step of the fit, without dropout and without gradients."""
    was_training = backbone.model.training
    backbone.model.eval()
    try:
        with torch.no_grad(), torch.autocast(backbone.device.type, torch.bfloat16, enabled=autocast):
            yield
    finally:
        backbone.model.train(was_training)


def batch_of(backbone: Backbone, encoded: Encoded) -> dict[str, Tensor]:
    """One row as a batch on the model's device."""
    return {name: tensor.to(backbone.device) for name, tensor in backbone.pad([encoded]).items()}


def per_token(states: Tensor) -> Tensor:
    """(1, T, h) -> (h, T), which is padded as what a family gives for each token."""
    return states[0].T.to("cpu").contiguous()


def _computed_by(backbone: Backbone, autocast: bool) -> tuple[str, list[object]]:
    """Everything that the states depend on: a name for the weights, and the whole of it."""
    digest = hashlib.sha256(backbone.family.encode())
    number, (_, layers) = layer_numbers(backbone), layers_of(backbone)
    for _, name, parameter in named_parts(backbone):
        if parameter.requires_grad or backbone.frozen_layers <= number(name) < len(layers):
            continue
        values = parameter.detach().to("cpu").flatten()
        digest.update(f"{name} {tuple(parameter.shape)} {values.dtype}".encode())
        digest.update(values.contiguous().view(torch.uint8).numpy().data)
    config = backbone.model.config.get_text_config()
    settings = {name: str(value) for name, value in config.to_dict().items() if not name.startswith("_")}
    device = backbone.device.type
    computed = [torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()] if device == "cpu" else [device]
    versions = [FORMAT, torch.__version__, transformers.__version__]
    how = [settings, config._attn_implementation, backbone.frozen_layers, autocast, *computed, *versions]
    return digest.hexdigest()[:16], [digest.hexdigest(), *how]


def _digest(context: list[object], encoded: Encoded) -> str:
    digest = hashlib.sha256(to_json([context, encoded.prompt, encoded.response]).encode())
    for name, tensor in sorted({**encoded.extras, **encoded.features}.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
