"""The ranks of a training in the identity of its stage, and runs that continue with another number of ranks.

Sums of gradients are rounded differently for each number of ranks, so number and strategy are settings of every stage
with a training. A model's answers do not depend on the rank, so stages that only sample and judge have no such setting.

A run folder continues with any number of ranks. A finished training keeps the ranks that made it, and its stage keeps
its identity. Later stages have the current ranks. A killed training continues from its resume point, and its stage
records both numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mathse.runs.layout import CHECKPOINT, DONE, FIRST_FIT, RESUME_POINTS, SCRATCH, TRAIN_LOG, TRAINED

RANKS = ("trainer.devices", "trainer.strategy")  # in identities, devices are the devices of all machines
THEN = ", then "  # between the ranks of a training that continued with other ranks

Progress = Literal["not begun", "lost", "resumable", "made"]


def is_same_but_for_ranks(changed: Mapping[str, Any]) -> bool:
    """Whether a stage's record differs from the current settings (``settings.find_differences``) only in its ranks."""
    return bool(changed) and changed.keys() <= set(RANKS)


def find_progress(stage: Path, current: Mapping[str, Any]) -> Progress:
    """Return the progress of an unfinished stage's training.

    "lost": it has made steps, but has no resume point that the current ranks can read.
    """
    if (stage / CHECKPOINT).exists():
        return "made"
    if (stage / FIRST_FIT / CHECKPOINT).exists():  # the first of two trainings is finished
        return "resumable"
    folders = (stage, stage / FIRST_FIT)
    reads_points = current.get("trainer.strategy") != "deepspeed" or current.get("trainer.devices") == 1
    if reads_points and any(_has_resume_point(folder) for folder in folders):
        return "resumable"
    return "lost" if any((folder / TRAIN_LOG).exists() for folder in folders) else "not begun"


def _has_resume_point(folder: Path) -> bool:
    return any(any((folder / SCRATCH).glob(pattern)) for pattern in RESUME_POINTS)


def choose_settings(begun: Mapping[str, Any], current: Mapping[str, Any], stage: Path) -> dict[str, Any]:
    """Return the settings of an unfinished stage that was begun with other ranks.

    Args:
        begun: its recorded settings.
        current: its settings today, which differ from ``begun`` only in ranks.
        stage: its folder.
    """
    if not set(RANKS) & current.keys():
        return dict(begun)  # a stage without training; an earlier version recorded ranks for all stages
    progress = find_progress(stage, current)
    if progress == "made":
        return dict(begun)
    if progress != "resumable":
        return dict(current)
    if all(str(begun.get(key)).split(THEN)[-1] == str(current[key]) for key in RANKS if key in current):
        return dict(begun)

    # The training continues with other ranks: "8, then 4".
    settings = dict(current)
    for key in RANKS:
        if begun.get(key, current[key]) != current[key]:
            settings[key] = f"{begun[key]}{THEN}{current[key]}"
    return settings


def describe_change(folder: Path, records: Mapping[str, Mapping[str, Any]], current: Mapping[str, Any]) -> str | None:
    """Return a sentence on the effect of a change of ranks; None without an effect.

    Args:
        folder: the run folder.
        records: settings by stage, of the stages with other ranks than ``current``.
    """
    if not records:
        return None
    today = _name_ranks(current)
    made_by: dict[str, list[str]] = {}  # ranks -> names of the stages with a training by them
    parts = []
    for name, settings in records.items():
        stage = folder / name
        if (stage / DONE).exists():
            progress: Progress = "made" if (stage / TRAINED).exists() else "not begun"
        else:
            progress = find_progress(stage, current)
        if progress == "made":
            made_by.setdefault(_name_ranks(settings), []).append(name)
        elif progress == "resumable":
            parts.append(f"the training of {name} by {_name_ranks(settings)} continues from its resume point")
        elif progress == "lost":
            parts.append(f"the training of {name} starts again: it has no resume point to continue from")
    kept = [f"trainings by {ranks} stay ({', '.join(names)})" for ranks, names in made_by.items()]
    rest = "all other files stay, because answers and verdicts do not depend on ranks"
    effects = "; ".join([*kept, *parts, rest])
    return f"{folder}: continues with {today}: {effects}; later trainings are made by {today}"


def _name_ranks(settings: Mapping[str, Any]) -> str:
    devices, strategy = (settings.get(key) for key in RANKS)
    return "1 rank" if devices == 1 else f"{devices} ranks ({strategy})"
