"""Which part of a model a parameter belongs to, what a fit leaves frozen, and which modules get an adapter.

A family says it in two class attributes, ``parts`` and ``lora_scopes``: patterns over the names that a model has in
memory (files on disk use others), anchored, because a suffix such as ``q_proj`` or ``dense`` also hits the tower.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch.nn import Parameter

from mathse.errors import ConfigError

if TYPE_CHECKING:
    from mathse.models.base import Backbone

PARTS = ("tower", "connector", "language")


def part_of(backbone: Backbone, name: str) -> str:
    """The part that a parameter or module belongs to; the language model, its head included, is what is left."""
    return next((part for part, pattern in backbone.parts.items() if re.match(pattern, name)), "language")


def named_parts(backbone: Backbone) -> Iterator[tuple[str, str, Parameter]]:
    """(part, name, parameter) of every parameter of the model, in the model's order."""
    for name, parameter in backbone.model.named_parameters():
        yield part_of(backbone, name), name, parameter


def is_adapter(name: str) -> bool:
    """Whether a parameter is one of an adapter's (the names are peft's)."""
    return ".lora_" in name


def freeze(backbone: Backbone, frozen: Sequence[str]) -> None:
    """Leave the parts ``frozen`` as they are: their parameters get no gradient, and a tower keeps no graph.

    Raises ConfigError for a part that does not exist, and where nothing would be left to train.
    """
    if unknown := [part for part in frozen if part not in PARTS]:
        raise ConfigError(f"freeze = {list(frozen)}: there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    # Where nothing below asks for a gradient, autograd keeps no activations either.
    for part, _, parameter in named_parts(backbone):
        if part in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in backbone.model.parameters()):
        raise ConfigError(f"freeze = {list(frozen)}: every part of the model is frozen, so nothing would train")


def lora_pattern(backbone: Backbone, scopes: Sequence[str]) -> str:
    """What a module's whole name must match to get an adapter.

    Raises ConfigError for a scope that the family does not have, and where there is none.
    """
    known = backbone.lora_scopes
    if not scopes or any(scope not in known for scope in scopes):
        names = ", ".join(known) or "none: this family has no pattern"
        raise ConfigError(f"lora.scopes = {list(scopes)}: must name one or more of {names}")
    return "|".join(f"(?:{known[scope]})" for scope in dict.fromkeys(scopes))
