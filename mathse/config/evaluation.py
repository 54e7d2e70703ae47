"""The settings of evaluation: how a student is measured, in train.py too; for evaluate.py alone the benchmarks, the LLM
that extracts answers and judges, and the ORM that chooses among samples."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Option, Section


@dataclass(config=SETTINGS)
class StudentEvaluationConfig(Section):
    batch_size: int = Field(default=512, ge=1, description="Number of problems that are answered at a time.")
    max_new_tokens: int = Field(default=80, ge=1, description="Most tokens of an answer.")
    limit: int | None = Field(default=None, ge=1, description="Number of problems of the test set. null: all.")


@dataclass(config=SETTINGS)
class OwnBenchmarkConfig(Section):
    """The test split of ``data``: the synthetic or own problems (docs: mathse/evaluation/own_benchmark.py)."""

    _target_: str = "mathse.evaluation.own_benchmark.OwnBenchmark"


@dataclass(config=SETTINGS)
class BenchmarkRowsConfig(Section):
    """Where a benchmark's rows come from."""

    problems: str | None = Field(
        default=None, description="The official JSON or JSONL file, or rows in our format, plain or .gz. null: the hub."
    )
    images: str | None = Field(
        default=None, description="Folder to which image paths are relative. null: the folder of the file."
    )
    split: str | None = Field(default=None, description="Split of the benchmark. null: its first split.")


@dataclass(config=SETTINGS)
class MathVistaConfig(BenchmarkRowsConfig):
    """testmini, 1,000 problems (docs: mathse/evaluation/benchmarks/mathvista.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathvista.MathVista"
    prompt: Literal["query", "solution", "plain", "student"] = Field(
        default="query", description="Prompt of a problem. query: the official prompt; student: the prompt of training."
    )
    rule: Literal["released", "strict"] = Field(
        default="released", description="Rule of scoring. strict: the rule that the score files of 2023 obey."
    )
    quick_extract: bool = Field(
        default=False, description="The official option that reads 'The answer is \"x\".' by a rule instead of an LLM."
    )
    ignore_empty: bool = Field(
        default=False, description="The official option by which an empty extraction chooses no option."
    )


@dataclass(config=SETTINGS)
class MathVisionConfig(BenchmarkRowsConfig):
    """test, 3,040 problems; testmini, 304 of them (docs: mathse/evaluation/benchmarks/mathvision.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathvision.MathVision"
    prompt: Literal["cot", "direct", "plain", "student"] = Field(
        default="cot", description="Prompt of a problem. cot: the official prompt; student: the prompt of training."
    )


@dataclass(config=SETTINGS)
class MathVerseConfig(BenchmarkRowsConfig):
    """testmini, 788 problems in 5 versions (docs: mathse/evaluation/benchmarks/mathverse.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathverse.MathVerse"
    prompt: Literal["query_wo", "query_cot", "plain", "student"] = Field(
        default="query_wo",
        description="Prompt of a problem. query_wo: the official prompt; student: the prompt of training.",
    )
    trunk_response: int = Field(
        default=30, ge=-1, description="Number of a response's last words that the extractor reads. -1: all."
    )


@dataclass(config=SETTINGS)
class MathVLTestConfig(BenchmarkRowsConfig):
    """Your own file of MathVL-test, which is not public (docs: mathse/evaluation/benchmarks/mathvl_test.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathvl_test.MathVLTest"
    prompt: Literal["zh", "plain", "student"] = Field(
        default="zh", description="Prompt of a problem. zh: the official prompt; student: the prompt of training."
    )


@dataclass(config=SETTINGS)
class WeMathConfig(BenchmarkRowsConfig):
    """testmini, 1,740 problems (docs: mathse/evaluation/benchmarks/wemath.py)."""

    _target_: str = "mathse.evaluation.benchmarks.wemath.WeMath"
    prompt: Literal["cot", "plain", "student"] = Field(
        default="cot", description="Prompt of a problem. cot: the official prompt; student: the prompt of training."
    )


@dataclass(config=SETTINGS)
class DynaMathConfig(BenchmarkRowsConfig):
    """501 seed questions in ten variants each (docs: mathse/evaluation/benchmarks/dynamath.py)."""

    _target_: str = "mathse.evaluation.benchmarks.dynamath.DynaMath"
    prompt: Literal["json", "plain", "student"] = Field(
        default="json", description="Prompt of a problem. json: the official prompt; student: the prompt of training."
    )


@dataclass(config=SETTINGS)
class LogicVistaConfig(BenchmarkRowsConfig):
    """448 problems of logical reasoning (docs: mathse/evaluation/benchmarks/logicvista.py)."""

    _target_: str = "mathse.evaluation.benchmarks.logicvista.LogicVista"
    prompt: Literal["question", "student"] = Field(
        default="question",
        description="Prompt of a problem. question: the official prompt; student: the prompt of training.",
    )


@dataclass(config=SETTINGS)
class MMMUProConfig(BenchmarkRowsConfig):
    """The problems of MMMU-Pro's subject Math (docs: mathse/evaluation/benchmarks/mmmu_pro.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mmmu_pro.MMMUPro"
    setting: Literal["standard_10", "standard_4", "vision"] = Field(
        default="standard_10",
        description="Setting of the problems: ten options, four options, or the whole question in the image.",
    )
    prompt: Literal["cot", "direct", "plain", "student"] = Field(
        default="cot", description="Prompt of a problem. cot: the official prompt; student: the prompt of training."
    )


@dataclass(config=SETTINGS)
class ORMTestConfig(Section):
    """Labelled paths, which the ORM of ``checkpoint`` judges (docs: mathse/evaluation/orm_test)."""

    _target_: str = "mathse.evaluation.orm_test.ORMTest"
    paths: str | None = Field(
        default=None,
        description="File of labelled paths: orm/orm_held.jsonl or feedback.jsonl of a run, or own rows "
        "(mathse/data/labelled_paths.py).",
    )
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Lowest P(correct) of an accepted path, which is also called correct."
    )


BENCHMARKS = (
    OwnBenchmarkConfig,
    MathVistaConfig,
    MathVisionConfig,
    MathVerseConfig,
    MathVLTestConfig,
    WeMathConfig,
    DynaMathConfig,
    LogicVistaConfig,
    MMMUProConfig,
    ORMTestConfig,
)
ROWS = ("problems", "images", "split")  # given to a benchmark's ``load``, all else to its constructor


@dataclass(config=SETTINGS)
class ScoringLLMConfig(Section):
    """Who extracts answers and judges where the official code asks an LLM (docs: mathse/inference/llm)."""

    model: str | None = Field(
        default=None,
        description="Name of the model. null: no LLM is asked, and metrics that need it are reported as not scored.",
    )
    base_url: str | None = Field(
        default=None,
        description="Address of an OpenAI-compatible server, up to and with /v1. null: the OpenAI API.",
    )
    api_key_env: str | None = Field(
        default="OPENAI_API_KEY",
        description="Environment variable that holds the API key. null: the server needs none.",
    )
    vision: bool = Field(
        default=False, description="The model reads images, so error types are judged with the images."
    )
    mode: Literal["online", "batch"] = Field(
        default="online",
        description="How requests are sent. batch: through the Batch API, at half the price, within a day.",
    )
    cache_dir: str = Field(
        default="outputs/.answers",
        description="Folder of answers by content. Runs share it, so no answer is paid twice.",
    )
    max_concurrency: int = Field(default=16, ge=1, description="Most requests in flight at a time.")
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Most requests per minute. null: the server's limit."
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="Most tokens per minute. null: the server's limit."
    )
    timeout: float = Field(default=300.0, gt=0, description="Time limit for a whole answer in seconds.")
    max_retries: int = Field(
        default=8, ge=0, description="Most retries of a failed request, with growing pauses between them."
    )
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        description="Most dollars that the evaluation may spend. It stops there. null: no limit.",
    )
    price_input: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million prompt tokens in dollars. null: the list price, where it is known.",
    )
    price_output: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million completion tokens in dollars. null: the list price, where it is known.",
    )


@dataclass(config=SETTINGS)
class RewardModelConfig(Section):
    """The ORM at test time: P(correct) of each sample, for selector=orm and orm_weighted."""

    checkpoint: str | None = Field(default=None, description="Folder of a trained ORM's checkpoint.")
    engine: Literal["hf", "vllm"] = Field(
        default="hf", description="Where the ORM runs. vllm: in the engine of generator=vllm; hf: in this process."
    )
    backbone: Annotated[Any, Option("backbone")] | None = Field(
        default=None, description="Backbone of the ORM. null: the student's backbone."
    )
    batch_size: int = Field(default=256, ge=1, description="Number of paths that are judged at a time.")
    max_new_tokens: int = Field(default=200, ge=1, description="Most tokens of the critique.")
