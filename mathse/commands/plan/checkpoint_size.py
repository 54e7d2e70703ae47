"""How large a checkpoint is: from the headers of a folder's weight files, or counted in a published model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mathse.errors import CheckpointError
from mathse.models.needs import find_architecture

RESUME = 12  # bytes a parameter of a full fit's resume point: the weight and AdamW's two moments, in float32
MOST_HEADER = 100_000_000  # bytes; safetensors' own bound


def parameters(section: Any) -> tuple[int | None, str]:
    """(numbers in the weights of a ``backbone`` section, how that is known); no weight is read."""
    settings: Mapping[str, Any] = section if isinstance(section, Mapping) else vars(section)
    path = settings.get("path")
    if path is None:
        return None, "the backbone starts from random weights of its own, a few MB: disk is not estimated"
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.safetensors"))
        if not files:
            return None, f"{path} holds no safetensors file: disk is not estimated"
        return sum(map(_numbers_in, files)), f"parameters counted in the headers of {path}"
    if (model := find_architecture(section)) is not None:
        return model.total, f"parameters as published of {path}"
    return None, f"the size of {path} is not known here: disk is not estimated; name a local folder"


def bytes_a_number(section: Any, method: str, masters: bool) -> int:
    """Of a checkpoint that a run writes: bfloat16, in which these models come, unless ``dtype`` is set, or a fit trains
    all weights and keeps them in float32 (``masters``)."""
    settings: Mapping[str, Any] = section if isinstance(section, Mapping) else vars(section)
    whole = "float32" if masters else "bfloat16"
    dtype = whole if method == "full" else settings.get("dtype") or "bfloat16"
    return 4 if dtype == "float32" else 2


def _numbers_in(file: Path) -> int:
    """Numbers in a safetensors file, by its header. Raises CheckpointError where it has none."""
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MOST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is no whole safetensors file ({error}); download it again") from None
