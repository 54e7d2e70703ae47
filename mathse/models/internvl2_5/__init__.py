"""InternVL2.5 through transformers' own classes. The import of this package lets transformers open both the published
layout (``internvl_chat``) and its own."""

from __future__ import annotations

from mathse.models.internvl2_5.backbone import InternVL25Backbone, architecture, load
from mathse.models.internvl2_5.tiny import tiny_internvl2_5 as make_tiny
from mathse.models.internvl2_5.weights import register

__all__ = ["InternVL25Backbone", "architecture", "load", "make_tiny"]

register()
