"""Prepare a model for a training mode, and restore it afterwards.

full    every weight outside of the frozen parts is trained, above the lower ``freeze_layers`` with their embeddings
lora    the whole base is frozen (``freeze`` has no further effect); adapters on ``lora.scopes`` are trained, above the
        lower ``freeze_layers``
qlora   the same over a base in 4 bit; needs CUDA and bitsandbytes. Not yet run on a GPU (tests run it on a CPU, if
        bitsandbytes is installed)

Dtypes by ``trainer.precision``: with 32-true all weights are float32. With bf16-mixed the trained weights are float32
and the others keep the dtype in which they were read. With bf16-true all are bfloat16 except the adapters. An update of
1e-5 of a weight's size changes nothing in bfloat16, so bf16-true can stop AdamW from training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mathse.config.fits import Fit
from mathse.models import adapters, lower_layers
from mathse.models.base import Backbone
from mathse.models.parts import freeze, is_adapter
from mathse.runs.layout import ADAPTER

State = dict[str, tuple[bool, torch.dtype]]  # name of a parameter -> requires_grad, dtype


def prepare(backbone: Backbone, settings: Fit, precision: str, seed: int) -> State:
    """Prepare the model for training. Returns the state that ``finish`` restores."""
    previous_adapter = adapters.take_off(backbone)
    # Names without adapters: ``finish`` looks them up after the adapters have been merged and taken off.
    before = {name: (p.requires_grad, p.dtype) for name, p in backbone.model.named_parameters()}
    if settings.method == "full":
        if previous_adapter is not None:  # only in bfloat16: a float32 model is opened with merged adapters
            adapters.put_on(backbone, previous_adapter)
            adapters.merge(backbone)
        freeze(backbone, settings.freeze)
        lower_layers.freeze_lower(backbone, settings.freeze_layers)
    else:
        if settings.method == "qlora":
            adapters.quantise(backbone)
        lower_layers.freeze_lower(backbone, settings.freeze_layers)
        lora = settings.lora
        if previous_adapter is not None:
            adapters.expect_alike(backbone, previous_adapter, rank=lora.rank, alpha=lora.alpha, scopes=lora.scopes)
            adapters.put_on(backbone, previous_adapter, trains=True, dropout=lora.dropout)
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
    settings: Fit,
    before: State,
    folder: Path,
    placed: Path,
    store_dtype: torch.dtype | None = None,
) -> None:
    """Write the adapter, if there is one, and restore a plain model with merged weights.

    Every parameter has its earlier dtype and ``requires_grad`` again.

    Args:
        before: the state that ``prepare`` returned.
        folder: the checkpoint folder; the adapter is written below it.
        placed: the path that ``folder`` will have in the end.
        store_dtype: dtype of the weights after full fine-tuning; None: their earlier dtype.
    """
    if settings.activation_checkpointing:
        checkpoint_activations(backbone.model, False)
    if backbone.adapter is not None:
        adapters.save(backbone, folder / ADAPTER, placed / ADAPTER)
        # A sum with a 4-bit base would be rounded to 4 bit, so the adapter is merged into the published base.
        if adapters.is_quantised(backbone):
            adapters.put_on_whole_base(backbone, folder / ADAPTER)
        adapters.merge(backbone)
    for name, parameter in backbone.model.named_parameters():
        trains, dtype = before[name]
        if settings.method == "full" and store_dtype is not None and parameter.is_floating_point():
            dtype = store_dtype
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(trains)
    backbone.frozen_layers = 0


def cast(backbone: Backbone, precision: str) -> None:
    """Convert the weights to the dtypes of ``precision`` (see the module's docstring).

    Buffers, such as rotary frequencies, stay float32. Lightning's own bf16-true would round them too.
    """
    for name, parameter in backbone.model.named_parameters():
        if not parameter.is_floating_point() or is_adapter(name):
            continue
        if precision == "32-true" or (precision == "bf16-mixed" and parameter.requires_grad):
            parameter.data = parameter.data.float()
        elif precision == "bf16-true":
            parameter.data = parameter.data.bfloat16()


def checkpoint_activations(model: Any, on: bool) -> None:
    """Turn activation checkpointing on or off: a layer keeps only its input and runs again in the backward pass."""
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # transformers' older name
    if not on:
        getattr(model, f"{kind}_checkpointing_disable")()
        return
    getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    # The call also makes the embeddings' output require gradients, which only reentrant checkpointing needs. A frozen
    # tower would keep a graph for it.
    model.disable_input_require_grads()
