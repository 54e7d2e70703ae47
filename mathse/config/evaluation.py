"""The settings of evaluation: how a student is measured, in train.py too; for evaluate.py alone the benchmarks, the LLM
that extracts answers and judges, and the ORM that chooses among samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mathse.config.allow import allow


@dataclass
class Evaluation:
    batch_size: int = allow(512, low=1)  # problems that are answered at a time
    max_new_tokens: int = allow(80, low=1)  # of an answer, at most
    limit: int | None = allow(None, low=1)  # problems of the test set; null: all


@dataclass
class OwnBenchmark:
    """The test split of ``data``: the synthetic or own problems (docs: mathse/evaluation/own_benchmark.py)."""

    _target_: str = "mathse.evaluation.own_benchmark.OwnBenchmark"


@dataclass
class BenchmarkRows:
    """Where a benchmark's rows come from."""

    problems: str | None = None  # the official JSON or JSONL, or rows in our format, .gz too; null: the hub
    images: str | None = None  # the folder that image paths start from; null: the file's own
    split: str | None = None  # null: the benchmark's first


@dataclass
class MathVista(BenchmarkRows):
    """testmini, 1,000 problems (docs: mathse/evaluation/benchmarks/mathvista.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathvista.MathVista"
    prompt: Literal["query", "solution", "plain", "student"] = "query"  # official; student: the training's own
    rule: Literal["released", "strict"] = "released"  # strict: what the score files of 2023 obey
    quick_extract: bool = False  # the official switch: 'The answer is "x".' is read by rule
    ignore_empty: bool = False  # the official switch: an empty extraction picks no option


@dataclass
class MathVision(BenchmarkRows):
    """test, 3,040 problems; testmini, 304 of them (docs: mathse/evaluation/benchmarks/mathvision.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathvision.MathVision"
    prompt: Literal["cot", "direct", "plain", "student"] = "cot"  # the official one; student: the training's own


@dataclass
class MathVerse(BenchmarkRows):
    """testmini, 788 problems in 5 versions (docs: mathse/evaluation/benchmarks/mathverse.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathverse.MathVerse"
    prompt: Literal["query_wo", "query_cot", "plain", "student"] = "query_wo"  # official; student: the training's
    trunk_response: int = allow(30, low=-1)  # last words of a response that the extractor sees; -1: all


@dataclass
class MathVLTest(BenchmarkRows):
    """Your own file of MathVL-test, which is not public (docs: mathse/evaluation/benchmarks/mathvl_test.py)."""

    _target_: str = "mathse.evaluation.benchmarks.mathvl_test.MathVLTest"
    prompt: Literal["zh", "plain", "student"] = "zh"  # the official one; student: the training's own


@dataclass
class WeMath(BenchmarkRows):
    """testmini, 1,740 problems (docs: mathse/evaluation/benchmarks/wemath.py)."""

    _target_: str = "mathse.evaluation.benchmarks.wemath.WeMath"
    prompt: Literal["cot", "plain", "student"] = "cot"  # the official one; student: the training's own


@dataclass
class ORMTest:
    """Labelled paths, which the ORM of ``checkpoint`` judges (docs: mathse/evaluation/orm_test)."""

    _target_: str = "mathse.evaluation.orm_test.ORMTest"
    paths: str | None = None  # orm/orm_held.jsonl or feedback.jsonl of a run, own rows (mathse/data/labelled_paths.py)
    threshold: float = allow(0.5, low=0, high=1)  # accepted: called correct, and P(correct) at least this


BENCHMARKS = (OwnBenchmark, MathVista, MathVision, MathVerse, MathVLTest, WeMath, ORMTest)
ROWS = ("problems", "images", "split")  # given to a benchmark's ``load``, all else to its constructor


@dataclass
class LLM:
    """Who extracts answers and judges where the official code asks an LLM (docs: mathse/inference/llm)."""

    model: str | None = None  # null: nobody is asked, and what needs it is reported as not scored
    base_url: str | None = None  # of an OpenAI-compatible server, up to and with /v1; null: the OpenAI API
    api_key_env: str | None = "OPENAI_API_KEY"  # the environment variable with the key; null: the server wants none
    vision: bool = False  # the model reads pictures: error types are judged with them
    mode: Literal["online", "batch"] = "online"  # batch: the Batch API, half the price, within a day
    cache_dir: str = "outputs/.answers"  # by content, shared by runs: nothing is paid twice
    max_concurrency: int = allow(16, low=1)  # requests at a time, at most
    requests_per_minute: float | None = allow(None, above=0)  # at most; null: as the server allows
    tokens_per_minute: float | None = allow(None, above=0)  # at most; null: as the server allows
    timeout: float = allow(300.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)  # of a request that failed, with growing pauses
    budget_usd: float | None = allow(None, above=0)  # what the run may pay in all: a hard stop
    price_input: float | None = allow(None, low=0)  # dollars a million tokens; null: the list price, where it is known
    price_output: float | None = allow(None, low=0)  # the same for what it writes


@dataclass
class RewardModel:
    """The ORM at test time: P(correct) of each sample, for selector=orm and orm_weighted."""

    checkpoint: str | None = None  # a trained ORM's checkpoint folder
    engine: Literal["hf", "vllm"] = "hf"  # vllm: in the engine of generator=vllm; hf: in this process
    backbone: Any = None  # null: the student's backbone
    batch_size: int = allow(256, low=1)  # paths that are judged at a time
    max_new_tokens: int = allow(200, low=1)  # of its critique, at most
