"""The settings that a stage depends on: by dotted key, the part that decides its contents, and where two sets differ.

A stage's identity hashes these, so each function here is part of a contract with the runs that lie on disks: whatever
is changed, the same settings must give the same slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from mathse.errors import DataError
from mathse.runs.class_names import with_recorded_names
from mathse.runs.store import to_json

STAGES_OF_FITS = ("distill", "round", "final")  # the sections of ``sft``

# Settings that came after runs had been made, each with the value that does what those runs did. With that value a
# setting is no part of what a stage depends on, so that a newer program goes on with older runs.
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

# The same of settings that the options of one class got later, by class: other classes had settings of these names.
LATER_OF_CLASS: dict[str, dict[str, Any]] = {
    "mathse.data.problems.JsonlData": {
        f"columns.{name}": None for name in ("id", "question", "images", "answer", "choices", "solution")
    },
}


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """``{"evolution.reflect.when": "last", ...}`` of nested mappings or dataclass objects, in their order.

    Tuples become lists, as JSON has them; an empty mapping is a value.
    """
    flat: dict[str, Any] = {}
    for key, value in (settings if isinstance(settings, Mapping) else asdict(settings)).items():
        if isinstance(value, Mapping) and value or is_dataclass(value):
            flat |= flatten(value, f"{prefix}{key}.") or {f"{prefix}{key}": {}}
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"evolution": {"reflect": {"when": "last"}}, ...}`` of settings by dotted key: what ``flatten`` takes apart.

    Raises DataError where a key is a setting and a section at once.
    """
    settings: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        section = settings
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise DataError(f"{key}: {part} is a setting there and a section too, which no run writes")
        section[name] = value
    return settings


def config_slice(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The settings at or below one of ``keys``, in alphabetical order, without those that ``LATER`` leaves out; classes
    by their recorded names. ``config``: dotted key -> value."""
    config = with_recorded_names(without_later_of_classes(config))
    chosen = (key for key in sorted(config) if any(key == k or key.startswith(f"{k}.") for k in keys))
    return {key: config[key] for key in chosen if not (key in LATER and config[key] == LATER[key])}


def without_later_of_classes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings without those of ``LATER_OF_CLASS`` that do what earlier runs did."""
    later = {
        f"{key.removesuffix('_target_')}{name}": value
        for key, target in config.items()
        if key.endswith("._target_")
        for name, value in LATER_OF_CLASS.get(str(target), {}).items()
    }
    return {key: value for key, value in config.items() if not (key in later and value == later[key])}


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Key -> (recorded value, current value), as JSON text, where they differ; a key that only one side has differs
    too."""
    recorded = {**{key: value for key, value in LATER.items() if key in current}, **recorded}
    changed = {}
    for key in sorted({*recorded, *current}):
        # compared as text, because 1 == True == 1.0 in Python
        old, new = (to_json(values[key]) if key in values else "not set" for values in (recorded, current))
        if old != new:
            changed[key] = (old, new)
    return changed
