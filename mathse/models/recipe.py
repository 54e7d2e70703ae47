"""How a backbone was opened, so that another rank can open the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from mathse.config import build
from mathse.models.base import Backbone

HELD = 2  # a student and an ORM


@dataclass(frozen=True)
class Recipe:
    """A ``backbone`` section of the settings, and what was given beside it (``path``, ``init_seed``)."""

    section: Any
    given: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> Backbone:
        backbone: Backbone = build(self.section, **self.given)
        _made_by[backbone] = self
        return backbone


def at_checkpoint(section: Any, path: Path | str | None, dtype: str, **given: Any) -> Recipe:
    """A ``backbone`` section with its weights at ``path`` (None: where it says), in ``dtype`` unless it names one."""
    settings = section if isinstance(section, Mapping) else vars(section)
    if "dtype" in settings and settings["dtype"] is None:
        given["dtype"] = dtype
    if path is not None:
        given["path"] = str(path)
    return Recipe(section, given)


_made_by: WeakKeyDictionary[Backbone, Recipe] = WeakKeyDictionary()
_held: list[tuple[Recipe, Backbone]] = []  # the one asked for last is last


def recipe_of(backbone: Backbone) -> Recipe | None:
    """The recipe that ``backbone`` was opened by, if it was."""
    return _made_by.get(backbone)


def held(recipe: Recipe, device: torch.device) -> Backbone:
    """The backbone of a recipe on ``device``, to be used and not to be changed; the last two asked for stay open."""
    found = next((backbone for known, backbone in _held if known == recipe), None)
    _held[:] = [entry for entry in _held if entry[0] != recipe][-(HELD - 1) :]  # freed before another one is read
    if found is None:
        found = recipe.open()
        found.model.to(device)
    _held.append((recipe, found))
    return found


def let_go() -> None:
    """Free what ``held`` keeps."""
    _held.clear()
