"""The settings that a stage depends on: by dotted key, the part for a stage, and the differences of two sets.

A stage's identity is a hash of its settings, so these functions are part of a contract with the runs on disks: after
any change of the code, equal settings must give equal slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from mathse.errors import DataError
from mathse.runs.class_names import with_recorded_names
from mathse.runs.store import to_json

STAGES_OF_FITS = ("distill", "round", "final")  # the sections of ``sft``

# Settings that are newer than some runs, each with the value that reproduces the earlier behaviour. A setting with this
# value is no part of a stage's identity, so that a newer program continues older runs.
LATER: dict[str, Any] = {
    "evolution.reflect.row": "question",
    "judge.parts": ["orm", "answer"],
    **{
        f"sft.{s}.{n}": None for s in ("distill", "round", "final") for n in ("epochs", "max_steps", "batch_size", "lr")
    },
    "evolution.round.draw": "uniform",
    "evolution.round.restarts": 0,
    "evolution.resample": "never",
    "sft.tower_features": False,
    "orm.fit.tower_features": False,
    "sft.freeze_layers": 0,
    "orm.fit.freeze_layers": 0,
    "sft.tokens_per_micro_batch": None,
    "orm.fit.tokens_per_micro_batch": None,
    "trainer.device_memory": None,
    "judge.explain": "all",
    "judge.engine": "hf",
    "data.max_left_out": 0.05,
    "orm.jitter": False,
    "orm.own_answer": False,
    "note": None,
    "lightning_callbacks": {},
    "trainer.sampling_dtype": None,
    "trainer.max_restarts": 3,
    "trainer.timeout_minutes": 10.0,
    "evolution.update": "sft",
    "evolution.dpo.beta": 0.1,
    "evolution.dpo.label_smoothing": 0.0,
    "evolution.dpo.nll_weight": 0.0,
    "evolution.dpo.lr_scale": 0.1,
    "evolution.dpo.epochs": 1.0,
    "evolution.dpo.pairs_per_problem": 4,
    "task_domain._target_": "mathse.data.domains.TaskDomain",
    "task_domain.name": "math",
    "task_domain.texts": "mathse.data.domains.math",
    "task_domain.step": ["Step", "步骤"],
    "task_domain.answer.form": "expression",
    "task_domain.answer.tolerance": 0.0,
    "task_domain.answer.unit": "optional",
}

# Newer settings of one class, by class, because other classes had settings with these names before.
LATER_OF_CLASS: dict[str, dict[str, Any]] = {
    "mathse.data.problems.JsonlData": {
        f"columns.{name}": None for name in ("id", "question", "images", "answer", "choices", "solution")
    },
}


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return ``{"evolution.reflect.when": "last", ...}`` for nested mappings or dataclass objects, in their order.

    Tuples become lists, as in JSON. An empty mapping is a value.
    """
    flat: dict[str, Any] = {}
    for key, value in (settings if isinstance(settings, Mapping) else asdict(settings)).items():
        if isinstance(value, Mapping) and value or is_dataclass(value):
            flat |= flatten(value, f"{prefix}{key}.") or {f"{prefix}{key}": {}}
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"evolution": {"reflect": {"when": "last"}}, ...}`` for settings by dotted key; inverts ``flatten``.

    Raises DataError if a key is both a setting and a section.
    """
    settings: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        section = settings
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise DataError(f"{key}: {part} is both a setting and a section, which no run writes")
        section[name] = value
    return settings


def config_slice(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return the settings at or below one of ``keys``, in alphabetical order and with classes by their recorded names.

    Settings with their value in ``LATER`` are left out.

    Args:
        config: dotted key -> value.
    """
    config = with_recorded_names(without_later_of_classes(config))
    selected = {}
    for key in sorted(config):
        is_selected = any(key == k or key.startswith(f"{k}.") for k in keys)
        if is_selected and not (key in LATER and config[key] == LATER[key]):
            selected[key] = config[key]
    return selected


def without_later_of_classes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat settings without the settings that have their value in ``LATER_OF_CLASS``."""
    later: dict[str, Any] = {}
    for key, target in config.items():
        if key.endswith("._target_"):
            section = key.removesuffix("_target_")
            for name, value in LATER_OF_CLASS.get(str(target), {}).items():
                later[f"{section}{name}"] = value
    return {key: value for key, value in config.items() if not (key in later and value == later[key])}


def find_differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return key -> (recorded value, current value) as JSON texts for each difference.

    A key on one side only is a difference, unless its value is that of ``LATER``.
    """
    recorded = {**{key: value for key, value in LATER.items() if key in current}, **recorded}
    changed = {}
    for key in sorted({*recorded, *current}):
        # Values are compared as text, because 1 == True == 1.0 in Python.
        old, new = (to_json(values[key]) if key in values else "not set" for values in (recorded, current))
        if old != new:
            changed[key] = (old, new)
    return changed
