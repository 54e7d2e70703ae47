"""Low-rank adapters through peft: put on for a fit, written beside the checkpoint, merged into it.

peft exchanges modules inside ``backbone.model``, which stays the transformers model it was; the PeftModel around it is
kept as ``backbone.adapter``. Adapter weights are float32 whatever the base is.

A sum of a bfloat16 weight and a far smaller update is rounded back to the weight where the update is below half of its
last digit: of updates of 0.1 % of the weights about half survive. So the merged bfloat16 weights of a checkpoint are
for other programs alone. Here such a checkpoint is opened as what was trained, its base with the adapters on it, and
the next fit from it trains these adapters on; in float32 they are merged, which loses nothing.

peft is imported where it is used: a start takes half a second less without it, and most fits are full ones.
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
from mathse.models.checkpoint import BROKEN, headers, open_model, plain_folder, reason_of, stored_dtype
from mathse.models.lower_layers import above_lower
from mathse.models.parts import lora_pattern, part_of
from mathse.runs.layout import ADAPTER
from mathse.runs.store import read_json

NAME = "default"  # peft's own; the files do not show it


def attach(backbone: Backbone, *, rank: int, alpha: float, dropout: float, scopes: list[str], seed: int) -> None:
    """Put new adapters on the modules of ``scopes`` and freeze all else. An adapter begins as nothing: B is 0."""
    import peft

    config = peft.LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=dropout,
        target_modules=above_lower(backbone) + lora_pattern(backbone, scopes),
        bias="none",  # servers refuse adapters with biases
    )
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        backbone.adapter = peft.get_peft_model(backbone.model, config)


def save(backbone: Backbone, folder: Path, placed: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which peft and servers open.

    Args:
        folder: where to write.
        placed: where the files will lie in the end. The base is named by its path from there, so that equal runs write
            equal bytes and a run folder can be moved.
    """
    import peft

    folder.mkdir(parents=True, exist_ok=True)
    # peft knows the adapters under NAME and leaves that out of the file's names.
    # without "False" peft asks the hub whether the base's vocabulary was extended
    weights = peft.get_peft_model_state_dict(backbone.adapter, save_embedding_layers=False)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "adapter_model.safetensors", {"format": "pt"})
    config = copy(backbone.adapter.peft_config[NAME])
    config.inference_mode = True
    base, model_class = backbone.model.name_or_path, type(backbone.model)
    config.base_model_name_or_path = os.path.relpath(base, placed) if base and Path(base).exists() else base or None
    config.auto_mapping = {"base_model_class": model_class.__name__, "parent_library": model_class.__module__}
    config.save_pretrained(folder)


def base_of(checkpoint: Path) -> Path | None:
    """The base of a checkpoint that is to be opened as a base with adapters; None where its own weights hold all.

    Of a checkpoint whose base is gone, an exported one for instance, the merged weights are what there is.
    """
    config = checkpoint / ADAPTER / "adapter_config.json"
    if not config.is_file() or stored_dtype(headers(checkpoint)) == torch.float32:
        return None
    try:
        base = Path(os.path.normpath(config.parent / str(read_json(config).get("base_model_name_or_path"))))
        return base if (base / "config.json").is_file() else None
    except BROKEN as e:
        raise CheckpointError(f"{config} cannot be read ({reason_of(e)}); copy the checkpoint again") from None


def put_on(backbone: Backbone, adapter: Path, trains: bool = False, dropout: float | None = None) -> None:
    """Put the adapters of a folder on. ``dropout``: another one than theirs."""
    import peft

    try:
        plain_folder(adapter)
        config = peft.PeftConfig.from_pretrained(adapter)
        if dropout is not None:
            config.lora_dropout = dropout
        with _quiet():
            backbone.adapter = peft.PeftModel.from_pretrained(
                backbone.model, adapter, is_trainable=trains, config=config, torch_device="cpu"
            )
    except MathSEError:
        raise
    except BROKEN as e:
        raise CheckpointError(f"{adapter}: its adapters cannot be opened ({reason_of(e)}); copy it again") from None
    backbone.adapter_folder = adapter


def take_off(backbone: Backbone) -> Path | None:
    """Leave the base as it was before ``put_on``; the folder of the adapters, if there are some."""
    folder, backbone.adapter_folder = backbone.adapter_folder, None
    if backbone.adapter is not None:
        backbone.model = backbone.adapter.unload()
        backbone.adapter = None
        backbone.model.requires_grad_(True)
    return folder


def expect_alike(backbone: Backbone, adapter: Path, *, rank: int, alpha: float, scopes: list[str]) -> None:
    """Raise ConfigError unless the adapters of a folder can be trained on with these settings."""
    import peft

    config = peft.PeftConfig.from_pretrained(adapter)
    wanted: dict[str, tuple[Any, Any]] = {"rank": (config.r, rank), "alpha": (config.lora_alpha, alpha)}
    beginning, pattern = above_lower(backbone), lora_pattern(backbone, scopes)
    wanted["scopes"] = (config.target_modules, beginning + pattern)
    if str(config.target_modules).endswith(pattern) and config.target_modules != beginning + pattern:
        raise ConfigError(
            f"freeze_layers = {backbone.frozen_layers}: the fit goes on from {adapter}, which has adapters on other "
            "layers; pass the freeze_layers that it was trained with, or backbone.dtype=float32, in which these "
            "adapters are merged without loss and new ones are put on"
        )
    for name, (theirs, ours) in wanted.items():
        if theirs != ours:
            raise ConfigError(
                f"lora.{name} = {ours}: the fit goes on from {adapter}, which was trained with {theirs}; pass that, or "
                "backbone.dtype=float32, in which these adapters are merged without loss and new ones are put on"
            )


def merge(backbone: Backbone) -> None:
    """Add the adapters to their weights, in float32 whatever these are, and take them off."""
    from peft.tuners.lora import LoraLayer

    for module in backbone.model.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            # W + alpha / rank * B A, (out, in); rounded once, at the end
            weight.data = (weight.data.float() + module.get_delta_weight(NAME).float()).to(weight.dtype)
    take_off(backbone)


# --- a base in 4 bit ------------------------------------------------------------------------------------------------


def require_four_bit() -> torch.device:
    """This process's GPU. Raises ConfigError where a base in 4 bit cannot be had; asked before a weight is read."""
    if not torch.cuda.is_available():
        raise ConfigError("method = 'qlora': needs a CUDA GPU, and torch finds none here; pass sft.method=lora")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def quantise(backbone: Backbone) -> None:
    """Open the model's folder again, the language model's matrices in 4 bit (NF4, QLoRA, arXiv 2305.14314).

    Tower, connector and head stay in bfloat16 (what is no ``nn.Linear``, CogVLM2's boi and eoi for one, does so
    anyway). peft's own preparation is not used: it would turn the whole tower into float32.
    """
    from transformers import BitsAndBytesConfig

    device = require_four_bit()
    model = backbone.model
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=kept_whole(backbone),
    )
    model_class, folder, config = type(model), _folder(model), model.config
    backbone.model = model = None  # freed before it is read again
    backbone.model = open_model(
        model_class,
        folder,
        dtype=torch.bfloat16,
        config=config,  # with its attention
        quantization_config=settings,
        device_map={"": device},
    )
    backbone.model.requires_grad_(False)


def kept_whole(backbone: Backbone) -> list[str]:
    """Names of the linear modules that are not to be quantised."""
    head = backbone.model.get_output_embeddings()
    return [
        name
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) and (module is head or part_of(backbone, name) != "language")
    ]


def is_quantised(backbone: Backbone) -> bool:
    return bool(getattr(backbone.model, "is_quantized", False))


def onto_whole_base(backbone: Backbone, adapter: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """The adapters of a fit over a base in 4 bit, put on the base as its folder has it."""
    model, folder = backbone.model, _folder(backbone.model)
    config = deepcopy(model.config)  # not the folder's: a published InternVL2.5 folder has another kind of config.json
    if hasattr(config, "quantization_config"):  # with it, the folder's weights would be taken for 4 bit ones
        del config.quantization_config
    whole: Any = open_model(type(model), folder, dtype=dtype, config=config)
    backbone.model = model = None
    backbone.model = whole
    put_on(backbone, adapter)


@contextmanager
def _quiet() -> Iterator[None]:
    """peft asks transformers for something under its old name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _folder(model: Any) -> Path:
    if not model.name_or_path or not Path(model.name_or_path).is_dir():
        raise CheckpointError(f"{type(model).__name__} came from no folder, so it cannot be opened again in 4 bit")
    return Path(model.name_or_path)
