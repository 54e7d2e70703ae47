"""The settings with which a backbone was opened, so that another rank can open the same model.

A model is not sent between processes; its spec, a few settings, is. Every rank that helps with a stage (sampling,
training) opens the model with the spec of rank 0.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from mathse.config import build, with_values
from mathse.models import adapters
from mathse.models.base import Backbone
from mathse.models.feature_store import FeatureStore
from mathse.models.placement import META, open_weights_on, replace_with_empty
from mathse.models.tower_features import TowerFeatures
from mathse.runs.layout import ADAPTER
from mathse.runs.reader import expect_as_recorded


@dataclass(frozen=True)
class ModelSpec:
    """A ``backbone`` section of the settings, with the arguments that only a run knows (``init_seed``)."""

    section: Any
    runtime: Mapping[str, Any] = field(default_factory=dict)
    features: FeatureStore | None = None  # the store for features of the frozen parts
    frozen: tuple[str, ...] = ()  # see mathse.models.tower_features

    def open(self, device: torch.device | None = None) -> Backbone:
        """Open the backbone. A checkpoint with adapters beside rounded weights is opened as its base with the adapters.

        Args:
            device: reads the weights straight onto it; None: the CPU. On meta, the model has no weights.
        """
        settings = self.section if isinstance(self.section, Mapping) else vars(self.section)
        checkpoint = Path(settings.get("path") or "")
        expect_as_recorded(checkpoint)  # also in ``resolve`` of the family, which does not see the adapters
        with open_weights_on(device):
            if (base := adapters.find_base(checkpoint)) is not None:
                backbone: Backbone = build(with_values(self.section, path=str(base)), **self.runtime)
                adapters.put_on(backbone, checkpoint / ADAPTER)
                if backbone.model.dtype == torch.float32:
                    adapters.merge(backbone)
            else:
                backbone = build(self.section, **self.runtime)
        # Random weights, and the weights of a user's own family, may still be on the CPU.
        if device == META:
            replace_with_empty(backbone.model, META)
        elif device is not None:
            backbone.to(device)
        if self.features is not None and self.frozen:
            backbone.tower_features = TowerFeatures(self.features, self.frozen)
        _specs[backbone] = self
        return backbone


def make_spec(section: Any, path: Path | str | None, dtype: str, **runtime: Any) -> ModelSpec:
    """Return the spec of a ``backbone`` section.

    Args:
        path: of the weights; None: the section's own.
        dtype: used if the section has none.
    """
    settings = section if isinstance(section, Mapping) else vars(section)
    if "dtype" in settings and settings["dtype"] is None:
        section = with_values(section, dtype=dtype)
    if path is not None:
        section = with_values(section, path=str(path))
    return ModelSpec(section, runtime)


_specs: WeakKeyDictionary[Backbone, ModelSpec] = WeakKeyDictionary()  # specs of all backbones in memory
_shared: tuple[ModelSpec, Backbone] | None = None


def find_spec(backbone: Backbone) -> ModelSpec | None:
    """Return the spec with which ``backbone`` was opened; None if it was built in another way."""
    return _specs.get(backbone)


def open_shared(spec: ModelSpec, device: torch.device) -> Backbone:
    """Return the backbone of a spec on ``device``, which the caller must not change.

    The last backbone stays open for the next call with the same spec.
    """
    global _shared
    if _shared is None or _shared[0] != spec:
        close_shared()  # frees its memory before the next model is read
        _shared = (spec, spec.open(device))
    return _shared[1]


def close_shared() -> None:
    """Free the backbone that ``open_shared`` keeps open."""
    global _shared
    if _shared is not None:
        _shared = None
        gc.collect()
