"""Low-rank adapters through peft: create them for a training run, write them beside the checkpoint, merge them.

peft exchanges modules inside of ``backbone.model``, which stays the same transformers model; the PeftModel around it is
``backbone.adapter``. Adapter weights are float32 for every dtype of the base.

A bfloat16 weight plus a far smaller update is rounded back to the weight if the update is below half of its last digit:
of updates of 0.1 % of the weights about half survive. So the merged bfloat16 weights of a checkpoint are only for other
programs. This package opens such a checkpoint as it was trained, its base with the adapters, and the next training run
continues with these adapters. In float32 the adapters are merged, which loses nothing.

peft is imported late: a start is half a second faster without it, and full fine-tuning does not need it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from mathse.errors import CheckpointError, ConfigError, MathSEError
from mathse.models.base import Backbone
from mathse.models.checkpoint import (
    BROKEN,
    expect_plain_files,
    find_stored_dtype,
    open_model,
    read_headers,
    summarize_error,
)
from mathse.models.lower_layers import exclude_lower_layers
from mathse.models.parts import find_part, lora_pattern
from mathse.runs.layout import ADAPTER
from mathse.runs.store import read_json

NAME = "default"  # peft's name of the adapters in a model; the files do not have it


def attach(backbone: Backbone, *, rank: int, alpha: float, dropout: float, scopes: list[str], seed: int) -> None:
    """Add new adapters to the modules of ``scopes`` and freeze all other weights. B is 0, so outputs stay the same."""
    import peft

    config = peft.LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=dropout,
        target_modules=exclude_lower_layers(backbone) + lora_pattern(backbone, scopes),
        bias="none",  # servers refuse adapters with biases
    )
    with torch.random.fork_rng(devices=[]), _ignore_future_warnings():
        torch.manual_seed(seed)
        backbone.adapter = peft.get_peft_model(backbone.model, config)


def save(backbone: Backbone, folder: Path, placed: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which peft and servers open.

    Args:
        folder: the folder to write.
        placed: the path that ``folder`` will have in the end. The base is named relative to it, so equal runs write
            equal bytes and a run folder can be moved.
    """
    import peft

    folder.mkdir(parents=True, exist_ok=True)
    # ``save_embedding_layers=False``: otherwise peft asks the hub whether the base's vocabulary was extended.
    weights = peft.get_peft_model_state_dict(backbone.adapter, save_embedding_layers=False)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "adapter_model.safetensors", {"format": "pt"})
    config = copy(backbone.adapter.peft_config[NAME])
    config.inference_mode = True
    model_class = type(backbone.model)
    base = backbone.model.name_or_path or None
    if base is not None and Path(base).exists():
        base = os.path.relpath(base, placed)
    config.base_model_name_or_path = base
    config.auto_mapping = {"base_model_class": model_class.__name__, "parent_library": model_class.__module__}
    config.save_pretrained(folder)


def find_base(checkpoint: Path) -> Path | None:
    """Return the base of a checkpoint that must be opened as a base with adapters; None if its own weights suffice.

    If the base is missing, as after an export, the merged weights are used.
    """
    config = checkpoint / ADAPTER / "adapter_config.json"
    if not config.is_file() or find_stored_dtype(read_headers(checkpoint)) == torch.float32:
        return None
    try:
        base = Path(os.path.normpath(config.parent / str(read_json(config).get("base_model_name_or_path"))))
        return base if (base / "config.json").is_file() else None
    except BROKEN as e:
        raise CheckpointError(f"{config} cannot be read ({summarize_error(e)}); copy the checkpoint again") from None


def put_on(backbone: Backbone, adapter: Path, trains: bool = False, dropout: float | None = None) -> None:
    """Load the adapters of a folder onto the model; ``dropout`` replaces their own, if it is not None."""
    import peft

    try:
        expect_plain_files(adapter)
        config = peft.PeftConfig.from_pretrained(adapter)
        if dropout is not None:
            config.lora_dropout = dropout
        with _ignore_future_warnings():
            backbone.adapter = peft.PeftModel.from_pretrained(
                backbone.model, adapter, is_trainable=trains, config=config, torch_device="cpu"
            )
    except MathSEError:
        raise
    except BROKEN as e:
        raise CheckpointError(
            f"{adapter}: its adapters cannot be opened ({summarize_error(e)}); copy it again"
        ) from None
    backbone.adapter_folder = adapter


def take_off(backbone: Backbone) -> Path | None:
    """Remove the adapters, which restores the base. Returns their folder; None if there are none."""
    folder, backbone.adapter_folder = backbone.adapter_folder, None
    if backbone.adapter is not None:
        backbone.model = backbone.adapter.unload()
        backbone.adapter = None
        backbone.model.requires_grad_(True)
    return folder


def expect_alike(backbone: Backbone, adapter: Path, *, rank: int, alpha: float, scopes: list[str]) -> None:
    """Raise ConfigError unless the adapters of a folder can be trained further with these settings."""
    import peft

    config = peft.PeftConfig.from_pretrained(adapter)
    prefix, pattern = exclude_lower_layers(backbone), lora_pattern(backbone, scopes)
    # Equal scopes on other layers: the adapters were trained with another freeze_layers.
    if str(config.target_modules).endswith(pattern) and config.target_modules != prefix + pattern:
        raise ConfigError(
            f"freeze_layers = {backbone.frozen_layers}: the training run continues from {adapter}, which has adapters "
            "on other layers; pass the freeze_layers that it was trained with, or backbone.dtype=float32, in which "
            "these adapters are merged without loss and new adapters are added"
        )
    settings: dict[str, tuple[Any, Any]] = {  # name -> value in the folder, value now
        "rank": (config.r, rank),
        "alpha": (config.lora_alpha, alpha),
        "scopes": (config.target_modules, prefix + pattern),
    }
    for name, (theirs, ours) in settings.items():
        if theirs != ours:
            raise ConfigError(
                f"lora.{name} = {ours}: the training run continues from {adapter}, which was trained with {theirs}; "
                "pass that, or backbone.dtype=float32, in which these adapters are merged without loss and new "
                "adapters are added"
            )


def merge(backbone: Backbone) -> None:
    """Add the adapters to their weights, computed in float32, and remove them."""
    from peft.tuners.lora import LoraLayer

    for module in backbone.model.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            # W + alpha / rank * B A, (out, in), rounded only once.
            weight.data = (weight.data.float() + module.get_delta_weight(NAME).float()).to(weight.dtype)
    take_off(backbone)


# --- a base in 4 bit ------------------------------------------------------------------------------------------------


def require_four_bit() -> torch.device:
    """Return this process's GPU. Raises ConfigError, before a weight is read, if a 4-bit base is impossible here."""
    if not torch.cuda.is_available():
        raise ConfigError("method = 'qlora': needs a CUDA GPU, and torch finds none here; pass sft.method=lora")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def quantise(backbone: Backbone) -> None:
    """Open the model's folder again with the language model's matrices in 4 bit (NF4, QLoRA, arXiv 2305.14314).

    Tower, connector and head stay in bfloat16, and so do weights outside of ``nn.Linear``, such as CogVLM2's boi and
    eoi. peft's own preparation is not used: it would convert the whole tower to float32.
    """
    from transformers import BitsAndBytesConfig

    device = require_four_bit()
    model = backbone.model
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list_unquantised(backbone),
    )
    model_class, folder, config = type(model), _expect_folder(model), model.config
    backbone.model = model = None  # freed before the folder is read again
    backbone.model = open_model(
        model_class,
        folder,
        dtype=torch.bfloat16,
        config=config,  # it has the attention implementation
        quantization_config=settings,
        device_map={"": device},
    )
    backbone.model.requires_grad_(False)


def list_unquantised(backbone: Backbone) -> list[str]:
    """Return the names of the linear modules that stay in bfloat16."""
    head = backbone.model.get_output_embeddings()
    return [
        name
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) and (module is head or find_part(backbone, name) != "language")
    ]


def is_quantised(backbone: Backbone) -> bool:
    return bool(getattr(backbone.model, "is_quantized", False))


def put_on_whole_base(backbone: Backbone, adapter: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Open the base from its folder without quantisation, and load adapters that were trained on a 4-bit base."""
    model, folder = backbone.model, _expect_folder(backbone.model)
    config = deepcopy(model.config)  # not the folder's: config.json of a published InternVL2.5 has another layout
    if hasattr(config, "quantization_config"):  # with it, the folder's weights would be read as 4-bit weights
        del config.quantization_config
    whole: Any = open_model(type(model), folder, dtype=dtype, config=config)
    backbone.model = model = None
    backbone.model = whole
    put_on(backbone, adapter)


@contextmanager
def _ignore_future_warnings() -> Iterator[None]:
    """Ignore the warnings about peft's own use of a deprecated name of transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _expect_folder(model: Any) -> Path:
    """Return the model's folder. Raises CheckpointError for a model that was not opened from a folder."""
    if not model.name_or_path or not Path(model.name_or_path).is_dir():
        raise CheckpointError(f"{type(model).__name__} came from no folder, so it cannot be opened again in 4 bit")
    return Path(model.name_or_path)
