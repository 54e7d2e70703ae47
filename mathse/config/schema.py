"""The settings of the two programs: a pydantic dataclass for each group, with defaults, ranges and descriptions.

Where a group has a ``_target_``, that class takes the settings object (a test compares them).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.backbones import (
    CausalLMBackboneConfig,
    CogVLM2BackboneConfig,
    HFBackboneConfig,
    InternVL3BackboneConfig,
    InternVL25BackboneConfig,
    Qwen2VLBackboneConfig,
    Qwen3VLBackboneConfig,
    Qwen25VLBackboneConfig,
    SmolLM2BackboneConfig,
    SmolLM2VisionBackboneConfig,
    TinyBackboneConfig,
)
from mathse.config.data import (
    DecontaminateConfig,
    HubDataConfig,
    JsonlDataConfig,
    MixtureDataConfig,
    PublicDataConfig,
    SyntheticDataConfig,
    WordProblemsConfig,
)
from mathse.config.evaluation import BENCHMARKS, RewardModelConfig, ScoringLLMConfig, StudentEvaluationConfig
from mathse.config.evolution import NOBODY, DistillConfig, EvolutionConfig
from mathse.config.fits import ORMConfig, SFTConfig
from mathse.config.generators import HFGeneratorConfig, ServerGeneratorConfig, VLLMGeneratorConfig
from mathse.config.judges import JUDGES, ORMJudgeConfig, judge_named
from mathse.config.setting import SETTINGS, Option, Options, Section, follows
from mathse.config.task_domains import TaskDomainConfig
from mathse.config.teachers import (
    FallibleReplayTeacherConfig,
    OpenAITeacherConfig,
    ReplayTeacherConfig,
    StudentTeacherConfig,
    SymbolicTeacherConfig,
)
from mathse.config.updates import UPDATES

PROGRESS = "Display of progress. rich: bars; plain: lines; auto: by the terminal."


@dataclass(config=SETTINGS)
class TrainerConfig(Section):
    accelerator: Literal["cpu", "gpu", "auto"] = Field(
        default="cpu", description="Device of all models. auto: a GPU where torch finds a GPU."
    )
    devices: int = Field(
        default=1,
        ge=1,
        description="Number of devices of a machine. Several machines are started with torchrun or srun.",
    )
    strategy: Literal["auto", "ddp", "fsdp2", "deepspeed"] = Field(
        default="auto", description="Strategy of training on several devices (docs: mathse/training/strategies.py)."
    )
    precision: Literal["fastest", "32-true", "bf16-mixed", "bf16-true"] = Field(
        default="fastest",
        description="Precision of training. -true: of the weights too; fastest: bf16-mixed on a GPU and on a CPU that "
        "multiplies bfloat16 faster than float32, which a trial of 50 ms decides, 32-true elsewhere.",
    )
    sampling_dtype: Literal["float32", "bfloat16", "fastest"] | None = Field(
        default=None,
        description="Data type of sampling and judging. null: float32 on a CPU, the precision of training on a GPU; "
        "fastest: bfloat16 on a CPU that multiplies it faster too, where rounding depends on the machine.",
    )
    threads: int = Field(
        default=1, ge=1, description="Number of torch threads. Results are equal bit for bit only at an equal number."
    )
    workers: int = Field(default=0, ge=0, description="Number of data loader processes.")
    max_restarts: int = Field(
        default=3,
        ge=0,
        description="Most restarts of all ranks after the death of a rank. They continue from the last resume point. "
        "For ranks that torchrun starts its --max-restarts counts.",
    )
    timeout_minutes: float = Field(
        default=10.0,
        gt=0,
        description="Minutes that ranks wait for a rank in a training step before they call it stuck.",
    )
    tower_features_folder: str | None = Field(
        default=None,
        description="Folder of kept features (sft.tower_features). null: in the user's cache. Several machines need a "
        "folder that all can read.",
    )
    tower_features_gb: float = Field(
        default=200.0,
        gt=0,
        description="Largest size of that folder in GiB. The least recently used features are deleted.",
    )
    checkpoint_every: int | None = Field(
        default=100, ge=1, description="Number of optimizer steps between two resume points. null: none by steps."
    )
    checkpoint_minutes: float | None = Field(
        default=None,
        gt=0,
        description="Minutes between two resume points, if checkpoint_every comes later. null: none.",
    )
    log_every: int = Field(
        default=10, ge=1, description="Number of optimizer steps between two lines of train_log.jsonl."
    )
    max_grad_norm_ratio: float | None = Field(
        default=100.0,
        gt=1,
        description="Ratio of the gradient norm to its median above which training stops, if it stays there (docs: "
        "mathse/training/divergence.py). null: only a loss or a norm that is not finite stops training.",
    )
    device_memory: str | None = Field(
        default=None,
        description="Memory that estimates are compared with, such as 80GiB. null: that of the GPU, or host RAM.",
    )


@dataclass(config=SETTINGS)
class CsvLoggerConfig(Section):
    """metrics.csv and fits.csv, which every run writes, and nothing else."""

    _target_: str = "mathse.reporting.loggers.CsvLogger"


@dataclass(config=SETTINGS)
class WandbLoggerConfig(Section):
    """Weights & Biases: one run for the whole evolution (docs: mathse/reporting/loggers/wandb)."""

    _target_: str = "mathse.reporting.loggers.wandb.WandbLogger"
    project: str = Field(default="mathse", description="W&B project.")
    entity: str | None = Field(default=None, description="W&B user or team. null: the default of the login.")
    group: str | None = Field(default=None, description="W&B group. null: the study.")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        default=None, description="W&B mode. null: the environment variable WANDB_MODE decides."
    )


@dataclass(config=SETTINGS)
class SeveralLoggersConfig(Section):
    """What logger=[wandb,tensorboard] becomes: a section for each, beside the tables that every run writes."""

    _target_: str = "mathse.reporting.loggers.RunLoggers"
    loggers: Annotated[Any, Options("logger")] = Field(
        default_factory=dict, description="Loggers by name, each a logger section with its _target_."
    )


@dataclass(config=SETTINGS)
class MergeCorrectPathsConfig(Section):
    _target_: str = "mathse.evolution.callbacks.MergeCorrectPaths"


@dataclass(config=SETTINGS)
class ReflectOnErrorsConfig(Section):
    _target_: str = "mathse.evolution.callbacks.ReflectOnErrors"


@dataclass(config=SETTINGS)
class EvaluateStudentConfig(Section):
    _target_: str = "mathse.evolution.callbacks.EvaluateStudent"


@dataclass(config=SETTINGS)
class TrainConfig(Section):
    """python train.py"""

    name: str = Field(default="run", description="Name of the run, whose folder is outputs/<name>/<time>.")
    study: str | None = Field(default=None, description="Study that the run belongs to (conf/experiment/<study>/).")
    variant: str | None = Field(default=None, description="Variant of the study, by which a dashboard groups runs.")
    note: str | None = Field(default=None, description="A sentence that is shown with the run's numbers.")
    task: Literal["evolve", "sft", "orm", "distill"] = Field(
        default="evolve",
        description="Task of the run. evolve: all of Algorithm 1; sft: one fine-tuning on sft.train; orm: training of "
        "the ORM; distill: the teacher's filtered solutions, without fine-tuning.",
    )
    seed: int = Field(default=0, ge=0, description="Random seed of all sampling, shuffling and initialisation.")
    resume: Literal["last", "branch"] | None = Field(
        default=None,
        description="How to resume. last: continue the newest unfinished run of this name; branch: reuse the "
        "stages of resume_from that have the same settings.",
    )
    resume_from: list[str] = Field(
        default_factory=list, description="Run folders whose stages may be reused (resume=branch)."
    )
    progress: Literal["auto", "rich", "plain", "off"] = Field(default="auto", description=PROGRESS)
    plan: bool = Field(
        default=False,
        description="Print the stages, requests and costs of the run and end without running it (docs: "
        "mathse/commands/plan).",
    )
    backbone: Annotated[Any, Option("backbone")] = Field(default_factory=TinyBackboneConfig)
    data: Annotated[Any, Option("data")] = Field(default_factory=SyntheticDataConfig)
    task_domain: Annotated[Any, Option("task_domain")] = Field(default_factory=TaskDomainConfig)
    decontaminate: DecontaminateConfig = Field(default_factory=DecontaminateConfig)
    teacher: Annotated[Any, Option("teacher")] = Field(default_factory=SymbolicTeacherConfig)
    judge: Annotated[Any, Option("judge")] = Field(default_factory=ORMJudgeConfig)
    generator: Annotated[Any, Option("generator")] = Field(default_factory=HFGeneratorConfig)
    sft: SFTConfig = Field(default_factory=SFTConfig)
    orm: ORMConfig = Field(default_factory=ORMConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)
    evolution: EvolutionConfig = Field(default_factory=EvolutionConfig)
    evaluation: StudentEvaluationConfig = Field(default_factory=StudentEvaluationConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    logger: Annotated[Any, Option("logger")] = Field(default_factory=CsvLoggerConfig)
    callbacks: Annotated[Any, Options("callbacks")] = Field(
        default_factory=dict, description="Callbacks of the evolution by name, each with a _target_."
    )
    lightning_callbacks: Annotated[Any, Options("lightning_callbacks")] = Field(
        default_factory=dict,
        description="Callbacks of Lightning's Trainer by name, each with a _target_. They are built anew for every "
        "training run and called on rank 0.",
    )


def needs_orm(config: TrainConfig) -> bool:
    """Whether anything in a run with these settings asks the ORM."""
    reflect = config.evolution.reflect
    chosen: list[Any] = []
    if config.task == "evolve":
        chosen += [config.judge.name]
        chosen += [reflect.feedback] if reflect.when != "never" and reflect.feedback != NOBODY else []
    if config.task in ("evolve", "distill", "orm"):
        chosen += [config.distill.judge]
    return config.task == "orm" or any("orm" in judge_named(judge, config.judge).asks for judge in chosen)


def is_fitted_on(config: TrainConfig, stage: str) -> bool:
    """Whether a later fit of the run may start from the checkpoint of ``stage``."""
    if stage == "orm/solver":
        return True
    student = config.task == "evolve" and stage != "final" and stage.partition("/")[0] != "orm"
    return student and "previous" in (config.evolution.init, config.evolution.reflect.init)


def select_callbacks(config: TrainConfig) -> list[Any]:
    """The evolution callbacks of a run, in order.

    ``evolution.reflect.when=never`` switches reflection off by leaving its callback out; ``'~callbacks.reflect'`` does
    the same by hand. (Who asks the ORM goes by ``when`` alone: a callback of the user's own may reflect in its place.)
    """
    never = config.evolution.reflect.when == "never"
    return [c for c in config.callbacks.values() if not (never and isinstance(c, ReflectOnErrorsConfig))]


@dataclass(config=SETTINGS)
class EvaluateConfig(Section):
    """python evaluate.py"""

    name: str = Field(default="evaluate", description="Name of the evaluation, whose folder is outputs/<name>/<time>.")
    seed: int = Field(
        default=0, ge=0, description="Random seed of samples, and of synthetic problems that belong to no run."
    )
    checkpoint: str | None = Field(
        default=None, description="Folder of a model. The settings of the run that made it replace the defaults."
    )
    predictions: str | None = Field(
        default=None, description='File of answers instead of a model, rows {"id", "response", "extraction"?}.'
    )
    partial: bool = Field(
        default=False, description="Score a predictions file that lacks problems, over the problems that it has."
    )
    benchmark: Annotated[Any, Options("benchmark")] = Field(
        default_factory=dict, description="Benchmarks by name, each with a _target_ and its options."
    )
    limit: int | None = Field(default=None, ge=1, description="Number of first problems of each benchmark. null: all.")
    n_samples: int = Field(default=1, ge=1, description="Number of samples per problem.")
    decoding: Literal["greedy", "sampling"] | None = Field(
        default=None, description="Decoding of answers. null: greedy with n_samples=1, else sampling."
    )
    selector: Literal["first", "majority", "orm", "orm_weighted"] = Field(
        default="first", description="Rule that selects the answer among the samples."
    )
    map_marker: bool | None = Field(
        default=None,
        description='Score "The answer ... is x" as a box. null: true for models that run here, false for files.',
    )
    check_against: str | None = Field(
        default=None, description="A train.jsonl whose rows are searched for in the benchmark."
    )
    error_types: bool = Field(
        default=False, description="Let the LLM classify the error of each wrong answer (Figure 4)."
    )
    progress: Literal["auto", "rich", "plain", "off"] = Field(default="auto", description=PROGRESS)
    backbone: Annotated[Any, Option("backbone")] = Field(default_factory=TinyBackboneConfig)
    data: Annotated[Any, Option("data")] = Field(default_factory=SyntheticDataConfig)
    task_domain: Annotated[Any, Option("task_domain")] = Field(default_factory=TaskDomainConfig)
    generator: Annotated[Any, Option("generator")] = Field(default_factory=HFGeneratorConfig)
    evaluation: StudentEvaluationConfig = Field(
        default_factory=StudentEvaluationConfig, json_schema_extra=follows({"limit": "limit"})
    )
    judge: RewardModelConfig = Field(default_factory=RewardModelConfig)
    llm: ScoringLLMConfig = Field(default_factory=ScoringLLMConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)


# A group whose options are classes: the schemas known here. Any other `_target_` is checked against its own signature.
OPTIONS: dict[str, tuple[type[Any], ...]] = {
    "backbone": (
        TinyBackboneConfig,
        Qwen2VLBackboneConfig,
        InternVL25BackboneConfig,
        CogVLM2BackboneConfig,
        Qwen25VLBackboneConfig,
        Qwen3VLBackboneConfig,
        InternVL3BackboneConfig,
        CausalLMBackboneConfig,
        SmolLM2BackboneConfig,
        SmolLM2VisionBackboneConfig,
        HFBackboneConfig,
    ),
    "task_domain": (TaskDomainConfig,),
    "data": (
        SyntheticDataConfig,
        JsonlDataConfig,
        PublicDataConfig,
        HubDataConfig,
        MixtureDataConfig,
        WordProblemsConfig,
    ),
    "teacher": (
        SymbolicTeacherConfig,
        ReplayTeacherConfig,
        OpenAITeacherConfig,
        StudentTeacherConfig,
        FallibleReplayTeacherConfig,
    ),
    "judge": JUDGES,
    "generator": (HFGeneratorConfig, ServerGeneratorConfig, VLLMGeneratorConfig),
    "evolution/update": UPDATES,
    "logger": (CsvLoggerConfig, WandbLoggerConfig, SeveralLoggersConfig),
    "callbacks": (MergeCorrectPathsConfig, ReflectOnErrorsConfig, EvaluateStudentConfig),
    "benchmark": BENCHMARKS,
}
PROGRAMS: dict[type, str] = {TrainConfig: "train", EvaluateConfig: "evaluate"}  # conf/<program>.yaml, <program>.py
