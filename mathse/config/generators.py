"""The generators: where students sample their paths, in this process, behind a server, or in a vLLM of the run's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mathse.config.allow import allow


@dataclass
class HFGenerator:
    """Sampling in this process."""

    _target_: str = "mathse.inference.generate.HFGenerator"
    batch_size: int = allow(256, low=1)  # sequences a batch: problems times samples; a kill loses at most one batch
    temperature: float = allow(0.7, low=0)  # 0: greedy; PAPER: silent; R3V draws at 0.9, M-STaR at 1.0
    top_p: float = allow(1.0, above=0, high=1)  # share of the probability that is drawn from; PAPER: silent
    top_k: int = allow(0, low=0)  # likeliest tokens that are drawn from; 0: all
    max_new_tokens: int = allow(80, low=1)  # of a path, at most; evaluate.py: evaluation.max_new_tokens


@dataclass
class ServerGenerator:
    """Students answer behind an OpenAI-compatible server (docs: docs/serving.md).

    What ``HOW_STUDENTS_ARE_REACHED`` names changes no answer, so a run may go on with another value of it.
    """

    _target_: str = "mathse.inference.serving.student.ServerGenerator"
    base_url: str = "http://localhost:8000/v1"  # up to and with /v1
    model: str | None = None  # its name there; train.py: null, each checkpoint has a name of its own
    command: str | None = None  # train.py: what starts an engine, with {checkpoint}, {name} and {port} in it
    start_timeout: float = allow(900.0, above=0)  # seconds until a started engine answers
    api_key_env: str | None = None  # the environment variable with the key; null: the server wants none
    style: Literal["compact", "full"] = "full"  # evaluate.py: of the prompts with prompt=student
    batch_size: int = allow(64, low=1)  # problems a batch; several are asked at a time, and each answer is kept
    temperature: float = allow(0.7, low=0)  # 0: greedy
    top_p: float = allow(0.95, above=0, high=1)  # share of the probability that is drawn from
    max_new_tokens: int = allow(2048, low=1)  # of a path, at most
    image_side: int = allow(4096, low=28)  # pixels, long side of what is sent; smaller pictures go as they are
    cache_dir: str = "outputs/.answers"  # a served model's answers by content, shared by runs
    max_concurrency: int = allow(64, low=1)  # requests at a time, at most
    timeout: float = allow(600.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)  # of a request that failed, with growing pauses


@dataclass
class VLLMGenerator:
    """Students, and with ``judge.engine=vllm`` the ORM, behind one vLLM that stays up (docs: docs/serving.md).

    Their weights are swapped in place. What ``HOW_STUDENTS_ARE_REACHED`` names changes no answer.
    """

    _target_: str = "mathse.inference.serving.student.VLLMGenerator"
    base_urls: list[str] = field(default_factory=list)  # of running servers, up to and with /v1; []: one is started
    program: str = "vllm"  # what is started; of another environment its path: /opt/vllm/bin/vllm
    options: str = ""  # more options of `vllm serve`, split as a shell splits them
    replicas: int | None = allow(None, low=1)  # --data-parallel-size; null: a replica a GPU of this machine
    sleep: bool | None = None  # give the memory back during fits; null: where it was started here, on CUDA
    probe: int = allow(2, low=0)  # prompts after each swap whose greedy answers are compared with the checkpoint's own
    start_timeout: float = allow(1800.0, above=0)  # seconds until an engine answers: started here, or away for a while
    api_key_env: str | None = None  # the environment variable with the key; null: the servers want none
    batch_size: int = allow(64, low=1)  # problems a batch, which is written at once; all are one stream to the engine
    temperature: float = allow(0.7, low=0)  # 0: greedy
    top_p: float = allow(0.95, above=0, high=1)  # share of the probability that is drawn from
    max_new_tokens: int = allow(2048, low=1)  # of a path, at most
    image_side: int = allow(4096, low=28)  # pixels, long side of what is sent; smaller pictures go as they are
    cache_dir: str = "outputs/.answers"  # a served model's answers by content, shared by runs
    max_concurrency: int = allow(256, low=1)  # requests under way at a server
    timeout: float = allow(1800.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)  # of a request that failed, with growing pauses


HOW_STUDENTS_ARE_REACHED = (
    "base_url",
    "base_urls",
    "model",
    "command",
    "program",
    "options",
    "replicas",
    "sleep",
    "probe",
    "start_timeout",
    "api_key_env",
    "style",
    "cache_dir",
    "max_concurrency",
    "timeout",
    "max_retries",
)
