"""The models of an evaluation: the student, and the ORM that weighs its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mathse import ranks
from mathse.backbones import quiet
from mathse.backbones.base import Backbone
from mathse.backbones.recipe import Recipe
from mathse.config.schema import EvaluateConfig, Trainer
from mathse.errors import CheckpointError
from mathse.fit import device_of
from mathse.judges import ORMJudge
from mathse.store import read_json

ORM_FILE = "orm.json"  # in an ORM's checkpoint: what its prompt held and what it writes


def on_devices(trainer: Trainer, work: Callable[[], float | None]) -> float | None:
    """``work()`` with the trainer's threads, on the first of its ranks; the others lend it their devices."""
    quiet()
    torch.set_num_threads(trainer.threads)
    with ranks.joined(trainer.accelerator, trainer.devices):
        if ranks.rank() == 0:
            return work()
        ranks.follow()
    return None


def student(config: EvaluateConfig) -> Backbone:
    """The model of ``checkpoint``, else of ``backbone.path``."""
    return _reader(config.backbone, config.checkpoint, config.trainer)


def reward_model(config: EvaluateConfig) -> ORMJudge:
    """The ORM of ``judge.checkpoint``. Raises CheckpointError where that is no ORM's."""
    checkpoint = Path(str(config.judge.checkpoint))
    if not (checkpoint / ORM_FILE).is_file():
        raise CheckpointError(
            f"judge.checkpoint = {str(checkpoint)!r}: {ORM_FILE} is missing there; name the checkpoint folder of a "
            "trained ORM, such as outputs/<name>/<time>/orm/checkpoint"
        )
    how = read_json(checkpoint / ORM_FILE)
    section = config.judge.backbone if config.judge.backbone is not None else config.backbone
    return ORMJudge(
        _reader(section, str(checkpoint), config.trainer),
        binary=how["kind"] == "binary",
        see_answer=how["see_answer"],
        see_image=how["see_image"],
        max_new_tokens=config.judge.max_new_tokens,
    )


def _reader(section: Any, path: str | None, trainer: Trainer) -> Backbone:
    """A model that answers or judges: on the trainer's device, on a GPU in the fits' precision."""
    device = device_of(trainer)
    half = device.type != "cpu" and trainer.precision.startswith("bf16")
    settings = section if isinstance(section, Mapping) else vars(section)
    changes: dict[str, Any] = {} if path is None else {"path": path}
    if "dtype" in settings and settings["dtype"] is None:
        changes["dtype"] = "bfloat16" if half else "float32"
    return Recipe(section, changes).open().to(device)
