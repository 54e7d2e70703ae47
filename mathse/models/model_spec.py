"""How a backbone was opened, so that another rank can open the same.

Models do not travel between processes; what opens them does: a few settings. Every rank that helps a stage (samples,
trains) opens the model by the spec that rank 0 opened its own by.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from mathse.config import build, replace_values
from mathse.models import adapters
from mathse.models.base import Backbone
from mathse.models.feature_store import FeatureStore
from mathse.models.placement import META, empty_out, opening_on
from mathse.models.tower_features import TowerFeatures
from mathse.runs.layout import ADAPTER
from mathse.runs.reader import expect_as_recorded


@dataclass(frozen=True)
class ModelSpec:
    """A ``backbone`` section of the settings, and what only a run has (``init_seed``, where weights are drawn)."""

    section: Any
    runtime: Mapping[str, Any] = field(default_factory=dict)
    features: FeatureStore | None = None  # where features of its frozen parts may be kept
    frozen: tuple[str, ...] = ()  # see mathse.models.tower_features

    def open(self, device: torch.device | None = None) -> Backbone:
        """The backbone; of a checkpoint that keeps adapters beside rounded weights, its base with them on it.

        ``device``: where its weights are put as they are read (None: on the CPU); on meta it has none.
        """
        settings = self.section if isinstance(self.section, Mapping) else vars(self.section)
        checkpoint = Path(settings.get("path") or "")
        expect_as_recorded(checkpoint)  # here, and not by the family's ``resolve`` alone, for the sake of the adapters
        with opening_on(device):
            if (base := adapters.base_of(checkpoint)) is not None:
                backbone: Backbone = build(replace_values(self.section, path=str(base)), **self.runtime)
                adapters.put_on(backbone, checkpoint / ADAPTER)
                if backbone.model.dtype == torch.float32:
                    adapters.merge(backbone)
            else:
                backbone = build(self.section, **self.runtime)
        # random weights, and those of a family with a loader of its own, have come to lie on the CPU
        if device == META:
            empty_out(backbone.model, META)
        elif device is not None:
            backbone.to(device)
        if self.features is not None and self.frozen:
            backbone.tower_features = TowerFeatures(self.features, self.frozen)
        _specs[backbone] = self
        return backbone


def spec_at(section: Any, path: Path | str | None, dtype: str, **runtime: Any) -> ModelSpec:
    """A ``backbone`` section with its weights at ``path`` (None: where it says), in ``dtype`` unless it names one."""
    settings = section if isinstance(section, Mapping) else vars(section)
    if "dtype" in settings and settings["dtype"] is None:
        section = replace_values(section, dtype=dtype)
    if path is not None:
        section = replace_values(section, path=str(path))
    return ModelSpec(section, runtime)


_specs: WeakKeyDictionary[Backbone, ModelSpec] = WeakKeyDictionary()  # of all backbones that are in memory
_shared: tuple[ModelSpec, Backbone] | None = None


def spec_of(backbone: Backbone) -> ModelSpec | None:
    """The spec that ``backbone`` was opened by, if it was."""
    return _specs.get(backbone)


def open_shared(spec: ModelSpec, device: torch.device) -> Backbone:
    """The backbone of a spec on ``device``, to be used and not to be changed; the last one that was used stays open."""
    global _shared
    if _shared is None or _shared[0] != spec:
        close_shared()  # before another one is read
        _shared = (spec, spec.open(device))
    return _shared[1]


def close_shared() -> None:
    """Free what ``open_shared`` keeps."""
    global _shared
    if _shared is not None:
        _shared = None
        gc.collect()
