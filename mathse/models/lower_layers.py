"""The lower layers of a language model that training freezes (``freeze_layers``), with the token embeddings.

No gradient goes through them, and their output for a row is the same in every epoch. During training,
``backbone.frozen_layers`` is their number. *Hidden states* are here the input (B, T, h) of the first layer above them,
with everything that a family adds between two layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mathse.errors import ConfigError
from mathse.models.parts import find_part

if TYPE_CHECKING:
    from mathse.models.base import Backbone

STATES = "layer_states"  # key in a batch: stored hidden states (h, B, T), padded as per-token tensors


def find_layers(backbone: Backbone, part: str = "language") -> tuple[str, nn.ModuleList]:
    """Return the layers of the language model or the tower with their name: the largest list of modules in the part."""
    lists = [
        (name, module)
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.ModuleList) and find_part(backbone, f"{name}.0") == part
    ]
    return max(lists, key=lambda named: sum(p.numel() for p in named[1].parameters()))


def freeze_lower(backbone: Backbone, count: int) -> None:
    """Freeze the lower ``count`` layers and the token embeddings; 0 freezes nothing.

    Raises ConfigError if no layer would be left to train.
    """
    backbone.frozen_layers = 0
    if not count:
        return
    _, layers = find_layers(backbone)
    if count >= len(layers):
        raise ConfigError(
            f"freeze_layers = {count}: the language model has {len(layers)} layers, and at least the last layer must "
            f"train; pass {len(layers) - 1} or less"
        )
    backbone.frozen_layers = count
    for module in iterate_frozen_modules(backbone):
        module.requires_grad_(False)


def iterate_frozen_modules(backbone: Backbone) -> Iterator[nn.Module]:
    """Yield the frozen lower layers, the embeddings, and modules without weights beside the layers, such as dropout."""
    _, layers = find_layers(backbone)
    yield from layers[: backbone.frozen_layers]
    yield backbone.model.get_input_embeddings()
    inside = {id(module) for module in layers.modules()}
    parent = next(m for m in backbone.model.modules() if any(child is layers for child in m.children()))
    for child in parent.children():
        has_no_weights = not any(True for _ in child.parameters())
        if id(child) not in inside and (isinstance(child, nn.Embedding) or has_no_weights):
            yield child


def disable_lower_dropout(backbone: Backbone) -> None:
    """Set the frozen lower modules to eval mode, in a model in training mode: their output must not be random."""
    if backbone.frozen_layers:
        for module in iterate_frozen_modules(backbone):
            module.eval()


def make_layer_numbering(backbone: Backbone) -> Callable[[str], int]:
    """Return a function from the name of a parameter or module to the number of its layer in the language model.

    A name outside of the layers has the number of layers, one more than the last number.
    """
    prefix, layers = find_layers(backbone)
    pattern, outside = re.compile(rf"{re.escape(prefix)}\.(\d+)(?:\.|$)"), len(layers)

    def number(name: str) -> int:
        match = pattern.match(name)
        return outside if match is None else int(match[1])

    return number


def exclude_lower_layers(backbone: Backbone) -> str:
    """Return a prefix for a pattern of module names with which it matches no module in the frozen lower layers."""
    if not backbone.frozen_layers:
        return ""
    prefix, _ = find_layers(backbone)
    return rf"(?!{re.escape(prefix)}\.(?:{'|'.join(map(str, range(backbone.frozen_layers)))})\.)"


# --- hidden states ----------------------------------------------------------------------------------------------------


class _StatesRead(Exception):
    """Carries the states out of a forward pass and ends it."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def compute_states(backbone: Backbone, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the hidden states (B, T, h) of a batch. No layer above them runs."""

    def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _StatesRead(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))

    _, layers = find_layers(backbone)
    inputs = backbone.with_features({name: tensor for name, tensor in batch.items() if name != "labels"})
    with layers[backbone.frozen_layers].register_forward_pre_hook(read, with_kwargs=True):
        try:
            backbone.decoder(**inputs, use_cache=False)
        except _StatesRead as done:
            return done.states
    raise AssertionError("the layers of the language model did not run")


@contextmanager
def replace_lower_layers(backbone: Backbone, states: Tensor) -> Iterator[None]:
    """Within the context, the lower layers compute nothing: each returns ``states``."""
    _, layers = find_layers(backbone)
    lower = layers[: backbone.frozen_layers]
    before = [vars(layer).get("forward") for layer in lower]
    for layer in lower:
        layer.forward = lambda *args, **kwargs: states
    try:
        yield
    finally:
        for layer, forward in zip(lower, before, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def compute_last_states(backbone: Backbone, inputs: Mapping[str, Any]) -> Tensor:
    """Return the decoder's last hidden states (B, T, h). If the batch has stored ``STATES``, it computes from these."""
    kept = inputs.get(STATES)
    if kept is None:
        hidden: Tensor = backbone.decoder(**inputs, use_cache=False).last_hidden_state
        return hidden
    states = kept.permute(1, 2, 0).contiguous()  # (h, B, T) -> (B, T, h)
    rest = {name: value for name, value in inputs.items() if name not in (STATES, "input_ids")}
    # Passed as embeddings, they give the model its shapes, and it does not look for the pictures of image tokens.
    with replace_lower_layers(backbone, states):
        hidden = backbone.decoder(inputs_embeds=states, **rest, use_cache=False).last_hidden_state
    return hidden


def find_reason_against_states(backbone: Backbone, batch: dict[str, Tensor], stored: dict[str, Tensor]) -> str | None:
    """Return why stored hidden states cannot replace the lower layers in batches like this; None if they can.

    Both conditions are tested: the states must not depend on a trained weight, and the upper layers must compute
    exactly the same from the states as the whole model from the batch.

    Args:
        stored: the same batch with its states.
    """
    with torch.enable_grad():
        if compute_states(backbone, batch).requires_grad:
            return "trained weights are below them too (the tower, the connector, adapters on the tower)"
    from_states, whole = (backbone.answer_states(b)[0] for b in (stored, batch))
    if torch.equal(from_states, whole):
        return None
    return f"the upper layers of {type(backbone.model).__name__} read more than these states"
