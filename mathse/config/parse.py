"""A composed config becomes typed objects, or one error that names every mistake in it. Loads no torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mathse.config.judges import add_target
from mathse.config.mistakes import Notes, Place, correct_value, find_place, note_mistakes
from mathse.config.options import list_groups
from mathse.config.rules import RULES, Rule
from mathse.config.rules.unused import UNREAD, settings_that_change_nothing
from mathse.config.schema import OPTIONS, EvaluateConfig, TrainConfig
from mathse.config.sections import Reading, complete, find_schema, list_key_paths
from mathse.config.trust import TRUST, forbid_foreign_classes, is_an_option, is_trusted, locate
from mathse.errors import ConfigError, DataError
from mathse.runs.class_names import MOVED, with_current_names
from mathse.runs.settings import flatten

Config = TypeVar("Config")


def parse(
    cfg: DictConfig,
    schema: type[Config] = TrainConfig,  # type: ignore[assignment]
    but: Container[Rule] = (),
    given: Collection[str] = (),
) -> Config:
    """``cfg`` as a ``schema`` object; what it leaves out takes the schema's default.

    Known ``_target_`` sections become their dataclass, sections of other classes stay dicts. Raises ConfigError with a
    sentence for each unknown key, wrong type, value out of range and broken rule: key path, value, what is allowed.
    The rules in ``but`` are not asked for. ``given``: the key paths that the command line sets; each that would change
    nothing has a sentence too.
    """
    with forbid_foreign_classes() if OmegaConf.select(cfg, "plan") is True else nullcontext():
        config, notes = read(cfg, schema)
    rules = [rule for rule in RULES.get(schema, ()) if rule not in but]
    broken = [sentence for rule in rules for sentence in rule(config)]
    if isinstance(config, EvaluateConfig):
        broken += settings_that_change_nothing(config, given)
    # "chekpoint" is one mistake, not also a checkpoint that is missing; a class that cannot be imported is one mistake,
    # not also a wrong name in its section
    unread = tuple(path.removesuffix("_target_") for path in notes.problems if path.endswith("._target_"))
    keys = [sentence.partition(" = ")[0] for sentence in broken]
    consequences = [key in notes.meant or key.startswith(unread) for key in keys]
    problems = [*notes.problems.values(), *(s for s, known in zip(broken, consequences, strict=True) if not known)]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def read(cfg: DictConfig, schema: type[Config]) -> tuple[Config, Notes]:
    """``parse`` without the rules between settings: the object, and the mistakes in single values. Defaults take the
    place of these, so that rules can be asked about all else."""
    values = OmegaConf.to_container(cfg, resolve=False)
    if not isinstance(values, dict):
        raise ConfigError(f"the config must be a mapping, got {type(values).__name__}")
    values = with_current_names(values)
    if schema is TrainConfig:
        values["judge"] = add_target(values.get("judge", {"name": "orm"}))
    values.pop("hydra", None)  # Hydra's own node, where the caller composed with it
    take, start, notes = _reader(schema), Place(schema), Notes()
    full = complete(schema, values)
    resolved = _resolved(full, notes.problems)
    config, errors = _validated(take, resolved, start)
    if errors:
        known = [path for path in list_key_paths(schema) if not (schema is EvaluateConfig and path in UNREAD)]
        notes = replace(notes, known=(*known, *list_groups()))
        note_mistakes(errors, resolved, start, notes)
    while errors or config is None:  # once more, for defaults that point at other settings
        for error in errors:
            _, at = find_place(start, resolved, error["loc"])
            _remove(values, error["loc"][: at.depth])
        resolved = _resolved(complete(schema, values), {})
        config, errors = _validated(take, resolved, start)
    # a wrong ``seed`` is one mistake, not another one at each ``${seed}``
    sources = {path: re.fullmatch(r"\$\{([\w.]+)\}", str(value)) for path, value in flatten(full).items()}
    echoes = {path for path in notes.problems if (source := sources.get(path)) and source[1] in notes.problems}
    return config, replace(notes, problems={k: v for k, v in notes.problems.items() if k not in echoes})


def make_settings(schema: type[Config], path: str, values: Mapping[str, Any]) -> Config:
    """A settings object that is made in Python, of the section ``path``. Raises ConfigError as ``parse`` does."""
    try:
        return schema(**values)
    except ValidationError as e:
        notes = Notes(known=tuple(f"{path}.{name}" for name in list_key_paths(schema)))
        note_mistakes(e.errors(include_url=False), dict(values), Place(schema, path), notes)
        raise ConfigError("\n".join(notes.problems.values())) from None


def _reader(schema: Any) -> Callable[[Any], Any]:
    return partial(schema.__pydantic_validator__.validate_python, context=Reading())


def _validated(take: Callable[[Any], Any], values: Any, start: Place) -> tuple[Any, list[ErrorDetails]]:
    """(the settings object, no errors), or (None, pydantic's errors); ``values`` are changed where one is forgiven."""
    while True:
        try:
            return take(values), []
        except ValidationError as e:
            errors = e.errors(include_url=False)
        forgiven = [correct_value(error, values, start) for error in errors]
        if not any(forgiven):
            return None, errors


def build(section: Any, **runtime: Any) -> Any:
    """Calls the class (or function) that an option's ``_target_`` names.

    Args:
        section: a settings object, which the class takes whole (an option that has no settings is called without), or
            a mapping, as the section of a user's own class is: each setting is then an argument.
        runtime: further arguments, which only a run has.
    Raises ConfigError if the class cannot be imported, does not take what it is given, or makes nothing.
    """
    of_own = isinstance(section, Mapping)
    target = section["_target_"] if of_own else section._target_
    target = MOVED.get(target, target)
    group = next((group for group, schemas in OPTIONS.items() if type(section) in schemas), None)
    try:
        call = locate(target, group)
    except ConfigError as e:
        raise ConfigError(f"_target_ = {target!r}: {e}") from e
    if of_own:
        arguments = {key: value for key, value in section.items() if key != "_target_"} | runtime
        try:
            inspect.signature(call).bind(**arguments)
        except (TypeError, ValueError) as e:
            raise ConfigError(f"_target_ = {target!r}: cannot be called with {', '.join(arguments)}: {e}") from e
        if (made := call(**arguments)) is None:
            raise ConfigError(f"_target_ = {target!r}: returned None; it must return the object that a run uses")
        return made
    return call(section, **runtime) if len(fields(section)) > 1 else call(**runtime)


def replace_values(section: Any, **values: Any) -> Any:
    """An option's section, a settings object or a mapping, with other values in it."""
    return {**section, **values} if isinstance(section, Mapping) else replace(section, **values)


def parse_recorded(group: str, values: Any) -> Any:
    """The section of ``group``'s option as a run recorded it, to be built again: a settings object, in which settings
    that came later have their defaults; a mapping where the class is not ours.

    A run folder may come from anybody. Raises DataError where the section, at any depth, names a class that is neither
    an option of the group nor listed in ``MATHSE_TRUST``, or names none; ConfigError with a sentence for each setting
    that there is no longer.
    """
    if not isinstance(values, Mapping) or "_target_" not in values:
        raise DataError(f"run.json: {group} must be a section with a _target_, as a run writes it; put the file back")
    values = with_current_names(values)
    for target in _targets(values):
        if not is_an_option(target, group) and not is_trusted(target):
            raise DataError(
                f"run.json: {group}._target_ = {target!r} is no {group} option of MathSE's, and reading a run runs no "
                f"code that the run names; if you trust it, set {TRUST}={target}"
            )
    start = Place(find_schema(group, values), group, group)
    section, errors = _validated(partial(Reading().option, group), values, start)
    if errors:
        notes = Notes()
        note_mistakes(errors, values, start, notes)
        raise ConfigError("\n".join(notes.problems.values()))
    return section


def _targets(section: Any) -> Iterator[str]:
    """Every ``_target_`` in a section, at any depth."""
    if isinstance(section, Mapping):
        if "_target_" in section:
            yield str(section["_target_"])
        for value in section.values():
            yield from _targets(value)
    elif isinstance(section, list):
        for value in section:
            yield from _targets(value)


def _resolved(values: dict[str, Any], problems: dict[str, str]) -> dict[str, Any]:
    """``${...}`` replaced by what it points at. What points at nothing is left out and added to ``problems``."""
    node = OmegaConf.create(values)
    while True:
        try:
            return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]
        except OmegaConfBaseException as e:
            path = str(e.full_key or "").partition("[")[0]
            reason = re.sub(r"\s+", " ", str(e).partition("\n")[0])
            sentence = f"{path or 'config'}: {reason}; write '\\${{...}}' for a plain dollar sign"
            section, _, name = path.rpartition(".")
            holder = OmegaConf.select(node, section) if section else node
            if not isinstance(holder, DictConfig) or name not in holder.keys():  # noqa: SIM118  ("in holder" resolves)
                raise ConfigError(sentence) from e
            problems[path] = sentence
            del holder[name]


def _remove(values: Any, loc: Sequence[int | str]) -> None:
    """Takes the setting at an error's location out of ``values``, where it is there."""
    for key in loc[:-1]:
        if not isinstance(values, dict) or key not in values:
            return
        values = values[key]
    if isinstance(values, dict):
        values.pop(loc[-1], None)
