"""What a training mode does to a model before its fit, and takes back after it.

full    every weight outside the frozen parts trains
lora    the base is frozen whole (``freeze`` adds nothing to that), adapters on ``lora.scopes`` train; none lie on the
        lower ``freeze_layers``, which a full fit leaves as they are, with the token embeddings
qlora   the same over a base in 4 bit; needs CUDA and bitsandbytes. Not yet run on a GPU (tests run it on a CPU, where
        bitsandbytes is installed)

How ``trainer.precision`` meets the weights' own dtype: with 32-true all of them are float32; with bf16-mixed those that
train are float32 and the others stay as they were read; with bf16-true all are bfloat16 but the adapters. Weights that
AdamW moves by 1e-5 of their size do not move at all in bfloat16, so bf16-true is for those who know that they want it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mathse.config.fits import FitConfig
from mathse.models import adapters, lower_layers
from mathse.models.base import Backbone
from mathse.models.parts import freeze, is_adapter
from mathse.runs.layout import ADAPTER

State = dict[str, tuple[bool, torch.dtype]]  # of each parameter: whether it trains, and its dtype


def prepare(backbone: Backbone, settings: FitConfig, precision: str, seed: int) -> State:
    """Make the model ready for a fit; what ``finish`` needs to take it back."""
    trained_before = adapters.take_off(backbone)
    # names are those without adapters; by the time ``finish`` looks them up, the adapters are merged and off again
    before = {name: (p.requires_grad, p.dtype) for name, p in backbone.model.named_parameters()}
    if settings.method == "full":
        if (
            trained_before is not None
        ):  # only where bfloat16 was asked for: in float32 they are merged when it is opened
            adapters.put_on(backbone, trained_before)
            adapters.merge(backbone)
        freeze(backbone, settings.freeze)
        lower_layers.leave(backbone, settings.freeze_layers)
    else:
        if settings.method == "qlora":
            adapters.quantise(backbone)
        lower_layers.leave(backbone, settings.freeze_layers)
        lora = settings.lora
        if trained_before is not None:
            adapters.expect_alike(backbone, trained_before, rank=lora.rank, alpha=lora.alpha, scopes=lora.scopes)
            adapters.put_on(backbone, trained_before, trains=True, dropout=lora.dropout)
        else:
            adapters.attach(
                backbone, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, scopes=lora.scopes, seed=seed
            )
    cast(backbone, precision)
    if settings.activation_checkpointing:
        checkpoint_activations(backbone.model, True)
    return before


def finish(
    backbone: Backbone,
    settings: FitConfig,
    before: State,
    folder: Path,
    placed: Path,
    kept_in: torch.dtype | None = None,
) -> None:
    """Write the adapter (if any) below ``folder``, which will lie at ``placed``, and leave a plain model: merged, of
    the dtypes that it came with (after a full fit: ``kept_in``), every parameter free to train that was so."""
    if settings.activation_checkpointing:
        checkpoint_activations(backbone.model, False)
    if backbone.adapter is not None:
        adapters.save(backbone, folder / ADAPTER, placed / ADAPTER)
        # a sum with a 4 bit base would be rounded to 4 bit again, so the adapter goes onto the base as it was published
        if adapters.is_quantised(backbone):
            adapters.onto_whole_base(backbone, folder / ADAPTER)
        adapters.merge(backbone)
    for name, parameter in backbone.model.named_parameters():
        trains, dtype = before[name]
        if settings.method == "full" and kept_in is not None and parameter.is_floating_point():
            dtype = kept_in
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(trains)
    backbone.frozen_layers = 0


def cast(backbone: Backbone, precision: str) -> None:
    """Give the weights the dtypes of ``precision``; see above. Lightning does it for no precision: its bf16-true would
    round the rotary frequencies too."""
    # parameters alone: rotary frequencies are buffers and stay float32
    for name, parameter in backbone.model.named_parameters():
        if not parameter.is_floating_point() or is_adapter(name):
            continue
        if precision == "32-true" or (precision == "bf16-mixed" and parameter.requires_grad):
            parameter.data = parameter.data.float()
        elif precision == "bf16-true":
            parameter.data = parameter.data.bfloat16()


def checkpoint_activations(model: Any, on: bool) -> None:
    """Keep a layer's input alone and run the layer again in the backward pass, or stop doing so."""
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # the older name
    if not on:
        getattr(model, f"{kind}_checkpointing_disable")()
        return
    getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    # this also makes embeddings ask for gradients: only the reentrant kind needs that, and a frozen tower would keep a
    # graph for it
    model.disable_input_require_grads()
