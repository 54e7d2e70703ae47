"""Find the settings of the run that made a checkpoint: the defaults of ``mathse evaluate``.

A run folder may come from a stranger, and its settings name classes. Only options of MathSE and classes that the user
trusts are taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.config.parse import parse_recorded
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
    """The recorded settings of a checkpoint.

    ``file``: the file with the settings. ``settings``: nested as in run.json, with current class names; only run.json
    has all sections. ``is_orm``: the checkpoint is an ORM, not a student.
    """

    file: Path
    settings: Mapping[str, Any]
    is_orm: bool

    @property
    def backbone(self) -> Mapping[str, Any] | None:
        """The section of the backbone that opens the checkpoint. An ORM may have its own backbone."""
        orm = self.settings.get("orm")
        own = orm.get("backbone") if self.is_orm and isinstance(orm, Mapping) else None
        backbone: Mapping[str, Any] | None = own or self.settings.get("backbone")
        return backbone

    def section(self, group: str, values: Any) -> Any:
        """Return a recorded section as a settings object, or as a mapping if it is a class of the user.

        Args:
            group: the group that the section is an option of.
            values: the section in the file.

        Raises ConfigError for a section that no run records, and for a class that is neither an option of MathSE nor
        trusted.
        """
        target = values.get("_target_") if isinstance(values, Mapping) else None
        if not isinstance(target, str):
            raise ConfigError(f"{self.file}: {group} must be a section with a _target_, as a run writes it")
        if target not in {schema._target_ for schema in OPTIONS[group]} and not is_trusted(target):
            raise ConfigError(
                f"{self.file}: {group}._target_ = {target!r} is not an option of MathSE, and the classes that a run "
                f"names are not run without your consent; if you trust it, set {TRUST}={target}, or choose another "
                f"option with {group}=NAME"
            )
        try:
            return parse_recorded(group, values)
        except ConfigError as e:
            raise ConfigError("\n".join(f"{self.file}: {sentence}" for sentence in str(e).splitlines())) from None


def find_origin(checkpoint: Path) -> Origin | None:
    """Find the settings that made a checkpoint. None: the folder has no recorded settings.

    The settings are in the run around the checkpoint, in its stage if the stage was copied out of its run, or in a file
    of the checkpoint itself (exported models, and models of ``mathse tiny``).

    Raises DataError or RunError if such a file is damaged.
    """
    folder = checkpoint.resolve()
    has_orm_file = (folder / ORM_FILE).is_file()
    stage = read_stage(folder.parent) if is_stage(folder.parent) else None
    run = find_run_above(folder)
    own_file = folder / OWN_SETTINGS
    in_exports = run is not None and folder.is_relative_to(run / EXPORTS)
    if stage is None and not in_exports and own_file.is_file():
        values = read_json(own_file)
        if not isinstance(values, dict):
            raise DataError(f"{own_file}: must be an object of settings, as MathSE writes it; remove it or put it back")
        return Origin(own_file, with_current_names(values), has_orm_file)
    is_orm = has_orm_file or (stage is not None and stage.name in ORM_STAGES)
    if run is not None:
        return Origin(run / RUN, read_head(run)["config"], is_orm)
    if stage is not None:
        return Origin(stage.folder / DONE, with_current_names(nest(stage.settings)), is_orm)
    return None
