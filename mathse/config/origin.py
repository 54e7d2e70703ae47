"""Where a checkpoint comes from: the settings that the run had that made it, which ``mathse evaluate`` begins with.

A run folder may come from anybody, and its settings name classes: only options of MathSE and classes that the user
trusts are taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.config.parse import recorded
from mathse.config.schema import OPTIONS
from mathse.config.trust import TRUST, is_trusted
from mathse.errors import ConfigError, DataError
from mathse.runs.class_names import with_current_names
from mathse.runs.layout import DONE, EXPORTS, ORM_FILE, ORM_STAGES, OWN_SETTINGS, RUN
from mathse.runs.reader import find_run_above, is_stage, read_head, read_stage
from mathse.runs.settings import nest
from mathse.runs.store import read_json


@dataclass(frozen=True)
class Origin:
    """``file``: where the settings are recorded; ``settings``: nested as in run.json, the classes where they are today;
    other files than that lack sections."""

    file: Path
    settings: Mapping[str, Any]
    of_the_orm: bool

    @property
    def backbone(self) -> Mapping[str, Any] | None:
        """The section of the backbone that opens the checkpoint."""
        orm = self.settings.get("orm")
        own = orm.get("backbone") if self.of_the_orm and isinstance(orm, Mapping) else None
        backbone: Mapping[str, Any] | None = own or self.settings.get("backbone")
        return backbone

    def section(self, group: str, values: Any) -> Any:
        """The section of ``group``'s option that the file records as ``values``: a settings object, or a mapping where
        the class is not ours.

        Raises ConfigError for what no run records, and for a class that is neither an option of MathSE nor trusted.
        """
        target = values.get("_target_") if isinstance(values, Mapping) else None
        if not isinstance(target, str):
            raise ConfigError(f"{self.file}: {group} must be a section with a _target_, as a run writes it")
        if target not in {schema._target_ for schema in OPTIONS[group]} and not is_trusted(target):
            raise ConfigError(
                f"{self.file}: {group}._target_ = {target!r} is no option of MathSE's, and code that a run names is "
                f"not run unasked; if you trust it, set {TRUST}={target}, or choose another with {group}=NAME"
            )
        try:
            return recorded(group, values)
        except ConfigError as e:
            raise ConfigError("\n".join(f"{self.file}: {sentence}" for sentence in str(e).splitlines())) from None


def origin_of(checkpoint: Path) -> Origin | None:
    """The settings that made a checkpoint: by the run that its stage lies in, or by the stage that was copied out of
    its run, or by its own file (models that were exported, or written by ``mathse tiny``); None of any other folder.

    Raises DataError or RunError where such a file is damaged.
    """
    folder = checkpoint.resolve()
    is_orm = (folder / ORM_FILE).is_file()
    stage = read_stage(folder.parent) if is_stage(folder.parent) else None
    run = find_run_above(folder)
    own_file = folder / OWN_SETTINGS
    in_exports = run is not None and folder.is_relative_to(run / EXPORTS)
    if stage is None and not in_exports and own_file.is_file():
        values = read_json(own_file)
        if not isinstance(values, dict):
            raise DataError(f"{own_file}: must be an object of settings, as MathSE writes it; remove it or put it back")
        return Origin(own_file, with_current_names(values), is_orm)
    of_the_orm = is_orm or (stage is not None and stage.name in ORM_STAGES)
    if run is not None:
        return Origin(run / RUN, read_head(run)["config"], of_the_orm)
    if stage is not None:
        return Origin(stage.folder / DONE, with_current_names(nest(stage.settings)), of_the_orm)
    return None
