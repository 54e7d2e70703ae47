"""The update of a run, from its section ``evolution.update``."""

from __future__ import annotations

from typing import Any, get_args

from mathse.config import build
from mathse.config.updates import update_name
from mathse.errors import ConfigError
from mathse.training.updates.losses import Aggregation

METHODS = {  # of an update, by the rows that it learns from
    "rows": (),
    "pairs": ("pair_losses",),
    "verdicts": ("verdict_losses",),
    "groups": ("advantages", "token_losses"),
}


def open_update(section: Any) -> Any:
    """Return the update of a section. Raises ConfigError where its class is none."""
    update = build(section)
    data = getattr(update, "data", None)
    if data not in METHODS:
        raise ConfigError(
            f"evolution.update._target_ = {update_name(section)!r}: an update has the attribute data, one of "
            f"{', '.join(METHODS)}, and this has {data!r} (docs: mathse/training/updates)"
        )
    missing = [name for name in METHODS[data] if not callable(getattr(update, name, None))]
    if missing:
        raise ConfigError(
            f"evolution.update._target_ = {update_name(section)!r}: an update with data = {data!r} has the methods "
            f"{', '.join(METHODS[data])}, and this lacks {', '.join(missing)}"
        )
    aggregation = getattr(update, "aggregation", "tokens")
    if aggregation not in get_args(Aggregation):
        raise ConfigError(
            f"evolution.update._target_ = {update_name(section)!r}: its aggregation is one of "
            f"{', '.join(get_args(Aggregation))}, and this has {aggregation!r}"
        )
    return update
