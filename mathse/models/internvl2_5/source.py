"""The weight files of a published checkpoint, one at a time."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mathse.errors import CheckpointError
from mathse.runs.store import read_json

# (index of several files, name of a single one), the better form first
_FORMS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in a file."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class WeightFile(Protocol):
    """An open file, whose tensors are read when asked for."""

    def headers(self) -> Iterator[Stored]: ...

    def read(self, name: str) -> Tensor:
        """The tensor, mapped from the file: it comes into memory as it is used."""
        ...


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights. Raises CheckpointError where there are none or one is missing."""
    for index, single in _FORMS:
        if (folder / index).is_file():
            return _indexed(folder, folder / index)
        if (folder / single).is_file():
            return [folder / single]
    wanted = ", ".join(name for form in _FORMS for name in form)
    raise CheckpointError(f"{folder} has no weights (none of {wanted}); download the checkpoint again")


def _indexed(folder: Path, index: Path) -> list[Path]:
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    if not names:
        raise CheckpointError(f"{index} names no weight file; download it again")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: the weight file {missing[0]} is missing ({len(missing)} of the {len(names)} that {index.name} "
            "names); download the checkpoint again"
        )
    return [folder / name for name in names]


def stored_tensors(files: list[Path]) -> list[Stored]:
    """What the files hold, from their headers; no weight is read."""
    found: dict[str, Stored] = {}
    for file in files:
        with opened(file) as tensors:
            for tensor in tensors.headers():
                if tensor.name in found:
                    raise CheckpointError(f"{tensor.name} is in {found[tensor.name].file} and again in {file.name}")
                found[tensor.name] = tensor
    return list(found.values())


@contextmanager
def opened(file: Path) -> Iterator[WeightFile]:
    """Open a weight file. Raises CheckpointError where it is damaged, or holds more than tensors."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as handle:
                yield _Safetensors(file, handle)
        else:
            yield _Pickled(file, _unpickled(file))
    except (SafetensorError, OSError) as e:
        raise _unreadable(file, e) from None


def _unpickled(file: Path) -> Mapping[str, Tensor]:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as e:
        raise _unreadable(file, e) from None


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{file} cannot be read ({reason}); download it again")


class _Safetensors:
    def __init__(self, file: Path, handle: Any) -> None:
        self.file, self.handle = file, handle

    def headers(self) -> Iterator[Stored]:
        for name in self.handle.keys():  # noqa: SIM118 - no mapping
            header = self.handle.get_slice(name)
            yield Stored(self.file, name, tuple(header.get_shape()), _float(self.file, name, header.get_dtype()))

    def read(self, name: str) -> Tensor:
        return self.handle.get_tensor(name)


class _Pickled:
    """A file of the older form, read by torch's own restricted unpickler."""

    def __init__(self, file: Path, tensors: Mapping[str, Tensor]) -> None:
        self.file, self.tensors = file, tensors

    def headers(self) -> Iterator[Stored]:
        for name, tensor in self.tensors.items():
            if not tensor.is_floating_point():
                _float(self.file, name, str(tensor.dtype))
            yield Stored(self.file, name, tuple(tensor.shape), tensor.dtype)

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


def _float(file: Path, name: str, dtype: str) -> torch.dtype:
    if dtype not in _FLOATS:
        raise CheckpointError(
            f"{file}: {name} is stored as {dtype}, and only {', '.join(_FLOATS)} can be converted; "
            "name the checkpoint that is not quantised"
        )
    return _FLOATS[dtype]
