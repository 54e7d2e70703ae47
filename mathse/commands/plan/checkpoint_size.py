"""The size of a checkpoint, without its weights: from the headers of a folder's files, or as published."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mathse.errors import CheckpointError
from mathse.models.needs import find_architecture

# Bytes per parameter of a resume point in full training: the weight and AdamW's two moments, in float32.
RESUME_BYTES_PER_PARAMETER = 12
MAX_HEADER_BYTES = 100_000_000  # the bound of safetensors itself


def count_parameters(section: Any) -> tuple[int | None, str]:
    """Count the parameters of a ``backbone`` section without reading a weight.

    Returns the number, or None if it is unknown, and a sentence with its source.
    """
    settings: Mapping[str, Any] = section if isinstance(section, Mapping) else vars(section)
    path = settings.get("path")
    if path is None:
        return None, "the backbone starts from its own random weights, a few MB: disk is not estimated"
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.safetensors"))
        if not files:
            return None, f"{path} holds no safetensors file: disk is not estimated"
        return sum(map(_count_in_file, files)), f"parameters counted in the headers of {path}"
    if (model := find_architecture(section)) is not None:
        return model.total, f"parameters as published of {path}"
    return None, f"the size of {path} is not known here: disk is not estimated; name a local folder"


def bytes_per_parameter(section: Any, method: str, float32_weights: bool) -> int:
    """Return the bytes per parameter of a checkpoint that a run writes, 2 or 4.

    Full training keeps its weights in float32 if ``float32_weights``. Otherwise the dtype is that of the section, or
    bfloat16, the dtype of the published models.
    """
    settings: Mapping[str, Any] = section if isinstance(section, Mapping) else vars(section)
    if method == "full":
        return 4 if float32_weights else 2
    return 4 if settings.get("dtype") == "float32" else 2


def _count_in_file(file: Path) -> int:
    """Count the numbers in a safetensors file by its header. Raises CheckpointError for a damaged file."""
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is no whole safetensors file ({error}); download it again") from None
