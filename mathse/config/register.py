"""What Hydra must know before it composes a config: the schemas' defaults, and the resolvers that conf/ uses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mathse.config.field_words import same_but_spelling
from mathse.config.options import groups
from mathse.config.program import program
from mathse.config.schema import OPTIONS, PROGRAMS
from mathse.config.sections import defaults
from mathse.config.setting import Option, option_of_field, settings_of
from mathse.config.sweeps import job_folder
from mathse.errors import ConfigError


@cache
def register() -> None:
    """Tells Hydra the schemas' defaults, once a process.

    The defaults go in as plain values: a typed node would make Hydra stop at the first value of a wrong type, whereas
    ``mathse.config.parse`` reports all of them together.
    """
    store = ConfigStore.instance()
    for schema in PROGRAMS:
        groups_left_empty = {n: None for n, f in settings_of(schema).items() if isinstance(option_of_field(f), Option)}
        store.store(name=schema.__name__, node=defaults(schema) | groups_left_empty)
    for group, schemas in OPTIONS.items():
        for schema in schemas:
            store.store(group=group, name=schema.__name__, node=defaults(schema))


def run_dir(resume: str | None, name: str, time: str) -> str:
    """Where a run lives: a new folder, or with ``resume=last`` the newest unfinished one of that name.

    Raises ConfigError if there is none to go on with.
    """
    root = Path("outputs")
    if resume != "last":
        return str(root / str(name) / time)
    from mathse.runs.stage_cache import find_newest_unfinished

    if (folder := find_newest_unfinished(root, str(name))) is None:
        raise ConfigError(
            f"resume = 'last': no unfinished run under {root / str(name)}; leave resume out to start one, "
            "or name the run's folder with hydra.run.dir=DIR"
        )
    return str(folder)


def _options_page(*only: str) -> str:
    """For --help: a line a group."""
    shown = [(group, names) for group, names in groups().items() if not only or group in only]
    width = max((len(group) for group, _ in shown), default=0) + 2
    return "\n".join(f"  {group + ':':<{width}}{', '.join(names)}" for group, names in shown)


def by_method(method: Any, values: Mapping[str, Any]) -> Any:
    """The value for a fit's method, however it is spelt: conf/sft has a learning rate for each. A method that does not
    exist takes the full fit's, so that only the method is complained of."""
    return values[same_but_spelling(str(method), [*values]) or "full"]


# When this is imported, not when a program starts: a worker of joblib or SLURM imports it with the job that it is
# handed, and composes the job's config before that job runs.
OmegaConf.register_new_resolver("mathse.run_dir", run_dir, replace=True, use_cache=True)
OmegaConf.register_new_resolver("mathse.by_method", by_method, replace=True)
OmegaConf.register_new_resolver("mathse.job_folder", job_folder, replace=True)
OmegaConf.register_new_resolver("mathse.program", program, replace=True)
OmegaConf.register_new_resolver("mathse.options", _options_page, replace=True)
