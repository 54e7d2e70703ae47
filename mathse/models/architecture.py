"""The model of a ``backbone`` section, built from its config on the meta device: a plan counts sizes, memory and
operations in the modules themselves, and needs neither weights nor a processor.

``mathse.models.needs.architecture_of`` is the entrance. A family has a function ``architecture`` beside its ``load``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mathse.config.fits import FitConfig
from mathse.models import modes
from mathse.models.base import Backbone
from mathse.models.flops import forward_flops, kept_states_flops, lowest_trained_layer, training_flops
from mathse.models.lower_layers import layers_of
from mathse.models.memory import count, patch_numbers
from mathse.models.needs import Prepared, Stack
from mathse.models.operations import Operations
from mathse.models.parts import named_parts, part_of
from mathse.models.placement import META


@dataclass(frozen=True)
class Training:
    """Operations of a training run, forward and backward. ``above``, ``below``: of the layers from the lowest that
    trains on, and of a forward pass over all else; None where something trains below the layers."""

    whole: Operations
    above: Operations | None
    below: Operations | None


@dataclass(eq=False)
class Architecture:
    """A family's model without numbers.

    Attributes:
        backbone: without a processor.
        dtype: of the weights; None: float32 in a full fit, else bfloat16.
        patches: of the largest picture, in a row to train on and in a row to answer.
        image_tokens: of the same two pictures, with the marks around them.
        tokens_of: tokens of a picture by its width and height in pixels, in a row to answer; None where every picture
            takes the most.
    """

    backbone: Backbone
    dtype: str | None = None
    patches: tuple[int, int] = (0, 0)
    image_tokens: tuple[int, int] = (0, 0)
    tokens_of: Callable[[int, int], float] | None = None
    _counted: dict[str, tuple[Prepared, Training]] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Parameters by part: tower, connector, language."""
        counts: dict[str, int] = {}
        for part, _, parameter in named_parts(self.backbone):
            counts[part] = counts.get(part, 0) + parameter.numel()
        return counts

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    @property
    def config(self) -> Any:
        return self.backbone.model.config

    @property
    def vocabulary(self) -> int:
        return int(self.config.get_text_config().vocab_size)

    @cached_property
    def decoder(self) -> Stack:
        return Stack.of(self.config, "language")

    @cached_property
    def tower(self) -> Stack:
        return Stack.of(self.config, "tower")

    @property
    def patch(self) -> int:
        """Numbers in a patch."""
        return patch_numbers(self.config)

    @cached_property
    def layer_parameters(self) -> Mapping[str, int]:
        """Parameters of one layer, of the decoder and of the tower."""
        return {
            part: sum(parameter.numel() for parameter in layers_of(self.backbone, part)[1][0].parameters())
            for part in ("language", "tower")
            if part in self.parameters
        }

    @cached_property
    def quantised(self) -> int:
        """Numbers in the matrices that qlora holds in 4 bit: the linear modules of the language model but its head."""
        model, head = self.backbone.model, self.backbone.head
        return sum(
            module.weight.numel()
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head and part_of(self.backbone, name) == "language"
        )

    @cached_property
    def reading(self) -> Operations:
        """Operations of a forward pass."""
        return forward_flops(self.backbone)

    def training(self, fit: FitConfig, precision: str) -> Training:
        """Operations of a training run with these settings."""
        return self._prepared(fit, precision)[1]

    def prepared(self, fit: FitConfig, precision: str) -> Prepared:
        """The model as a training run with these settings prepares it, counted."""
        return self._prepared(fit, precision)[0]

    def _prepared(self, fit: FitConfig, precision: str) -> tuple[Prepared, Training]:
        """Both are counted once for all settings that change nothing in the model."""
        full = fit.method == "full"
        # bitsandbytes needs a GPU: the matrices of a base in 4 bit are counted in bfloat16, in which it is read
        dtype = self.dtype if fit.method != "qlora" else None
        dtype = dtype or ("float32" if full else "bfloat16")
        key = repr((fit.freeze if full else fit.lora, fit.freeze_layers, dtype, precision))
        if key not in self._counted:
            backbone = copy(self.backbone)
            backbone.model = deepcopy(self.backbone.model).to(getattr(torch, dtype))
            settings = replace(fit, method="full" if full else "lora", activation_checkpointing=False)
            with META:
                modes.prepare(backbone, settings, precision, seed=0)
            lowest = lowest_trained_layer(backbone)
            training = Training(
                whole=training_flops(backbone),
                above=training_flops(backbone, kept=True) if lowest else None,
                below=kept_states_flops(backbone) if lowest else None,
            )
            self._counted[key] = count(backbone), training
        return self._counted[key]
