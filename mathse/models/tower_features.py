"""Features of a frozen tower, computed once for a picture instead of in every epoch, sampling and judging.

A frozen tower has the same output for a picture each time, and for CogVLM2 it takes 42 to 49 % of a step. With
``sft.tower_features`` its output (the connector's, if that is frozen too) is stored in bfloat16: 33 MB for a picture of
CogVLM2. bfloat16 rounds each number by up to 1/256 of it, so such a training run differs slightly from a run without
stored features.

The name of a file is a hash of everything that its numbers depend on: the picture's content, its preparation, the
weights of the frozen parts, and the precision. Students, ORMs and runs with the same tower share files, and a changed
tower has other names. A picture goes through the tower by itself, so its features do not depend on a batch.

A training run uses stored features for all pictures or for none. Before its first step, missing pictures go through the
tower; during its steps no tower runs on any rank, which shards (FSDP2) have to agree on. If the features of a run are
too many for the store, the tower runs in each step. Sampling and judging have the whole model and compute missing
features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL.Image import Image

from mathse.data.image_decoding import pixels_sha256
from mathse.data.images import image_size, stored_sha256
from mathse.errors import DataError
from mathse.models.base import TOWER_FEATURES, Backbone, Features
from mathse.models.feature_store import GIB, FeatureStore
from mathse.models.parts import find_part, iterate_parameters
from mathse.models.row import Row
from mathse.runs.store import to_json

FORMAT = 1  # version of the files
FREE_SPACE_INTERVAL = 64  # files written between two counts of the free space
Picture = tuple[str | Path | Image, bool]  # an image, and whether its row is training data


@dataclass
class TowerFeatures:
    """The stored features of the pictures of a model with the frozen ``parts``.

    It has no tensor, so it can be sent to the workers of a loader.
    """

    store: FeatureStore
    parts: tuple[str, ...]
    # off: rows have pixels; fill: missing features are computed; read: missing features are an error.
    mode: Literal["off", "fill", "read"] = "off"
    autocast: bool = False  # float32 weights compute in bfloat16
    _weights: tuple[str, str] | None = None  # SHA-256 and dtype of the parts' weights
    _contents: dict[str, str] = field(default_factory=dict)  # reference of a picture -> SHA-256 of its content
    _free: int = 0  # free bytes of the store at the last count, minus the files written since
    _written: int = 0  # files
    _full: bool = False

    @contextmanager
    def use(self, mode: Literal["fill", "read"]) -> Iterator[None]:
        """Within the context, rows are encoded with features instead of pixels."""
        before, self.mode = self.mode, mode
        try:
            yield
        finally:
            self.mode = before

    def of(self, backbone: Backbone, images: Sequence[str | Path | Image]) -> list[Features] | None:
        """Return the features of each picture; None if a picture is missing and the store has no room for it.

        Raises DataError, in mode "read", if the file of a picture is missing or damaged.
        """
        done: list[Features] = []
        for image in images:
            file = self._file(backbone, image)
            features = self.store.read(file)
            if features is None:
                if self.mode == "read":
                    raise DataError(
                        f"{file}: is missing or damaged and was present when the training run began; start the same "
                        "command again: it computes the file again and resumes the run"
                    )
                if self._full:
                    return None
                features = self._compute(backbone, image)
                if not self._put(file, features):
                    return None
            done.append(features)
        return done

    # --- before training ---

    def prepare(self, backbone: Backbone, rows: Iterable[Row], device: torch.device, precision: str) -> str | None:
        """Make room for the features of these rows' pictures. Returns the reason if that is impossible, else None.

        A single missing picture is computed. The sizes of the others follow from their numbers of tokens.
        """
        self._identify(backbone, precision)
        missing, present = [], set()
        for picture in list_pictures(rows):
            file = self._file_of(backbone, picture)
            if self.store.has(file):
                present.add(file)
            else:
                missing.append(picture)
        if not missing:
            return None
        counts = []  # tokens of each missing picture
        for image, trained in missing:
            size = image.size if isinstance(image, Image) else image_size(str(image))
            counts.append(backbone.image_tokens(*size, trained=trained))
        with move_vision_to(backbone, device), backbone.preparing(missing[0][1]):
            first = self._compute(backbone, missing[0][0])
        needed = count_bytes(first) * sum(counts) // counts[0]
        self.store.folder.mkdir(parents=True, exist_ok=True)
        free = self.store.make_room(needed, present)
        self._written, self._full = 0, False
        if free >= needed:
            return None
        return (
            f"features of {len(missing):,} pictures would take {needed / GIB:.1f} GiB and {self.store.folder} has room "
            f"for {max(0, free) / GIB:.1f} of {self.store.max_bytes / GIB:.1f} GiB: the frozen tower runs in each "
            "step instead; raise trainer.tower_features_gb, or pass sft.tower_features=false"
        )

    def fill(self, backbone: Backbone, rows: Iterable[Row], device: torch.device, precision: str, share: slice) -> None:
        """Compute the missing features of these rows' pictures; each rank computes its ``share``.

        Raises DataError if the store becomes full.
        """
        self._identify(backbone, precision)
        with move_vision_to(backbone, device):
            for picture in list_pictures(rows)[share]:
                file = self._file_of(backbone, picture)
                if self.store.read(file) is None:
                    with backbone.preparing(picture[1]):
                        features = self._compute(backbone, picture[0])
                    if not self._put(file, features):
                        raise DataError(
                            f"{self.store.folder}: is full ({self.store.max_bytes / GIB:.1f} GiB); another process may "
                            "write to it too; raise trainer.tower_features_gb, or pass sft.tower_features=false"
                        )

    # --- one picture ---

    def _identify(self, backbone: Backbone, precision: str) -> None:
        """Hash the frozen weights, which takes some seconds for CogVLM2. Must run before training shards them."""
        digest = hashlib.sha256(to_json([backbone.family, *self.parts]).encode())
        dtype = torch.float32
        for part, name, parameter in iterate_parameters(backbone):
            if part in self.parts:
                dtype = parameter.dtype
                # Hashed as float32, which is exact: a weight that was read in bfloat16 has the same hash in both.
                values = parameter.detach().to("cpu", torch.float32).contiguous()
                digest.update(f"{name} {tuple(values.shape)}".encode())
                digest.update(values.numpy().data)
        self._weights = (digest.hexdigest(), str(dtype))
        self.autocast = precision == "bf16-mixed" and dtype == torch.float32

    def _file_of(self, backbone: Backbone, picture: Picture) -> Path:
        with backbone.preparing(picture[1]):
            return self._file(backbone, picture[0])

    def _file(self, backbone: Backbone, image: str | Path | Image) -> Path:
        if self._weights is None:
            self._identify(backbone, "")
        assert self._weights is not None
        if isinstance(image, Image):
            content = pixels_sha256(image)
        else:
            content = self._contents.get(str(image)) or stored_sha256(str(image))
            self._contents[str(image)] = content
        depends_on = [FORMAT, content, backbone.preprocessing(), *self._weights, self.autocast]
        name = hashlib.sha256(to_json(depends_on).encode()).hexdigest()
        return self.store.folder / self._weights[0][:16] / f"{name}.safetensors"

    def _compute(self, backbone: Backbone, image: str | Path | Image) -> Features:
        (prepared,) = backbone.prepare([backbone.open_picture(image)])
        device = find_vision_device(backbone)
        was_training = backbone.model.training
        backbone.model.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            seen = backbone.tower({name: tensor.to(device) for name, tensor in prepared.items()})
            if "connector" in self.parts:
                seen = backbone.connector(seen)
        backbone.model.train(was_training)
        others = {name: tensor for name, tensor in prepared.items() if name != "pixel_values"}  # a grid, for example
        return {TOWER_FEATURES: seen.to("cpu", torch.bfloat16).contiguous(), **others}

    def _put(self, file: Path, features: Features) -> bool:
        """Write features if the store has room for them. Returns whether it had."""
        if self._written % FREE_SPACE_INTERVAL == 0:  # counted again, because other processes write too
            self._free = self.store.free()
        self._written += 1
        self._free -= count_bytes(features)
        if self._free < 0:
            self._full = True
            return False
        self.store.write(file, features)
        return True


def count_bytes(features: Features) -> int:
    return sum(tensor.nbytes for tensor in features.values())


def list_pictures(rows: Iterable[Row]) -> list[Picture]:
    """Return the pictures of these rows, each once."""
    pictures: dict[tuple[int | str, bool], Picture] = {}
    for row in rows:
        trained = "response" in row
        for image in row["images"]:
            # A picture in memory is identified by its object, not by its content.
            key = id(image) if isinstance(image, Image) else str(image)
            pictures[key, trained] = (image, trained)
    return list(pictures.values())


def iterate_vision_tensors(backbone: Backbone) -> Iterator[Any]:
    """Yield the parameters and buffers of tower and connector."""
    model = backbone.model
    for tensors in (model.named_parameters(), model.named_buffers()):
        yield from (tensor for name, tensor in tensors if find_part(backbone, name) != "language")


def find_vision_device(backbone: Backbone) -> torch.device:
    device: torch.device = next(iterate_vision_tensors(backbone)).device
    return device


@contextmanager
def move_vision_to(backbone: Backbone, device: torch.device) -> Iterator[None]:
    """Within the context, tower and connector are on ``device``: before it is sharded, a model is on the CPU."""
    before = find_vision_device(backbone)
    for tensor in iterate_vision_tensors(backbone):
        tensor.data = tensor.data.to(device)
    try:
        yield
    finally:
        for tensor in iterate_vision_tensors(backbone):
            tensor.data = tensor.data.to(before)
