"""Find or make the config that a command line is composed onto.

For ``train`` this is conf/train.yaml. For ``evaluate`` the recorded settings of the checkpoint replace the defaults of
conf/evaluate.yaml: its family, its limits of images and answers, its task domain and the data of its run. The command
line is composed onto them, so the user's settings win.
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
    CausalLMBackboneConfig,
    CogVLM2BackboneConfig,
    HFBackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen2VLBackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
    TinyBackboneConfig,
)
from mathse.config.generators import HFGeneratorConfig
from mathse.config.options import CONF, find_option, list_groups, list_options
from mathse.config.origin import Origin, find_origin
from mathse.config.rules.models import TINY_VOCABULARY, vocabulary_size
from mathse.config.schema import OPTIONS, PROGRAMS, EvaluateConfig
from mathse.config.sections import to_plain
from mathse.errors import ConfigError, DataError
from mathse.runs.store import read_json

LIMITS = ("batch_size", "max_new_tokens")
SAMPLING = ("temperature", "top_p")  # settings of every generator
HF_SAMPLING = (*SAMPLING, "top_k", "batch_size")
ASK_DATA = ("synthetic", "orm_test")  # benchmarks that take their problems from ``data``


def parse_override(text: str) -> Override | None:
    """Parse an override as Hydra does. None: it cannot be parsed, or it has no key."""
    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):  # ValueError: a number with more digits than Python reads
        return None
    return override if override.key_or_group else None


def register_config(overrides: Sequence[str], schema: type) -> str:
    """Return the name of the config that ``overrides`` are composed onto. In a sweep over checkpoints the first counts.

    Raises ConfigError, DataError or RunError if the settings of a checkpoint cannot be used.
    """
    program = PROGRAMS[schema]
    if schema is not EvaluateConfig:
        return program
    line = _ChosenSettings.read(overrides)
    defaults = _EvaluationDefaults()
    if line.has_own_benchmark:
        defaults.choices["benchmark"] = None  # only the user's benchmark
    if (checkpoint := line.find_folder("checkpoint")) is not None:
        _take_from_student(defaults, line, checkpoint)
    if (orm := line.find_folder("judge.checkpoint")) is not None:
        _take_from_orm(defaults, line, orm)
    return defaults.register(program)


@dataclass
class _EvaluationDefaults:
    """Replacements for the defaults of conf/evaluate.yaml: options by group, and values that go over the options."""

    choices: dict[str, str | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def set_backbone(self, section: Any, is_judge: bool) -> None:
        """Set the whole section of the student's backbone, or of the ORM that selects among the student's samples."""
        if is_judge:
            self.values.setdefault("judge", {})["backbone"] = to_plain(section)
            return
        target = section["_target_"] if isinstance(section, Mapping) else section._target_
        option = next((find_option(s) for s in OPTIONS["backbone"] if s._target_ == target), None)
        self.choices |= {"backbone": None, "recipe/evaluate": option}
        self.values["backbone"] = to_plain(section)

    def has_student_family(self, section: Any) -> bool:
        """Whether the student's backbone has the class of this section."""
        return bool(self.values.get("backbone", {}).get("_target_") == section._target_)

    def set_limits(self, section: str, recorded: Any, names: Sequence[str] = LIMITS) -> None:
        """Take the settings ``names`` of a section as a run recorded it."""
        values = {name: recorded[name] for name in names if isinstance(recorded, Mapping) and name in recorded}
        if values:
            self.values.setdefault(section, {}).update(values)

    def register(self, program: str) -> str:
        """Register the config in Hydra's store and return its name.

        Hydra caches a config by its name, so the name has a hash of the contents.
        """
        if not self.choices and not self.values:
            return program
        config: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{program}.yaml"), resolve=False)
        config["defaults"].remove("_self_")
        defaults: list[Any] = []
        for entry in config["defaults"]:
            group = next(iter(entry)) if isinstance(entry, dict) else entry
            name = group.removeprefix("optional ")
            if group.startswith("override ") and "_self_" not in defaults:
                defaults.append("_self_")  # after the groups, so that the values go over their options
            defaults.append({group: self.choices[name]} if name in self.choices else entry)
        config |= {"defaults": defaults, **self.values}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
        ConfigStore.instance().store(name=f"{program}_{digest}", node=config)
        return f"{program}_{digest}"


@dataclass(frozen=True)
class _ChosenSettings:
    """The parts of a command line that decide about the defaults. In a sweep, the first value of each.

    ``values``: settings by key path. ``chosen``: options by group, with its package. ``has_own_benchmark``: the command
    line adds settings of a benchmark, so the benchmark is a class of the user.
    """

    values: Mapping[str, Any]
    chosen: Mapping[str, Any]
    has_own_benchmark: bool

    @classmethod
    def read(cls, overrides: Sequence[str]) -> _ChosenSettings:
        values: dict[str, Any] = {}
        chosen: dict[str, Any] = {}
        adds_benchmark = False
        for text in overrides:
            if (override := parse_override(text)) is None or override.is_hydra_override():
                continue
            key = override.key_or_group
            value = None if override.is_delete() else override.value()
            if override.is_sweep_override():
                first = next(override.sweep_string_iterator(), "") if override.is_discrete_sweep() else ""
                of_first_job = parse_override(f"{key}={first}")
                value = None if of_first_job is None else of_first_job.value()
            if key in list_groups() or key in OPTIONS:
                chosen[key if override.package is None else f"{key}@{override.package}"] = value
            else:
                values[key] = value
                adds_benchmark |= key.startswith("benchmark.") and (override.is_add() or override.is_force_add())
        return cls(values, chosen, adds_benchmark and "benchmark" not in chosen)

    def find_folder(self, key: str) -> Path | None:
        """Return the model's folder that a setting names, or None: the rules report any other value."""
        value = self.values.get(key)
        return Path(value) if isinstance(value, str) and Path(value, "config.json").is_file() else None

    def find_option(self, group: str) -> type | None:
        """Return the settings class of the option chosen for ``group``, or None if it is not an option of MathSE."""
        name = self.chosen.get(group)
        group = group.partition("@")[0]
        return next((s for s in OPTIONS[group] if name is not None and find_option(s) == name), None)

    @property
    def asks_data(self) -> bool:
        """Whether a benchmark takes its problems from ``data``."""
        if self.has_own_benchmark:
            return False
        names = self.chosen.get("benchmark", "synthetic")
        return any(name in ASK_DATA for name in (names if isinstance(names, list) else [names]))


def _take_from_student(defaults: _EvaluationDefaults, line: _ChosenSettings, checkpoint: Path) -> None:
    """Take the defaults from the run that trained the student at ``checkpoint``."""
    origin = find_origin(checkpoint)
    _take_backbone(defaults, line, checkpoint, origin, "backbone")
    settings = {} if origin is None else origin.settings
    defaults.set_limits("evaluation", settings.get("evaluation"))
    if origin is not None and origin.is_orm:
        defaults.set_limits("judge", settings.get("judge"))
    generator = settings.get("generator")
    if isinstance(generator, Mapping) and ("generator" not in line.chosen or line.find_option("generator") is not None):
        chosen = line.find_option("generator") or HFGeneratorConfig
        both_hf = chosen is HFGeneratorConfig and generator.get("_target_") == HFGeneratorConfig._target_
        defaults.set_limits("generator", generator, HF_SAMPLING if both_hf else SAMPLING)
    if line.asks_data:
        _take_data(defaults, line, checkpoint, origin)


def _take_data(defaults: _EvaluationDefaults, line: _ChosenSettings, checkpoint: Path, origin: Origin | None) -> None:
    """Take the problems on which the run measured its students, and their task domain."""
    settings = {} if origin is None else origin.settings
    if "data" not in line.chosen:
        if origin is not None and "data" in settings:
            defaults.choices["data"] = None
            defaults.values["data"] = to_plain(origin.section("data", settings["data"]))
        elif "benchmark" not in line.chosen and not _is_tiny(defaults, line):
            raise ConfigError(
                f"checkpoint = {str(checkpoint)!r}: lies in no run folder, so the problems that it was made for "
                "are not known; pass benchmark=NAME, or data=NAME with its settings"
            )
    own_domain = line.chosen.get("data") in list_options("task_domain/of_data")
    if origin is not None and "task_domain" not in line.chosen and not own_domain:
        defaults.choices["task_domain/of_data"] = None
        if settings.get("task_domain") is not None:  # null in runs of earlier versions, which were mathematics
            defaults.values["task_domain"] = to_plain(origin.section("task_domain", settings["task_domain"]))


def _is_tiny(defaults: _EvaluationDefaults, line: _ChosenSettings) -> bool:
    """Whether the backbone is tiny, which knows only the built-in task."""
    is_tiny_folder = defaults.values.get("backbone", {}).get("_target_") == TinyBackboneConfig._target_
    return is_tiny_folder or line.find_option("backbone") is TinyBackboneConfig


def _take_from_orm(defaults: _EvaluationDefaults, line: _ChosenSettings, checkpoint: Path) -> None:
    """Take the defaults of ``judge`` from the run that trained the ORM at ``checkpoint``."""
    origin = find_origin(checkpoint)
    _take_backbone(defaults, line, checkpoint, origin, "backbone@judge.backbone")
    if origin is not None:
        defaults.set_limits("judge", origin.settings.get("judge"))


def _take_backbone(
    defaults: _EvaluationDefaults, line: _ChosenSettings, checkpoint: Path, origin: Origin | None, group: str
) -> None:
    """Take the section that opens the checkpoint: the recorded section, or else the family in its config.json.

    If the user chooses another family, its section is used instead.
    """
    is_judge = group != "backbone"
    if origin is None or origin.backbone is None:
        section = None if group in line.chosen else guess_backbone(checkpoint)
        # An ORM of the student's family has the student's image limits.
        if section is not None and not (is_judge and defaults.has_student_family(section)):
            defaults.set_backbone(section, is_judge)
        return
    if group not in line.chosen:
        defaults.set_backbone(origin.section("backbone", origin.backbone), is_judge)
        return
    target, chosen = origin.backbone.get("_target_"), line.find_option(group)
    recorded = next((schema for schema in OPTIONS["backbone"] if schema._target_ == target), None)
    if chosen is None or recorded is None:  # a class of the user
        return
    if chosen is recorded:
        defaults.set_backbone(origin.section("backbone", origin.backbone), is_judge)
    elif chosen not in (HFBackboneConfig, CausalLMBackboneConfig):  # these two open any folder
        raise ConfigError(
            f"{group} = {find_option(chosen)}: {checkpoint} was made by a run of {group}={find_option(recorded)} "
            f"({origin.file}); leave {group} out"
        )


def guess_backbone(checkpoint: Path) -> Any:
    """Choose the section that opens a folder by its config.json; the folder's own pixel limits are kept.

    None: the file cannot be read, which the rules report.
    """
    try:
        config = read_json(checkpoint / "config.json")
    except (DataError, OSError):
        return None
    if not isinstance(config, Mapping):
        return None
    model_type = config.get("model_type")
    if model_type == "qwen2_vl":
        tiny = 0 < vocabulary_size(config) < TINY_VOCABULARY
        section: Any = TinyBackboneConfig() if tiny else Qwen2VLBackboneConfig(min_pixels=None, max_pixels=None)
    elif model_type in ("qwen2_5_vl", "qwen3_vl"):
        kind = Qwen25VLBackboneConfig if model_type == "qwen2_5_vl" else Qwen3VLBackboneConfig
        section = kind(min_pixels=None, max_pixels=None)
    elif model_type in ("internvl", "internvl_chat"):
        language = config.get("text_config") or config.get("llm_config")
        of_qwen = isinstance(language, Mapping) and language.get("model_type") == "qwen2"
        section = InternVL3BackboneConfig() if of_qwen else InternVL25BackboneConfig()
    elif model_type in ("cogvlm2", None):
        section = CogVLM2BackboneConfig()
    else:
        section = HFBackboneConfig() if "vision_config" in config else CausalLMBackboneConfig()
    return section if section.path is None else replace(section, path=str(checkpoint))
