"""The settings: one dataclass a group, its defaults, and what each value may be.

These are the truth at run time. Where a group has a ``_target_``, its other fields are that class's keyword arguments
(a test compares them). ``allow(...)`` notes the range or the choices that ``mathse.config.parse`` enforces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mathse.config.allow import allow
from mathse.config.data import Decontaminate, HubData, JsonlData, MixtureData, PublicData
from mathse.config.scoring import BENCHMARKS, LLM, RewardModel

DTYPES = ("float32", "bfloat16")
ATTENTION = ("eager", "sdpa", "flash_attention_2")


# --- backbone -------------------------------------------------------------------------------------------------------


@dataclass
class TinyBackbone:
    """Qwen2-VL's own classes at about a million random parameters (docs: mathse/backbones/tiny.py)."""

    _target_: str = "mathse.backbones.tiny.TinyBackbone"
    path: str | None = None  # a folder made by `python -m mathse tiny` or by a run; null: random weights from the seed
    dtype: str = allow("float32", choices=("float32", "bfloat16"))
    attention: str = allow("eager", choices=("eager", "sdpa"))  # of the text model
    min_pixels: int = allow(784, low=784)  # area in pixels, 28 x 28
    max_pixels: int = allow(12544, low=784)  # area in pixels; 16 visual tokens
    hidden_size: int = allow(128, low=32)
    layers: int = allow(3, low=1)
    heads: int = allow(4, low=1)
    mlp_size: int = allow(320, low=32)
    vision_size: int = allow(64, low=16)
    vision_layers: int = allow(1, low=1)
    initializer_range: float = allow(0.05, above=0)  # measured: 0.02 stays on a plateau, 0.05 learns


@dataclass
class Qwen2VL:
    """Qwen2-VL through transformers' own classes (docs: mathse/backbones/qwen2vl.py)."""

    _target_: str = "mathse.backbones.qwen2vl.load"
    path: str = "Qwen/Qwen2-VL-7B-Instruct"  # a folder or a hub id
    revision: str | None = None
    dtype: str | None = allow(None, choices=DTYPES)  # of the weights; null: float32 in a full fit, else bfloat16
    attention: str = allow("sdpa", choices=ATTENTION)
    min_pixels: int = allow(3136, low=784)  # area in pixels; 28 x 28 a visual token
    max_pixels: int = allow(802816, low=784)  # 1,024 visual tokens; the checkpoint's own bound is 16,384


@dataclass
class InternVL25:
    """InternVL2.5; an original ``internvl_chat`` checkpoint is converted once (docs: mathse/backbones/internvl2_5)."""

    _target_: str = "mathse.backbones.internvl2_5.load"
    path: str = "OpenGVLab/InternVL2_5-8B"  # a folder or a hub id
    revision: str | None = None
    dtype: str | None = allow(None, choices=DTYPES)  # of the weights; null: float32 in a full fit, else bfloat16
    attention: str = allow("sdpa", choices=ATTENTION)
    train_tiles: int = allow(6, low=1, high=40)  # at most, a picture; the thumbnail comes on top
    eval_tiles: int = allow(12, low=1, high=40)
    jpeg: bool = False  # random JPEG compression of training pictures, quality 75 to 100 (the paper names it)
    jpeg_seed: int = "${seed}"  # type: ignore[assignment]
    system: str | None = None  # said at the start of a conversation; null: what the checkpoint's template says


@dataclass
class CogVLM2:
    """CogVLM2, our own port (docs: mathse/backbones/cogvlm2)."""

    _target_: str = "mathse.backbones.cogvlm2.load"
    path: str = "zai-org/cogvlm2-llama3-chat-19B"  # a folder or a hub id
    revision: str | None = None
    dtype: str | None = allow(None, choices=DTYPES)  # of the weights; null: float32 in a full fit, else bfloat16
    attention: str = allow("sdpa", choices=ATTENTION)
    template: str = allow("chat", choices=("base", "chat", "vqa"))  # how a question is put
    rope_precision: str = allow("float32", choices=("float32", "model"))  # model: as published, angles in bf16


# --- data -----------------------------------------------------------------------------------------------------------


@dataclass
class SyntheticData:
    """The embedded world: arithmetic over pictures of handwritten digits (docs: mathse/world)."""

    _target_: str = "mathse.world.SyntheticData"
    seed: int = "${seed}"  # type: ignore[assignment]
    seed_size: int = allow(400, low=1)  # problems the teacher solves in distillation
    pool: int = allow(2400, low=0)  # further problems of D, for the rounds
    test: int = allow(1500, low=1)
    dev: int = allow(300, low=0)  # for validation during fits and the metric a sweep optimises
    orm_train: int = allow(8000, low=0)
    orm_held: int = allow(2500, low=0)


# --- teacher, judge, generator --------------------------------------------------------------------------------------


@dataclass
class SymbolicTeacher:
    """Solves the embedded world by rule, and is fallible by default."""

    _target_: str = "mathse.world.SymbolicTeacher"
    error_rate: float = allow(0.2, low=0, high=1)  # share of solutions that are wrong; 0 is the perfect teacher
    seed: int = "${seed}"  # type: ignore[assignment]


@dataclass
class ReplayTeacher:
    """Writes a row's own solution, else one sentence with the marker and the answer: no API needed."""

    _target_: str = "mathse.teachers.ReplayTeacher"


@dataclass
class OpenAITeacher:
    """A model behind an OpenAI-compatible API (docs: mathse/teachers/openai_api.py, mathse/llm).

    What ``HOW_IT_IS_REACHED`` names changes no answer, so a run may go on with another value of it.
    """

    _target_: str = "mathse.teachers.openai_api.OpenAITeacher"
    model: str = "gpt-4o-2024-08-06"  # PAPER: "GPT-4o", without a version
    base_url: str | None = None  # up to and with /v1; null: the OpenAI API
    api_key_env: str | None = "OPENAI_API_KEY"  # the environment variable with the key; null: the server wants none
    mode: str = allow("online", choices=("online", "batch"))  # batch: the Batch API, half the price, within a day
    temperature: float | None = allow(0.7, low=0)  # of what it writes; PAPER: silent; null: the server's own
    max_tokens: int = allow(2048, low=1)
    seed: int | None = 0  # another seed is another answer, paid again; null: none is sent
    reflect_prompt: str = allow("full", choices=("full", "short"))  # PAPER: prints both
    structured: bool = True  # ask for JSON by its schema, where the server can
    image_side: int = allow(2048, low=28)  # pixels, long side
    cache_dir: str = "outputs/.answers"  # shared by runs: nothing is paid twice
    max_concurrency: int = allow(16, low=1)
    requests_per_minute: float | None = allow(None, above=0)
    tokens_per_minute: float | None = allow(None, above=0)
    timeout: float = allow(300.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)
    poll_seconds: float = allow(30.0, above=0)  # mode=batch
    budget_usd: float | None = allow(None, above=0)  # what the run may pay in all: a hard stop
    price_input: float | None = allow(None, low=0)  # dollars a million tokens; null: the list price, where it is known
    price_output: float | None = allow(None, low=0)
    price_cached: float | None = allow(None, low=0)  # of prompt tokens that the server had read before


HOW_IT_IS_REACHED = (
    "base_url",
    "api_key_env",
    "mode",
    "cache_dir",
    "max_concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "max_retries",
    "poll_seconds",
    "budget_usd",
    "price_input",
    "price_output",
    "price_cached",
)


@dataclass
class StudentTeacher:
    """The student as its own teacher (docs: mathse/teachers/student.py)."""

    _target_: str = "mathse.teachers.student.StudentTeacher"


@dataclass
class HFGenerator:
    """Sampling in this process with transformers' generate."""

    _target_: str = "mathse.generate.HFGenerator"
    batch_size: int = allow(256, low=1)  # prompts a batch; a kill loses at most one
    temperature: float = allow(0.7, above=0)  # PAPER: silent; R3V draws at 0.9, M-STaR at 1.0
    top_p: float = allow(1.0, above=0, high=1)  # PAPER: silent
    top_k: int = allow(0, low=0)  # 0: no limit
    max_new_tokens: int = allow(80, low=1)


@dataclass
class ServerGenerator:
    """A student behind an OpenAI-compatible server answers; evaluate.py only (docs: mathse/evaluation/served.py)."""

    _target_: str = "mathse.evaluation.served.ServerGenerator"
    base_url: str = "http://localhost:8000/v1"  # up to and with /v1
    model: str | None = None  # its name there
    api_key_env: str | None = None  # the environment variable with the key; null: the server wants none
    style: str = allow("full", choices=("compact", "full"))  # of the prompts with prompt=student
    batch_size: int = allow(64, low=1)  # problems a batch; a kill loses at most one
    temperature: float = allow(0.7, above=0)
    top_p: float = allow(0.95, above=0, high=1)
    max_new_tokens: int = allow(2048, low=1)
    image_side: int = allow(4096, low=28)  # pixels, long side of what is sent
    cache_dir: str = "outputs/.answers"
    max_concurrency: int = allow(64, low=1)
    timeout: float = allow(600.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)


@dataclass
class Judge:
    """Who returns a verdict on a path (docs: mathse/judges.py)."""

    name: str = allow("orm", choices=("orm", "teacher", "answer", "orm_and_answer", "random"))
    checkpoint: str | None = None  # a trained ORM's folder, instead of training one in this run
    threshold: float = allow(0.5, low=0, high=1)  # accept if the verdict is "correct" and P(correct) >= threshold
    rate: float = allow(0.5, low=0, high=1)  # judge=random: the share it accepts
    batch_size: int = allow(256, low=1)
    max_new_tokens: int = allow(200, low=1)


# --- fits -----------------------------------------------------------------------------------------------------------


@dataclass
class Optimizer:
    lr: float = allow(2e-3, above=0)
    weight_decay: float = allow(0.01, low=0)  # on matrices only, never on norms and biases
    beta1: float = allow(0.9, low=0, high=1)
    beta2: float = allow(0.98, low=0, high=1)
    eps: float = allow(1e-8, above=0)
    warmup_ratio: float = allow(0.05, low=0, high=1)
    min_lr_ratio: float = allow(0.05, low=0, high=1)  # the cosine ends at this share of lr
    clip: float = allow(1.0, above=0)  # gradient norm


@dataclass
class Lora:
    """Low-rank adapters (method=lora, qlora); the checkpoint is the merged model, the adapter lies beside it."""

    rank: int = allow(16, low=1)
    alpha: float = allow(32.0, above=0)
    dropout: float = allow(0.05, low=0, high=1)
    scopes: list[str] = field(default_factory=lambda: ["language"])  # language, tower; cogvlm2: vision_expert too


@dataclass
class Fit:
    """One fit. Exactly one of ``epochs`` and ``max_steps`` is set."""

    method: str = allow("full", choices=("full", "lora", "qlora"))
    lora: Lora = field(default_factory=Lora)
    freeze: list[str] = field(default_factory=list)  # parts that stay as they are: tower, connector, language
    vision_lr_scale: float = allow(1.0, above=0)  # learning rate of tower and connector, as a share of optimizer.lr
    activation_checkpointing: bool = False  # slower by about a third, far less memory
    max_length: int | None = allow(None, low=16)  # tokens of a row, image included; longer rows are left out, listed

    epochs: float | None = allow(None, above=0)
    max_steps: int | None = allow(300, low=1)
    batch_size: int = allow(64, low=1)  # rows in a global batch
    micro_batch_size: int = allow(64, low=1)  # rows a forward pass; gradients add up to the global batch
    optimizer: Optimizer = field(default_factory=Optimizer)
    val_rows: int = allow(128, low=0)
    val_every: int = allow(100, low=1)  # optimiser steps


@dataclass
class SFT(Fit):
    train: str | None = None  # task=sft: a train.jsonl


def _orm_fit() -> Fit:
    """Trained the way the student is, with another learning rate; values point at ``sft``'s."""
    lora = Lora("${sft.lora.rank}", "${sft.lora.alpha}", "${sft.lora.dropout}", "${sft.lora.scopes}")  # type: ignore[arg-type]
    pointed: dict[str, Any] = {
        name: f"${{sft.{name}}}"
        for name in ("method", "freeze", "vision_lr_scale", "activation_checkpointing", "max_length")
    }
    return Fit(lora=lora, optimizer=Optimizer(lr=1.5e-3), **pointed)


@dataclass
class ORM:
    """The Outcome Reward Model and its data (docs: mathse/orm)."""

    kind: str = allow("generative", choices=("generative", "binary"))  # Table 5's two rows
    order: str = allow("analysis_first", choices=("verdict_first", "analysis_first", "solve_first"))
    see_answer: bool = False  # PAPER: not stated; with the answer in its prompt a judge can compare strings
    see_image: bool = True  # PAPER: not stated; its critiques cite the figure
    backbone: Any = None  # null: the student's backbone
    students: list[int] = field(default_factory=lambda: [300, 600])  # training rows of each weak student; 0: the base
    samples_per_problem: int = allow(1, low=1)
    references: bool = False  # reference solutions count among the right paths too, where students seldom are right
    temperature: float = allow(0.8, above=0)
    augment: float = allow(0.3, low=0, high=1)  # final share of rows with made-up errors (embedded world only)
    student_steps: int = allow(200, low=1)  # optimiser steps of a weak student
    solver_steps: int = allow(600, low=0)  # the ORM starts from a solver of its own problems; 0: from the base
    fit: Fit = field(default_factory=_orm_fit)


# --- the loop -------------------------------------------------------------------------------------------------------


@dataclass
class Distill:
    size: int | None = allow(None, low=1)  # null: the data's seed set in task=evolve, every row in task=distill
    judge: str = allow("${judge.name}", choices=("orm", "teacher", "answer", "orm_and_answer", "random"))


@dataclass
class Round:
    sample_size: int | None = allow(None, low=1)  # problems of D_remain a round tries; null: all (Alg. 1 line 7)


@dataclass
class Reflect:
    when: str = allow("last", choices=("last", "every", "never"))  # PAPER: Alg. 1 says once, Eq. 2 says every round
    feedback: str = allow("orm", choices=("orm", "teacher", "none"))  # Table 3's rows
    writer: str = allow("teacher", choices=("teacher", "student"))  # PAPER: GPT-4o; one sentence says "the model"
    init: str = allow("base", choices=("base", "previous"))  # PAPER: silent; the authors' README: previous
    tries: int = allow(1, low=1)
    all_drafts: bool = False  # true: every wrong draft is rewritten, also of problems solved later (README)


@dataclass
class Evolution:
    rounds: int = allow(2, low=0)  # K; PAPER: not stated, Figure 2 and Table 1 imply 2
    init: str = allow("base", choices=("base", "previous"))  # PAPER: silent on what a round's fit starts from
    samples_per_problem: int = allow(1, low=1)
    keep: str = allow("one", choices=("one", "all"))  # accepted paths kept for a problem
    round: Round = field(default_factory=Round)
    reflect: Reflect = field(default_factory=Reflect)


@dataclass
class Evaluation:
    batch_size: int = allow(512, low=1)
    max_new_tokens: int = allow(80, low=1)
    limit: int | None = allow(None, low=1)  # problems of the test set; null: all


def _limited() -> Evaluation:
    return Evaluation(limit="${limit}")  # type: ignore[arg-type]  # evaluate.py has the key at the top


# --- machinery ------------------------------------------------------------------------------------------------------


@dataclass
class Trainer:
    accelerator: str = allow("cpu", choices=("cpu", "gpu", "auto"))
    devices: int = allow(1, low=1)  # of a machine; several machines: start with torchrun or srun
    strategy: str = allow("auto", choices=("auto", "ddp", "fsdp2", "deepspeed"))  # docs: mathse/strategies.py
    precision: str = allow("bf16-mixed", choices=("32-true", "bf16-mixed", "bf16-true"))
    threads: int = allow(1, low=1)  # torch threads; results are equal bit for bit only at an equal number
    workers: int = allow(0, low=0)  # loader processes
    checkpoint_every: int = allow(100, low=1)  # optimiser steps; a kill loses at most these
    log_every: int = allow(10, low=1)


@dataclass
class CsvLogger:
    _target_: str = "mathse.loggers.CsvLogger"


@dataclass
class WandbLogger:
    _target_: str = "mathse.loggers.WandbLogger"
    project: str = "mathse"
    group: str | None = None
    mode: str | None = allow(None, choices=("online", "offline", "disabled"))  # null: WANDB_MODE decides


@dataclass
class MergeCorrectPaths:
    _target_: str = "mathse.evolution.callbacks.MergeCorrectPaths"


@dataclass
class ReflectOnErrors:
    _target_: str = "mathse.evolution.callbacks.ReflectOnErrors"


@dataclass
class EvaluateStudent:
    _target_: str = "mathse.evolution.callbacks.EvaluateStudent"


@dataclass
class TrainConfig:
    """python train.py"""

    name: str = "run"  # outputs/<name>/<time>
    task: str = allow("evolve", choices=("evolve", "sft", "orm", "distill"))
    seed: int = allow(0, low=0)
    resume: str | None = allow(None, choices=("last", "branch"))
    resume_from: list[str] = field(default_factory=list)  # resume=branch: run folders whose stages may be reused
    progress: str = allow("auto", choices=("auto", "rich", "plain", "off"))
    backbone: Any = field(default_factory=TinyBackbone)
    data: Any = field(default_factory=SyntheticData)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    teacher: Any = field(default_factory=SymbolicTeacher)
    judge: Judge = field(default_factory=Judge)
    generator: Any = field(default_factory=HFGenerator)
    sft: SFT = field(default_factory=SFT)
    orm: ORM = field(default_factory=ORM)
    distill: Distill = field(default_factory=Distill)
    evolution: Evolution = field(default_factory=Evolution)
    evaluation: Evaluation = field(default_factory=Evaluation)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Any = field(default_factory=CsvLogger)
    callbacks: Any = field(default_factory=dict)  # evolution callbacks by name, each with a _target_


@dataclass
class EvaluateConfig:
    """python evaluate.py"""

    name: str = "evaluate"
    seed: int = allow(0, low=0)
    checkpoint: str | None = None  # a checkpoint folder of a run
    predictions: str | None = None  # instead of a model: its answers, rows {"id", "response", "extraction"?}
    partial: bool = False  # score a predictions file that lacks problems, over those that it has
    benchmark: Any = field(default_factory=dict)  # by name, each with a _target_ and its options
    limit: int | None = allow(None, low=1)  # the first so many problems of each benchmark; null: all
    n_samples: int = allow(1, low=1)  # a problem
    decoding: str | None = allow(None, choices=("greedy", "sampling"))  # null: greedy where n_samples=1
    selector: str = allow("first", choices=("first", "majority", "orm", "orm_weighted"))  # which sample is the answer
    map_marker: bool | None = None  # score "The answer ... is x" as a box; null: for models here, not for files
    check_against: str | None = None  # a train.jsonl: which of its rows are in the benchmark
    error_types: bool = False  # Figure 4: the LLM says of each wrong answer what kind of mistake it is
    progress: str = allow("auto", choices=("auto", "rich", "plain", "off"))
    backbone: Any = field(default_factory=TinyBackbone)
    data: Any = field(default_factory=SyntheticData)
    generator: Any = field(default_factory=HFGenerator)
    evaluation: Evaluation = field(default_factory=_limited)
    judge: RewardModel = field(default_factory=RewardModel)
    llm: LLM = field(default_factory=LLM)
    trainer: Trainer = field(default_factory=Trainer)


# A group whose options are classes: the schemas known here. Any other `_target_` is checked against its own signature.
OPTIONS: dict[str, tuple[type, ...]] = {
    "backbone": (TinyBackbone, Qwen2VL, InternVL25, CogVLM2),
    "data": (SyntheticData, JsonlData, PublicData, HubData, MixtureData),
    "teacher": (SymbolicTeacher, ReplayTeacher, OpenAITeacher, StudentTeacher),
    "generator": (HFGenerator, ServerGenerator),
    "logger": (CsvLogger, WandbLogger),
    "callbacks": (MergeCorrectPaths, ReflectOnErrors, EvaluateStudent),
    "benchmark": BENCHMARKS,
}
NAMED = ("callbacks", "benchmark")  # groups of which several options are chosen: a section each, by name
