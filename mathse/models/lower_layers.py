"""The lower layers of a language model as a fit may leave them (``freeze_layers``): with the token embeddings as they
are, so that no gradient goes through them and what they make of a row is the same in every epoch.

``backbone.frozen_layers`` is their number while a fit runs. Hidden states, (B, T, h), are those that the first layer
above them reads: whatever a family adds between two layers is in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mathse.errors import ConfigError
from mathse.models.parts import part_of

if TYPE_CHECKING:
    from mathse.models.base import Backbone

STATES = "layer_states"  # of a batch: kept hidden states (h, B, T), as per-token tensors are padded


def layers_of(backbone: Backbone, part: str = "language") -> tuple[str, nn.ModuleList]:
    """The layers of the language model or the tower, and their name in the model: the largest list of modules in it."""
    lists = [
        (name, module)
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.ModuleList) and part_of(backbone, f"{name}.0") == part
    ]
    return max(lists, key=lambda named: sum(p.numel() for p in named[1].parameters()))


def leave(backbone: Backbone, count: int) -> None:
    """From now on the lower ``count`` layers and the token embeddings get no gradient. 0: nothing is left out.

    Raises ConfigError where no layer would be left to train.
    """
    backbone.frozen_layers = 0
    if not count:
        return
    _, layers = layers_of(backbone)
    if count >= len(layers):
        raise ConfigError(
            f"freeze_layers = {count}: the language model has {len(layers)} layers, and at least the last one trains; "
            f"pass {len(layers) - 1} or less"
        )
    backbone.frozen_layers = count
    for module in still_modules(backbone):
        module.requires_grad_(False)


def still_modules(backbone: Backbone) -> Iterator[nn.Module]:
    """The lower layers, and around them embeddings and what holds no weight, such as a dropout behind these."""
    _, layers = layers_of(backbone)
    yield from layers[: backbone.frozen_layers]
    yield backbone.model.get_input_embeddings()
    inside = {id(module) for module in layers.modules()}
    around = next(m for m in backbone.model.modules() if any(child is layers for child in m.children()))
    for child in around.children():
        if id(child) not in inside and (isinstance(child, nn.Embedding) or not any(True for _ in child.parameters())):
            yield child


def hold_still(backbone: Backbone) -> None:
    """Nothing random happens below the trained layers: no dropout, in a model that is in training mode."""
    if backbone.frozen_layers:
        for module in still_modules(backbone):
            module.eval()


def layer_numbers(backbone: Backbone) -> Callable[[str], int]:
    """From the name of a parameter or module to the number of the language model's layer that it lies in; one that lies
    in no layer, below all of them or above, has the number behind the last."""
    prefix, layers = layers_of(backbone)
    pattern, outside = re.compile(rf"{re.escape(prefix)}\.(\d+)(?:\.|$)"), len(layers)

    def number(name: str) -> int:
        found = pattern.match(name)
        return outside if found is None else int(found[1])

    return number


def above_lower(backbone: Backbone) -> str:
    """The beginning of a pattern of module names, with which it matches none in the frozen lower layers."""
    if not backbone.frozen_layers:
        return ""
    prefix, _ = layers_of(backbone)
    return rf"(?!{re.escape(prefix)}\.(?:{'|'.join(map(str, range(backbone.frozen_layers)))})\.)"


# --- hidden states ----------------------------------------------------------------------------------------------------


class _Read(Exception):
    """Carries the states out of a pass whose rest is not needed."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def states_of(backbone: Backbone, batch: Mapping[str, Tensor]) -> Tensor:
    """The hidden states of a batch; no layer above them runs."""

    def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Read(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))

    _, layers = layers_of(backbone)
    inputs = backbone.with_features({name: tensor for name, tensor in batch.items() if name != "labels"})
    with layers[backbone.frozen_layers].register_forward_pre_hook(read, with_kwargs=True):
        try:
            backbone.decoder(**inputs, use_cache=False)
        except _Read as done:
            return done.states
    raise AssertionError("the layers of the language model did not run")


@contextmanager
def standing_for(backbone: Backbone, states: Tensor) -> Iterator[None]:
    """Within, the lower layers do no work: each hands on ``states``."""
    _, layers = layers_of(backbone)
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


def last_states(backbone: Backbone, inputs: Mapping[str, Any]) -> Tensor:
    """The decoder's last hidden states, (B, T, h): of a batch with kept ``STATES`` from these on."""
    kept = inputs.get(STATES)
    if kept is None:
        hidden: Tensor = backbone.decoder(**inputs, use_cache=False).last_hidden_state
        return hidden
    states = kept.permute(1, 2, 0).contiguous()  # (h, B, T) -> (B, T, h)
    rest = {name: value for name, value in inputs.items() if name not in (STATES, "input_ids")}
    # as embeddings they tell the model its sizes; no picture is looked for behind an image's tokens then
    with standing_for(backbone, states):
        hidden = backbone.decoder(inputs_embeds=states, **rest, use_cache=False).last_hidden_state
    return hidden


def why_not_kept(backbone: Backbone, batch: dict[str, Tensor], kept: dict[str, Tensor]) -> str | None:
    """Why hidden states cannot stand for the lower layers, in batches like this one; None if they can.

    It is tried: states must not depend on what trains, and the upper layers must make of them exactly what the whole
    model makes of the batch. ``kept``: the same batch with its states.
    """
    with torch.enable_grad():
        if states_of(backbone, batch).requires_grad:
            return "what trains lies below them too (the tower, the connector, adapters on the tower)"
    from_states, whole = (backbone.answer_states(b)[0] for b in (kept, batch))
    if torch.equal(from_states, whole):
        return None
    return f"the upper layers of {type(backbone.model).__name__} read more than these states"
