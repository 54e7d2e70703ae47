"""A large backbone is not trained on the default data by mistake."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mathse.config.data import SyntheticData
from mathse.config.schema import TrainConfig
from mathse.errors import ConfigError
from mathse.models.shapes import shape_of

SMALL = 100_000_000  # parameters; a model with fewer is here to try something out
CHOOSES = re.compile(r"[+~]*(data|experiment)\b")  # an experiment says what its data is


def refuse_unnamed_data(config: TrainConfig, overrides: Sequence[str]) -> None:
    """Raises ConfigError where a pretrained backbone would train on the synthetic problems, and no override of the
    command line chose them."""
    if not isinstance(config.data, SyntheticData) or any(CHOOSES.match(override) for override in overrides):
        return
    shape = shape_of(config.backbone)
    if shape is None or shape.total < SMALL:
        return
    raise ConfigError(
        f"data: nothing was chosen, so this would train a model of {shape.total / 1e9:.1f} billion parameters on the "
        "default data, synthetic sums over pictures of digits; pass data=jsonl data.path=FILE for your own problems, "
        "or data=synthetic if these are meant"
    )
