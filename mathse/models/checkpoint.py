"""Opening a checkpoint: from a folder or the hub, checked as far as possible before a weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoProcessor

from mathse.errors import CheckpointError
from mathse.runs.store import read_json

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model")  # no code, no pickles
PROMPT_FILES = tuple(name for name in HUB_FILES if name != "*.safetensors")  # what writes a prompt


def resolve(path: str | Path, revision: str | None = None, files: Sequence[str] = HUB_FILES) -> Path:
    """The local folder of a checkpoint: ``path`` itself, or the hub id's snapshot, of which ``files`` are downloaded
    where they are not cached.

    Raises CheckpointError if there is neither.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download  # here: folders need no hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=list(files)))
    except HFValidationError:
        raise CheckpointError(f"{path}: neither a folder that exists nor a hub id of the form org/name") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as e:
        at = f" at revision {revision}" if revision else ""
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise CheckpointError(
            f"{path}{at}: no such folder, and the hub does not give it ({reason}); name a local folder, "
            "or download it first with `hf download`"
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder. Raises CheckpointError where there is none that can be read."""
    try:
        config = read_json(folder / "config.json")
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json") from None
    except (JSONDecodeError, ValueError, OSError) as e:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read ({e})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} holds no JSON object")
    return config


def expect_family(folder: Path, family: str, model_types: Sequence[str]) -> dict[str, Any]:
    """config.json, if its model_type is one of ``model_types``; else a CheckpointError that says whose folder it is."""
    config = read_config(folder)
    found = config.get("model_type")
    if found not in model_types:
        raise CheckpointError(
            f"{folder} is not a checkpoint of backbone={family}: its config.json says model_type = {found!r}, "
            f"and {family} is {' or '.join(map(repr, model_types))}"
        )
    return config


def expect_files(folder: Path, names: Sequence[str], remedy: str) -> None:
    """Raise CheckpointError for the first of ``names`` that is not in the folder."""
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing there; {remedy}")


def shards(folder: Path) -> list[Path]:
    """The weight files of a checkpoint, every one of them there and whole. Raises CheckpointError otherwise."""
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        if not names:
            raise CheckpointError(f"{folder / INDEX} names no weight file")
    else:
        names = [WEIGHTS]
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file():
            of = f" ({len(files)} shards are named in {INDEX})" if len(files) > 1 else ""
            raise CheckpointError(f"{folder}: the weight file {file.name} is missing{of}; download it again")
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as e:
            raise CheckpointError(f"{file} is no whole safetensors file ({e}); download it again") from None
    return files


def open_model(model_class: Any, folder: Path, *, dtype: torch.dtype, attention: Any = None, **options: Any) -> Any:
    """``model_class.from_pretrained`` on a folder: every weight there, of the right shape, from safetensors."""
    shards(folder)
    if attention is not None:
        options["attn_implementation"] = attention
    try:
        model, loaded = model_class.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError, StrictDataclassError) as e:
        raise CheckpointError(f"{folder} cannot be opened ({' '.join(str(e).split())[:400]})") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):  # transformers would go on without a word
        if wrong := sorted(map(str, loaded[what])):
            word = what.removesuffix("_keys")
            raise CheckpointError(f"{folder}: {len(wrong)} {word} weights, among them {wrong[0]}")
    return model


def open_processor(folder: Path) -> Any:
    """The processor of a checkpoint folder, its tokenizer and chat template included."""
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as e:
        raise CheckpointError(f"{folder}: its processor cannot be opened ({' '.join(str(e).split())[:400]})") from None
    if not getattr(processor, "tokenizer", None):
        raise CheckpointError(f"{folder}: no processor with a tokenizer (preprocessor_config.json, tokenizer.json)")
    return processor


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """``"bfloat16"`` or ``torch.bfloat16``; None is float32."""
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
