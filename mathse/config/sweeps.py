"""Sweeps (``-m``): where each job lives, and which sweeps are refused. Loads no torch.

A job's folder is named by its overrides, so the same command finds the jobs that are done, whatever was killed, and a
sweep with one more value makes only what is new. Optuna (``hydra/sweeper=tpe``) goes on the same way: its sampler draws
from a seed, so it asks for the same trials again, and those that are done return the number in their summary.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from mathse.config.extras import EXTRAS, explain_missing
from mathse.config.schema import EvaluateConfig

NO_PART_OF_A_NAME = ("sweep", "name", "progress", "resume", "resume_from")  # they change no job, or name the sweep
LONGEST = 205  # characters of a folder's name before its hash
SHORTEST = 6  # characters that at least stay of an override in a name that is too long
HASH = 8  # characters of it, after a "-"

EXTRA_OF = {"joblib": "joblib", "optuna": "optuna"}
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def name_job_folder(overrides: Sequence[str]) -> str:
    """``["sft.optimizer.lr=1e-3", "seed=2"]`` -> ``"sft.optimizer.lr=1e-3,seed=2"``: in their order, one path segment.

    What a name cannot hold is replaced, and a hash of the whole is added then. Of a name that is too long the longest
    overrides are cut, at their beginnings: what differs between jobs is as a rule a short value, and stays readable.
    """
    naming = [text for text in overrides if text.lstrip("+~").partition("=")[0] not in NO_PART_OF_A_NAME]
    whole = ",".join(naming) or "defaults"
    parts = [re.sub(r"[^\w.=,+~@\[\]-]+", "_", text) for text in naming or [whole]]
    longest = max(map(len, parts))
    while len(name := ",".join(_cut(part, longest) for part in parts)) > LONGEST and longest > SHORTEST:
        longest -= 1
    return name if name == whole else f"{name[-LONGEST:].lstrip('.,')}-{sha256(whole.encode()).hexdigest()[:HASH]}"


def _cut(part: str, longest: int) -> str:
    """``sft.optimizer.lr=1e-3`` -> ``lr=1e-3`` -> ``_1e-3``, as far as it must be. No dot in front: it would hide the
    folder."""
    if len(part) <= longest:
        return part
    key, equals, value = part.partition("=")
    short = f"{key.rpartition('.')[2]}{equals}{value}"
    return short if len(short) <= longest else f"_{part[-(longest - 1) :]}"


def explain_missing_plugin(error: RuntimeError) -> str | None:
    """What to install, where Hydra knows no class for a sweeper or launcher; None for any other error."""
    if "Unknown plugin class" not in str(error):
        return None
    extra = next((extra for extra in set(EXTRA_OF.values()) if EXTRAS[extra].module in str(error)), None)
    return None if extra is None else f"hydra: {explain_missing(extra)}"


def explain_missing_option(group: str, option: str) -> str | None:
    """The same for ``hydra/launcher=joblib``, an option that comes with its plugin; None where it is installed."""
    extra = EXTRA_OF.get(option)
    return None if extra is None or (sentence := explain_missing(extra)) is None else f"{group}={option}: {sentence}"


def chooses_settings(sweeper: Any) -> bool:
    """Whether a sweeper (the node ``hydra.sweeper``) chooses settings by the jobs' numbers, or is given all jobs."""
    return bool(sweeper["_target_"] != BASIC)


def refuse_choice(config: Any, sweeper: Any) -> Iterator[str]:
    """Why a sweeper that chooses must not or cannot do so by the number of a job with this ``config``."""
    if "minimize" in str(sweeper.get("direction", "maximize")):
        yield "hydra.sweeper.direction = minimize: the number is an accuracy; hydra/sweeper=tpe maximizes it"
    if isinstance(config, EvaluateConfig):
        yield "hydra/sweeper: evaluate.py scores test problems, which must not choose a setting; sweep train.py instead"
    elif config.task == "distill":
        yield "task = 'distill': has no number for a sweeper to choose by"
    elif config.task == "orm":
        yield (
            "task = 'orm': its number is of the held-out paths that its figures are reported on, which must not choose "
            "a setting; give every value a job of its own, without hydra/sweeper"
        )
    else:
        empty = (key for key in ("dev", "dev_share") if getattr(config.data, key, None) == 0)
        yield from (f"data.{key} = 0: the dev problems choose among a sweeper's settings; leave some" for key in empty)
