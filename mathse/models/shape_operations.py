"""Operations of a model that is not open, from its shape: what ``mathse.models.flops`` would read off it, to a few
percent. For plans, which open nothing."""

from __future__ import annotations

from mathse.config.fits import Fit
from mathse.models.needs import frozen_parts
from mathse.models.operations import Operations
from mathse.models.shapes import Shape


def forward_of(shape: Shape) -> Operations:
    """The operations of a forward pass."""
    return _operations(shape, language=2, layers=shape.decoder.layers, tower=2, connector=2, head=2, passes=1)


def training_of(shape: Shape, fit: Fit, first: float = 1.0) -> Operations:
    """The operations of training, forward and backward. ``first``: share of the rows that it sees for the first time;
    the outputs of frozen parts and lower layers for these are kept where ``fit`` says so."""
    frozen, full = frozen_parts(fit), fit.method == "full"
    trains_tower, trains_connector = "tower" not in frozen, "connector" not in frozen
    kept = fit.freeze_layers > 0 and first < 1
    share = first if kept or fit.tower_features else 1.0
    language = 4 if not full or "language" in fit.freeze else 6
    upper = _operations(
        shape,
        language,
        layers=shape.decoder.layers - fit.freeze_layers,
        tower=6 if trains_tower else 2 * share,
        connector=6 if trains_connector and full else 2 * share,
        head=language,
        passes=3,
        tower_passes=3 if trains_tower else share,
    )
    lower = _operations(shape, language=2 * (first if kept else 1.0), layers=fit.freeze_layers, passes=first)
    adapters = 0 if full else sum(shape.adapters(fit.lora.scopes, fit.lora.rank).values())
    return upper + lower + Operations(token=6 * adapters)


def _operations(
    shape: Shape,
    language: float,
    layers: int,
    passes: float,
    tower: float = 0,
    connector: float = 0,
    head: float = 0,
    tower_passes: float = 1,
) -> Operations:
    """Operations for each number of the ``layers`` decoder layers, and of the other parts."""
    # CogVLM2 has two sets of matrices in a layer, and each token goes through one
    sets = 2 if "vision_expert" in shape.adapted else 1
    blocks = shape.tower.layers * shape.layer_parameters.get("tower", 0)
    return Operations(
        token=round(language * layers * shape.layer_parameters["language"] / sets),
        image_token=round(connector * shape.parameters.get("connector", 0)),
        target=round(head * shape.vocabulary * shape.decoder.width),
        patch=round(tower * (blocks + shape.patch * shape.tower.width)),
        square=round(2 * shape.decoder.width * layers * passes),
        patch_square=round(4 * shape.tower.width * shape.tower.layers * tower_passes * bool(tower)),
    )
