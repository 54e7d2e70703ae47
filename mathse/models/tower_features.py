"""What a frozen tower makes of a picture, computed once instead of in every epoch, sampling and judging.

A tower that no fit changes makes the same of a picture each time; for CogVLM2 that is 42 to 49 % of a step. With
``sft.tower_features`` its output (the connector's, where that is frozen too) is kept in bfloat16, 33 MB a picture of
CogVLM2. bfloat16 rounds each number by up to 1/256 of it, so such a fit differs a little from one that does not keep
them.

A file is named by what its numbers depend on: the picture's content, how pictures are prepared, the weights of the
frozen parts, and the numbers that they are computed in. Students, ORMs and runs with the same tower share files, and a
tower that was changed finds none. A picture goes through the tower by itself, so that its features do not depend on
which others were asked for.

A fit is all or nothing. Before its first step, pictures that are missing go through the tower; in its steps no tower
runs on any rank, which shards (FSDP2) have to agree on. Where the features of a fit are too many for the store, the
tower runs in each step as it would without one. Sampling and judging have the whole model and fill up what is missing.
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
from mathse.models.parts import named_parts, part_of
from mathse.models.row import Row
from mathse.runs.store import to_json

FORMAT = 1  # of the files
COUNTED_EVERY = 64  # files written
Picture = tuple[str | Path | Image, bool]  # and whether its row is one to train on


@dataclass
class TowerFeatures:
    """The features of one model's pictures in a store, which come from its frozen ``parts``.

    ``mode``: off, pictures are pixels; fill, what is missing is computed; read, what is missing is an error. It holds
    no tensor, and so travels to a loader's workers.
    """

    store: FeatureStore
    parts: tuple[str, ...]
    mode: Literal["off", "fill", "read"] = "off"
    autocast: bool = False  # float32 weights compute in bfloat16
    _weights: tuple[str, str] | None = None  # sha256 and dtype of the parts
    _contents: dict[str, str] = field(default_factory=dict)  # sha256 of the pictures behind references
    _free: int = 0  # bytes of the store, counted now and then
    _written: int = 0  # files
    _full: bool = False

    @contextmanager
    def used(self, mode: Literal["fill", "read"]) -> Iterator[None]:
        """Within, rows are encoded with features instead of pixels."""
        before, self.mode = self.mode, mode
        try:
            yield
        finally:
            self.mode = before

    def of(self, backbone: Backbone, images: Sequence[str | Path | Image]) -> list[Features] | None:
        """The features of each picture; None where one is missing and the store has no room for it.

        Raises DataError, in mode read, for a picture whose file is gone or damaged.
        """
        done: list[Features] = []
        for image in images:
            file = self._file(backbone, image)
            features = self.store.read(file)
            if features is None:
                if self.mode == "read":
                    raise DataError(
                        f"{file}: was there when the fit began, and is gone or damaged; start the same command again: "
                        "it is computed anew, and the fit goes on"
                    )
                if self._full:
                    return None
                features = self._compute(backbone, image)
                if not self._put(file, features):
                    return None
            done.append(features)
        return done

    # --- before a fit ---

    def prepare(self, backbone: Backbone, rows: Iterable[Row], device: torch.device, precision: str) -> str | None:
        """Make room for the features of these rows' pictures. Returns why that cannot be, None if it can.

        One picture that is missing is computed; the others' sizes follow from their tokens.
        """
        self._identify(backbone, precision)
        missing, present = [], set()
        for picture in pictures_of(rows):
            file = self._file_of(backbone, picture)
            if self.store.has(file):
                present.add(file)
            else:
                missing.append(picture)
        if not missing:
            return None
        counts = []  # tokens
        for image, trained in missing:
            size = image.size if isinstance(image, Image) else image_size(str(image))
            counts.append(backbone.image_tokens(*size, trained=trained))
        with vision_on(backbone, device), backbone.preparing(missing[0][1]):
            one = self._compute(backbone, missing[0][0])
        needed = nbytes(one) * sum(counts) // counts[0]
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
        """Compute what is missing of these rows' pictures; of several ranks each takes its ``share``.

        Raises DataError where the store turns out to be full.
        """
        self._identify(backbone, precision)
        with vision_on(backbone, device):
            for picture in pictures_of(rows)[share]:
                file = self._file_of(backbone, picture)
                if self.store.read(file) is None:
                    with backbone.preparing(picture[1]):
                        features = self._compute(backbone, picture[0])
                    if not self._put(file, features):
                        raise DataError(
                            f"{self.store.folder}: is full ({self.store.max_bytes / GIB:.1f} GiB), another process may "
                            "fill it too; raise trainer.tower_features_gb, or pass sft.tower_features=false"
                        )

    # --- one picture ---

    def _identify(self, backbone: Backbone, precision: str) -> None:
        """Read the frozen weights; CogVLM2's take some seconds. In a fit they are whole only before it shards them."""
        digest = hashlib.sha256(to_json([backbone.family, *self.parts]).encode())
        dtype = torch.float32
        for part, name, parameter in named_parts(backbone):
            if part in self.parts:
                dtype = parameter.dtype
                # as float32, exactly: a weight that came in bfloat16 is the same one in either
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
        (prepared,) = backbone.prepare([backbone.opened(image)])
        device = vision_device(backbone)
        was_training = backbone.model.training
        backbone.model.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            seen = backbone.tower({name: tensor.to(device) for name, tensor in prepared.items()})
            if "connector" in self.parts:
                seen = backbone.connector(seen)
        backbone.model.train(was_training)
        around = {name: tensor for name, tensor in prepared.items() if name != "pixel_values"}  # a grid, say
        return {TOWER_FEATURES: seen.to("cpu", torch.bfloat16).contiguous(), **around}

    def _put(self, file: Path, features: Features) -> bool:
        """Write features, if there is room for them."""
        if self._written % COUNTED_EVERY == 0:  # other processes write too
            self._free = self.store.free()
        self._written += 1
        self._free -= nbytes(features)
        if self._free < 0:
            self._full = True
            return False
        self.store.write(file, features)
        return True


def nbytes(features: Features) -> int:
    return sum(tensor.nbytes for tensor in features.values())


def pictures_of(rows: Iterable[Row]) -> list[Picture]:
    """The pictures of these rows, each once."""
    pictures = ((image, "response" in row) for row in rows for image in row["images"])
    # a picture in memory has no hash of its own that could be told from another's
    return list({(id(p[0]) if isinstance(p[0], Image) else str(p[0]), p[1]): p for p in pictures}.values())


def vision_tensors(backbone: Backbone) -> Iterator[Any]:
    """The parameters and buffers of tower and connector."""
    model = backbone.model
    for tensors in (model.named_parameters(), model.named_buffers()):
        yield from (tensor for name, tensor in tensors if part_of(backbone, name) != "language")


def vision_device(backbone: Backbone) -> torch.device:
    device: torch.device = next(vision_tensors(backbone)).device
    return device


@contextmanager
def vision_on(backbone: Backbone, device: torch.device) -> Iterator[None]:
    """Within, tower and connector lie on ``device``: a fit's model lies on the CPU before it is sharded."""
    before = vision_device(backbone)
    for tensor in vision_tensors(backbone):
        tensor.data = tensor.data.to(device)
    try:
        yield
    finally:
        for tensor in vision_tensors(backbone):
            tensor.data = tensor.data.to(before)
