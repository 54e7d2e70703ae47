"""InternVL2.5: its published checkpoints converted to transformers' layout, and the backbone that opens either."""

from __future__ import annotations

from mathse.models.internvl2_5.backbone import InternVL25Backbone, load
from mathse.models.internvl2_5.conversion import convert, is_original
from mathse.models.internvl2_5.native import ensure_native

__all__ = ["InternVL25Backbone", "convert", "ensure_native", "is_original", "load"]
