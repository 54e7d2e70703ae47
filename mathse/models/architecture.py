"""The model of a ``backbone`` section, built from its config on the meta device.

A plan counts sizes, memory and operations in its modules and needs neither weights nor a processor. Each family has a
function ``architecture`` beside its ``load``; callers use ``mathse.models.needs.find_architecture``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mathse.config.fits import Fit
from mathse.models import modes
from mathse.models.base import Backbone
from mathse.models.flops import (
    count_forward_flops,
    count_kept_states_flops,
    count_training_flops,
    find_lowest_trained_layer,
)
from mathse.models.lower_layers import find_layers
from mathse.models.memory import count_patch_numbers, count_prepared
from mathse.models.needs import PreparedCounts, Stack
from mathse.models.operations import Operations
from mathse.models.parts import find_part, iterate_parameters
from mathse.models.placement import META


@dataclass(frozen=True)
class Training:
    """Operations of a training run, forward and backward.

    Attributes:
        whole: of the whole model.
        above: from the lowest trained layer on, with stored hidden states below it.
        below: of the forward pass that computes these states. ``above`` and ``below`` are None if anything below the
            layers is trained.
    """

    whole: Operations
    above: Operations | None
    below: Operations | None


@dataclass(eq=False)
class Architecture:
    """A family's model on the meta device.

    Attributes:
        backbone: without a processor.
        dtype: of the weights; None: float32 in full fine-tuning, else bfloat16.
        patches: of the largest picture in a row of training data, and in a row to answer.
        image_tokens: of the same two pictures, with the marks around them.
        tokens_of: (width, height) in pixels -> tokens of a picture in a row to answer; None: every picture has the
            largest number.
    """

    backbone: Backbone
    dtype: str | None = None
    patches: tuple[int, int] = (0, 0)
    image_tokens: tuple[int, int] = (0, 0)
    tokens_of: Callable[[int, int], float] | None = None
    _counted: dict[str, tuple[PreparedCounts, Training]] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Number of parameters by part: tower, connector, language."""
        counts: dict[str, int] = {}
        for part, _, parameter in iterate_parameters(self.backbone):
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
        """Number of values in a patch."""
        return count_patch_numbers(self.config)

    @cached_property
    def layer_parameters(self) -> Mapping[str, int]:
        """Number of parameters in a layer, by part: language, tower."""
        counts = {}
        for part in ("language", "tower"):
            if part in self.parameters:
                _, layers = find_layers(self.backbone, part)
                counts[part] = sum(parameter.numel() for parameter in layers[0].parameters())
        return counts

    @cached_property
    def quantised(self) -> int:
        """Number of weights that qlora stores in 4 bit: the linear layers of the language model without the head."""
        model, head = self.backbone.model, self.backbone.head
        return sum(
            module.weight.numel()
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head and find_part(self.backbone, name) == "language"
        )

    @cached_property
    def reading(self) -> Operations:
        """Operations of a forward pass."""
        return count_forward_flops(self.backbone)

    def training(self, fit: Fit, precision: str) -> Training:
        """Return the operations of a training run with these settings."""
        return self._prepare(fit, precision)[1]

    def prepared(self, fit: Fit, precision: str) -> PreparedCounts:
        """Return the counts of the model after its preparation for a training run with these settings."""
        return self._prepare(fit, precision)[0]

    def _prepare(self, fit: Fit, precision: str) -> tuple[PreparedCounts, Training]:
        """Prepare a copy of the model and count it, once for all settings that prepare the same model."""
        full = fit.method == "full"
        # bitsandbytes needs a GPU, so a 4-bit base is counted in bfloat16, the dtype in which it is read.
        dtype = self.dtype if fit.method != "qlora" else None
        dtype = dtype or ("float32" if full else "bfloat16")
        key = repr((fit.freeze if full else fit.lora, fit.freeze_layers, dtype, precision))
        if key not in self._counted:
            backbone = copy(self.backbone)
            backbone.model = deepcopy(self.backbone.model).to(getattr(torch, dtype))
            settings = replace(fit, method="full" if full else "lora", activation_checkpointing=False)
            with META:
                modes.prepare(backbone, settings, precision, seed=0)
            lowest = find_lowest_trained_layer(backbone)
            training = Training(
                whole=count_training_flops(backbone),
                above=count_training_flops(backbone, kept=True) if lowest else None,
                below=count_kept_states_flops(backbone) if lowest else None,
            )
            self._counted[key] = count_prepared(backbone), training
        return self._counted[key]
