"""The config that a command line is composed onto.

Of ``train`` that is conf/train.yaml. ``evaluate`` begins with what a checkpoint says of itself: its family, the limits
of its pictures and its answers, its task domain and the data of its run take the place of conf/evaluate.yaml's defaults
before the command line is read, so whatever the user sets goes over them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mathse.config.backbones import (
    HF,
    CausalLM,
    CogVLM2,
    InternVL3,
    InternVL25,
    Qwen2VL,
    Qwen3VL,
    Qwen25VL,
    TinyBackbone,
)
from mathse.config.generators import HFGenerator
from mathse.config.options import CONF, available, groups, option_of
from mathse.config.origin import Origin, origin_of
from mathse.config.rules.models import TINY_VOCABULARY, vocabulary_of
from mathse.config.schema import OPTIONS, PROGRAMS, EvaluateConfig
from mathse.config.sections import plain
from mathse.errors import ConfigError, DataError
from mathse.runs.store import read_json

LIMITS = ("batch_size", "max_new_tokens")
SAMPLING = ("temperature", "top_p", "top_k", "batch_size")
ASK_DATA = ("synthetic", "orm_test")  # benchmarks whose problems may be those of ``data``


def parsed(text: str) -> Override | None:
    """An override as Hydra reads it; None where it cannot be read, or names nothing."""
    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):  # a number of more digits than Python reads
        return None
    return override if override.key_or_group else None


def program_of(overrides: Sequence[str], schema: type) -> str:
    """The name of the config that ``overrides`` are composed onto; of a sweep over checkpoints, that of its first job.

    Raises ConfigError, DataError or RunError where a checkpoint's settings cannot be used.
    """
    program = PROGRAMS[schema]
    if schema is not EvaluateConfig:
        return program
    line = _Line.read(overrides)
    begin = _Beginning()
    if line.benchmark_is_of_own_class:
        begin.choices["benchmark"] = None  # the user's alone
    if (checkpoint := line.folder("checkpoint")) is not None:
        _begin_with_student(begin, line, checkpoint)
    if (orm := line.folder("judge.checkpoint")) is not None:
        _begin_with_orm(begin, line, orm)
    return begin.registered(program)


@dataclass
class _Beginning:
    """The replacements of conf/evaluate.yaml's defaults: options by group, and values on top of them."""

    choices: dict[str, str | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def backbone(self, section: Any, of_judge: bool) -> None:
        """The backbone of the student, or of the ORM that weighs its answers, whole."""
        target = section["_target_"] if isinstance(section, Mapping) else section._target_
        option = next((option_of(s) for s in OPTIONS["backbone"] if s._target_ == target), None)
        if of_judge:
            self.values.setdefault("judge", {})["backbone"] = plain(section)
            return
        self.choices |= {"backbone": None, "recipe/evaluate": option}
        self.values["backbone"] = plain(section)

    def is_student_s(self, section: Any) -> bool:
        """Whether the student's section is of the same family."""
        return bool(self.values.get("backbone", {}).get("_target_") == section._target_)

    def limits(self, section: str, recorded: Any, names: Sequence[str] = LIMITS) -> None:
        values = {name: recorded[name] for name in names if isinstance(recorded, Mapping) and name in recorded}
        if values:
            self.values.setdefault(section, {}).update(values)

    def registered(self, program: str) -> str:
        """Has Hydra know the config; its name. Equal beginnings have one name, since Hydra keeps what it has read."""
        if not self.choices and not self.values:
            return program
        config: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{program}.yaml"), resolve=False)
        config["defaults"].remove("_self_")
        defaults: list[Any] = []
        for entry in config["defaults"]:
            group = next(iter(entry)) if isinstance(entry, dict) else entry
            name = group.removeprefix("optional ")
            if group.startswith("override ") and "_self_" not in defaults:
                defaults.append("_self_")  # behind the groups: these values go over their options
            defaults.append({group: self.choices[name]} if name in self.choices else entry)
        config |= {"defaults": defaults, **self.values}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
        ConfigStore.instance().store(name=f"{program}_{digest}", node=config)
        return f"{program}_{digest}"


@dataclass(frozen=True)
class _Line:
    """The parts of a command line that change the defaults. ``chosen``: the groups of which it chooses an option, with
    their package; of a sweep, the first value of each."""

    values: Mapping[str, Any]
    chosen: Mapping[str, Any]
    benchmark_is_of_own_class: bool

    @classmethod
    def read(cls, overrides: Sequence[str]) -> _Line:
        values: dict[str, Any] = {}
        chosen: dict[str, Any] = {}
        own_class = False
        for text in overrides:
            if (override := parsed(text)) is None or override.is_hydra_override():
                continue
            key = override.key_or_group
            value = None if override.is_delete() else override.value()
            if override.is_sweep_override():
                first = next(override.sweep_string_iterator(), "") if override.is_discrete_sweep() else ""
                value = read.value() if (read := parsed(f"{key}={first}")) is not None else None
            if key in groups() or key in OPTIONS:
                chosen[key if override.package is None else f"{key}@{override.package}"] = value
            else:
                values[key] = value
                own_class |= key.startswith("benchmark.") and (override.is_add() or override.is_force_add())
        return cls(values, chosen, own_class and "benchmark" not in chosen)

    def folder(self, key: str) -> Path | None:
        """The model's folder that the setting names; the rules say what is wrong with any other value."""
        value = self.values.get(key)
        return Path(value) if isinstance(value, str) and Path(value, "config.json").is_file() else None

    def option(self, group: str) -> type | None:
        """The settings class of the option chosen of ``group``; None where none of ours is."""
        name = self.chosen.get(group)
        group = group.partition("@")[0]
        return next((s for s in OPTIONS[group] if name is not None and option_of(s) == name), None)

    @property
    def asks_data(self) -> bool:
        names = self.chosen.get("benchmark", "synthetic")
        return not self.benchmark_is_of_own_class and any(
            name in ASK_DATA for name in (names if isinstance(names, list) else [names])
        )


def _begin_with_student(begin: _Beginning, line: _Line, checkpoint: Path) -> None:
    origin = origin_of(checkpoint)
    _begin_with_backbone(begin, line, checkpoint, origin, "backbone")
    settings = {} if origin is None else origin.settings
    begin.limits("evaluation", settings.get("evaluation"))
    if origin is not None and origin.of_the_orm:
        begin.limits("judge", settings.get("judge"))
    generator = settings.get("generator")
    if isinstance(generator, Mapping) and ("generator" not in line.chosen or line.option("generator") is not None):
        chosen = line.option("generator") or HFGenerator
        of_both = chosen is HFGenerator and generator.get("_target_") == HFGenerator._target_
        begin.limits("generator", generator, SAMPLING if of_both else SAMPLING[:2])
    if line.asks_data:
        _begin_with_data(begin, line, checkpoint, origin)


def _begin_with_data(begin: _Beginning, line: _Line, checkpoint: Path, origin: Origin | None) -> None:
    """The problems that the run's students were measured on, and their domain."""
    settings = {} if origin is None else origin.settings
    if "data" not in line.chosen:
        if origin is not None and "data" in settings:
            begin.choices["data"] = None
            begin.values["data"] = plain(origin.section("data", settings["data"]))
        elif "benchmark" not in line.chosen and not _is_tiny(begin, line):
            raise ConfigError(
                f"checkpoint = {str(checkpoint)!r}: lies in no run folder, so nothing says which problems it was made "
                "for; pass benchmark=NAME, or data=NAME with its settings"
            )
    own_domain = line.chosen.get("data") in available("task_domain/of_data")
    if origin is not None and "task_domain" not in line.chosen and not own_domain:
        begin.choices["task_domain/of_data"] = None
        if settings.get("task_domain") is not None:  # runs of earlier versions were of mathematics
            begin.values["task_domain"] = plain(origin.section("task_domain", settings["task_domain"]))


def _is_tiny(begin: _Beginning, line: _Line) -> bool:
    """The tiny backbone knows the built-in task alone."""
    of_folder = begin.values.get("backbone", {}).get("_target_") == TinyBackbone._target_
    return of_folder or line.option("backbone") is TinyBackbone


def _begin_with_orm(begin: _Beginning, line: _Line, checkpoint: Path) -> None:
    origin = origin_of(checkpoint)
    _begin_with_backbone(begin, line, checkpoint, origin, "backbone@judge.backbone")
    if origin is not None:
        begin.limits("judge", origin.settings.get("judge"))


def _begin_with_backbone(begin: _Beginning, line: _Line, checkpoint: Path, origin: Origin | None, group: str) -> None:
    """The section that opens the checkpoint: as its run recorded it, else of the family that its config.json shows. One
    that the user chooses takes its place, if it is not the same family."""
    of_judge = group != "backbone"
    if origin is None or origin.backbone is None:
        section = None if group in line.chosen else family_of(checkpoint)
        # an ORM of the student's family has the student's limits of pictures
        if section is not None and not (of_judge and begin.is_student_s(section)):
            begin.backbone(section, of_judge)
        return
    if group not in line.chosen:
        begin.backbone(origin.section("backbone", origin.backbone), of_judge)
        return
    target, chosen = origin.backbone.get("_target_"), line.option(group)
    made_by = next((schema for schema in OPTIONS["backbone"] if schema._target_ == target), None)
    if chosen is None or made_by is None:  # a class of the user's own
        return
    if chosen is made_by:
        begin.backbone(origin.section("backbone", origin.backbone), of_judge)
    elif chosen not in (HF, CausalLM):  # which open any folder
        raise ConfigError(
            f"{group} = {option_of(chosen)}: {checkpoint} was made by a run of {group}={option_of(made_by)} "
            f"({origin.file}); leave {group} out"
        )


def family_of(checkpoint: Path) -> Any:
    """The section that opens a folder of which nothing is known but its config.json; its own pixel bounds hold. None
    where the file cannot be read, which the rules say."""
    try:
        config = read_json(checkpoint / "config.json")
    except (DataError, OSError):
        return None
    if not isinstance(config, Mapping):
        return None
    model_type = config.get("model_type")
    if model_type == "qwen2_vl":
        tiny = 0 < vocabulary_of(config) < TINY_VOCABULARY
        section: Any = TinyBackbone() if tiny else Qwen2VL(min_pixels=None, max_pixels=None)
    elif model_type in ("qwen2_5_vl", "qwen3_vl"):
        kind = Qwen25VL if model_type == "qwen2_5_vl" else Qwen3VL
        section = kind(min_pixels=None, max_pixels=None)
    elif model_type in ("internvl", "internvl_chat"):
        language = config.get("text_config") or config.get("llm_config")
        of_qwen = isinstance(language, Mapping) and language.get("model_type") == "qwen2"
        section = InternVL3() if of_qwen else InternVL25()
    elif model_type in ("cogvlm2", None):
        section = CogVLM2()
    else:
        section = HF() if "vision_config" in config else CausalLM()
    return section if section.path is None else replace(section, path=str(checkpoint))
