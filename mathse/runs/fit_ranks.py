"""The ranks of a fit in the identity of its stage, and a run that goes on with another number of ranks.

The sums of gradients are rounded differently for each number of ranks, so their number and their strategy are settings
of every stage with a fit. A model's answers do not depend on the rank, so stages that only sample and judge have no
such setting. A run goes on in its folder with any number of ranks: a finished fit keeps the ranks that made it, and its
stage keeps its identity; later stages have today's ranks. A fit that was killed goes on from its resume point, and its
stage records both numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mathse.runs.layout import CHECKPOINT, DONE, FIRST_FIT, RESUME_POINTS, SCRATCH, TRAIN_LOG, TRAINED

RANKS = ("trainer.devices", "trainer.strategy")  # in identities the devices are those of all machines
THEN = ", then "  # between the numbers of ranks of a fit that went on with another number

Progress = Literal["not begun", "lost", "resumable", "made"]


def is_same_but_for_ranks(changed: Mapping[str, Any]) -> bool:
    """Whether a stage's record differs from today's (``settings.differences``) in the ranks of its fit, and in nothing
    else."""
    return bool(changed) and changed.keys() <= set(RANKS)


def progress_of_fit(stage: Path, current: Mapping[str, Any]) -> Progress:
    """How far the fit of an unfinished stage came; lost: its steps so far, for want of a point that today's ranks go on
    from."""
    if (stage / CHECKPOINT).exists():
        return "made"
    if (stage / FIRST_FIT / CHECKPOINT).exists():  # of two fits
        return "resumable"
    fits = (stage, stage / FIRST_FIT)
    points = any(any((fit / SCRATCH).glob(pattern)) for fit in fits for pattern in RESUME_POINTS)
    if points and (current.get("trainer.strategy") != "deepspeed" or current.get("trainer.devices") == 1):
        return "resumable"
    return "lost" if any((fit / TRAIN_LOG).exists() for fit in fits) else "not begun"


def going_on(begun: Mapping[str, Any], current: Mapping[str, Any], stage: Path) -> dict[str, Any]:
    """The settings of an unfinished stage, of those that it was begun with and today's, which differ in ranks alone."""
    if not set(RANKS) & current.keys():
        return dict(begun)  # no fit: an earlier version recorded ranks for all stages
    progress = progress_of_fit(stage, current)
    if progress == "made":
        return dict(begun)
    if progress != "resumable":
        return dict(current)
    if all(str(begun.get(key)).split(THEN)[-1] == str(current[key]) for key in RANKS if key in current):
        return dict(begun)
    return {
        **current,
        **{key: f"{begun[key]}{THEN}{current[key]}" for key in RANKS if begun.get(key, current[key]) != current[key]},
    }


def what_changes(folder: Path, records: Mapping[str, Mapping[str, Any]], current: Mapping[str, Any]) -> str | None:
    """A sentence on the effect of other ranks than those of these stages; None where there is no effect.

    ``records``: settings by stage, of those whose ranks differ from ``current``.
    """
    if not records:
        return None
    today = _in_words(current)
    made_by: dict[str, list[str]] = {}  # ranks -> the stages whose fits they made
    parts = []
    for name, settings in records.items():
        stage = folder / name
        if (stage / DONE).exists():
            progress: Progress = "made" if (stage / TRAINED).exists() else "not begun"
        else:
            progress = progress_of_fit(stage, current)
        if progress == "made":
            made_by.setdefault(_in_words(settings), []).append(name)
        elif progress == "resumable":
            parts.append(f"the fit of {name}, begun by {_in_words(settings)}, goes on from its resume point")
        elif progress == "lost":
            parts.append(f"the fit of {name} begins anew: it has no resume point to go on from")
    stay = [f"the fits that {ranks} made stay ({', '.join(names)})" for ranks, names in made_by.items()]
    whole = "; ".join([*stay, *parts, "all else that is there stays, for answers and verdicts do not depend on ranks"])
    return f"{folder}: goes on with {today}: {whole}; fits from now on are made by {today}"


def _in_words(settings: Mapping[str, Any]) -> str:
    devices, strategy = (settings.get(key) for key in RANKS)
    return "1 rank" if devices == 1 else f"{devices} ranks ({strategy})"
