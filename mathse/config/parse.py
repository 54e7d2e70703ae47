"""Turn a composed config into typed objects, or report all mistakes in one error. Loads no torch.

A setting has four forms on its way: text of the command line, a value in the config that Hydra composes (with
interpolations), a resolved plain value, and a field of a settings object, which every later step reads.
"""

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
    """Turn ``cfg`` into a settings object of the class ``schema``. A missing setting has its default.

    The section of an option of MathSE becomes an object of its settings class. The section of a user's class stays a
    dict.

    Args:
        cfg: the composed config.
        schema: TrainConfig or EvaluateConfig.
        but: rules that are not checked.
        given: key paths that the command line sets. A setting of ``mathse evaluate`` that would change nothing is a
            mistake.

    Raises ConfigError with a sentence for each unknown key, wrong type, value out of range and broken rule.
    """
    with forbid_foreign_classes() if OmegaConf.select(cfg, "plan") is True else nullcontext():
        config, notes = read(cfg, schema)
    rules = [rule for rule in RULES.get(schema, ()) if rule not in but]
    broken = [sentence for rule in rules for sentence in rule(config)]
    if isinstance(config, EvaluateConfig):
        broken += settings_that_change_nothing(config, given)
    # A broken rule may be the consequence of another mistake. "chekpoint=DIR" is not also a missing checkpoint, and a
    # class that cannot be imported has no wrong names in its section.
    unread = tuple(path.removesuffix("_target_") for path in notes.problems if path.endswith("._target_"))
    problems = [*notes.problems.values()]
    for sentence in broken:
        key = sentence.partition(" = ")[0]
        if key not in notes.meant and not key.startswith(unread):
            problems.append(sentence)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def read(cfg: DictConfig, schema: type[Config]) -> tuple[Config, Notes]:
    """Read a config without the rules between settings.

    Returns the settings object and the mistakes in single values. Wrong values are replaced by defaults, so that the
    rules can check all other settings.
    """
    values = OmegaConf.to_container(cfg, resolve=False)
    if not isinstance(values, dict):
        raise ConfigError(f"the config must be a mapping, got {type(values).__name__}")
    values = with_current_names(values)
    if schema is TrainConfig:
        values["judge"] = add_target(values.get("judge", {"name": "orm"}))
    values.pop("hydra", None)  # Hydra's own node, if the caller composed with it
    validator: Any = schema
    take = partial(validator.__pydantic_validator__.validate_python, context=Reading())
    start, notes = Place(schema), Notes()

    full = complete(schema, values)
    resolved = _resolve(full, notes.problems)
    config, errors = _validate(take, resolved, start)
    if errors:
        known = [path for path in list_key_paths(schema) if not (schema is EvaluateConfig and path in UNREAD)]
        notes = replace(notes, known=(*known, *list_groups()))
        note_mistakes(errors, resolved, start, notes)
    # Read again without the wrong values, as often as a default follows another setting that is wrong.
    while errors or config is None:
        for error in errors:
            _, at = find_place(start, resolved, error["loc"])
            _remove(values, error["loc"][: at.depth])
        resolved = _resolve(complete(schema, values), {})
        config, errors = _validate(take, resolved, start)

    # A wrong ``seed`` is one mistake. Each ``${seed}`` has the same wrong value and is left out.
    flat = flatten(full)
    problems: dict[str, str] = {}
    for path, sentence in notes.problems.items():
        source = re.fullmatch(r"\$\{([\w.]+)\}", str(flat.get(path)))
        if source is None or source[1] not in notes.problems:
            problems[path] = sentence
    return config, replace(notes, problems=problems)


def make_settings(schema: type[Config], path: str, values: Mapping[str, Any]) -> Config:
    """Make a settings object in Python, with the errors of ``parse``.

    Args:
        schema: the settings class.
        path: key path of the section, for the sentences of the ConfigError.
        values: its settings.
    """
    try:
        return schema(**values)
    except ValidationError as e:
        notes = Notes(known=tuple(f"{path}.{name}" for name in list_key_paths(schema)))
        note_mistakes(e.errors(include_url=False), dict(values), Place(schema, path), notes)
        raise ConfigError("\n".join(notes.problems.values())) from None


def _validate(take: Callable[[Any], Any], values: Any, start: Place) -> tuple[Any, list[ErrorDetails]]:
    """Return (settings object, no errors) or (None, pydantic's errors). Obvious values are corrected in ``values``."""
    while True:
        try:
            return take(values), []
        except ValidationError as e:
            errors = e.errors(include_url=False)
        is_corrected = [correct_value(error, values, start) for error in errors]
        if not any(is_corrected):
            return None, errors


def build(section: Any, **runtime: Any) -> Any:
    """Call the class or function in an option's ``_target_`` and return its object.

    Args:
        section: a settings object, which the class takes as its first argument unless the option has no settings. Or a
            mapping, the section of a user's class: each setting is an argument.
        runtime: further arguments, which only a run has.

    Raises ConfigError if the class cannot be imported, does not accept the arguments, or returns None.
    """
    is_own = isinstance(section, Mapping)
    target = section["_target_"] if is_own else section._target_
    target = MOVED.get(target, target)
    group = next((group for group, schemas in OPTIONS.items() if type(section) in schemas), None)
    try:
        call = locate(target, group)
    except ConfigError as e:
        raise ConfigError(f"_target_ = {target!r}: {e}") from e
    if is_own:
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
    """Return a section, a settings object or a mapping, with other values."""
    return {**section, **values} if isinstance(section, Mapping) else replace(section, **values)


def parse_recorded(group: str, values: Any) -> Any:
    """Parse a section that a run recorded, so that its object can be built again.

    Args:
        group: the group that the section is an option of.
        values: the recorded section.

    Returns:
        A settings object, in which newer settings have their defaults; or a mapping for a class of the user.

    A run folder may come from a stranger. Raises DataError if the section has no class, or at any depth a class that is
    neither an option of the group nor listed in ``MATHSE_TRUST``; ConfigError with a sentence for each setting that no
    longer exists.
    """
    if not isinstance(values, Mapping) or "_target_" not in values:
        raise DataError(f"run.json: {group} must be a section with a _target_, as a run writes it; put the file back")
    values = with_current_names(values)
    for target in _find_targets(values):
        if not is_an_option(target, group) and not is_trusted(target):
            raise DataError(
                f"run.json: {group}._target_ = {target!r} is not a {group} option of MathSE, and reading a run runs no "
                f"code that the run names; if you trust it, set {TRUST}={target}"
            )
    start = Place(find_schema(group, values), group, group)
    section, errors = _validate(partial(Reading().option, group), values, start)
    if errors:
        notes = Notes()
        note_mistakes(errors, values, start, notes)
        raise ConfigError("\n".join(notes.problems.values()))
    return section


def _find_targets(section: Any) -> Iterator[str]:
    """Yield every ``_target_`` in a section, at any depth."""
    if isinstance(section, Mapping):
        if "_target_" in section:
            yield str(section["_target_"])
        for value in section.values():
            yield from _find_targets(value)
    elif isinstance(section, list):
        for value in section:
            yield from _find_targets(value)


def _resolve(values: dict[str, Any], problems: dict[str, str]) -> dict[str, Any]:
    """Replace each ``${...}`` by its value. An interpolation without a value is removed and added to ``problems``."""
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
    """Remove the setting at an error's location from ``values``, if it is there."""
    for key in loc[:-1]:
        if not isinstance(values, dict) or key not in values:
            return
        values = values[key]
    if isinstance(values, dict):
        values.pop(loc[-1], None)
