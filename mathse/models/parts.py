"""The parts of a model, the parts that training freezes, and the modules that get an adapter.

A family defines them in ``parts`` and ``lora_scopes``: patterns over the model's names in memory (files on disk have
other names). The patterns are anchored, because a suffix such as ``q_proj`` or ``dense`` also occurs in the tower.
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


def find_part(backbone: Backbone, name: str) -> str:
    """Return the part of a parameter or module. The language model, with its head, is everything without a pattern."""
    return next((part for part, pattern in backbone.parts.items() if re.match(pattern, name)), "language")


def iterate_parameters(backbone: Backbone) -> Iterator[tuple[str, str, Parameter]]:
    """Yield (part, name, parameter) for every parameter of the model, in the model's order."""
    for name, parameter in backbone.model.named_parameters():
        yield find_part(backbone, name), name, parameter


def is_adapter(name: str) -> bool:
    """Return whether a parameter belongs to an adapter. The names are peft's."""
    return ".lora_" in name


def freeze(backbone: Backbone, frozen: Sequence[str]) -> None:
    """Freeze the parts ``frozen``: their parameters get no gradient.

    Raises ConfigError for an unknown part, and if no part is left to train.
    """
    if unknown := [part for part in frozen if part not in PARTS]:
        raise ConfigError(f"freeze = {list(frozen)}: there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    # If no parameter below a part needs a gradient, autograd keeps no activations there either.
    for part, _, parameter in iterate_parameters(backbone):
        if part in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in backbone.model.parameters()):
        raise ConfigError(f"freeze = {list(frozen)}: every part of the model is frozen, so nothing would train")


def lora_pattern(backbone: Backbone, scopes: Sequence[str]) -> str:
    """Return the pattern of the full names of the modules that get an adapter.

    Raises ConfigError for an empty list of scopes and for a scope that the family does not have.
    """
    known = backbone.lora_scopes
    if not scopes or any(scope not in known for scope in scopes):
        names = ", ".join(known) or "none: this family has no pattern"
        raise ConfigError(f"lora.scopes = {list(scopes)}: must name one or more of {names}")
    return "|".join(f"(?:{known[scope]})" for scope in dict.fromkeys(scopes))
