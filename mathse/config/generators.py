"""The generators: where students sample their paths, in this process, behind a server, or in a vLLM of the run's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import NO_IDENTITY, SETTINGS, Section

API_KEY_ENV = "Environment variable that holds the API key. null: the server needs none."
CACHE_DIR = "Folder of a served model's answers by content. Runs share it."
IMAGE_SIDE = "Longest side of a sent image in pixels. Smaller images are sent as they are."
RETRIES = "Most retries of a failed request, with growing pauses between them."
TOP_P = "Share of the probability mass that is sampled from."


@dataclass(config=SETTINGS)
class HFGeneratorConfig(Section):
    """Sampling in this process."""

    _target_: str = "mathse.inference.generate.HFGenerator"
    batch_size: int = Field(
        default=256, ge=1, description="Sequences per batch: problems times samples. A kill loses at most one batch."
    )
    temperature: float = Field(
        default=0.7,
        ge=0,
        description="Sampling temperature. 0: greedy. The paper gives none; R3V samples at 0.9, M-STaR at 1.0.",
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description=f"{TOP_P} The paper gives none.")
    top_k: int = Field(default=0, ge=0, description="Number of the most likely tokens that are sampled from. 0: all.")
    max_new_tokens: int = Field(
        default=80, ge=1, description="Most tokens of a path. evaluate.py reads evaluation.max_new_tokens instead."
    )


@dataclass(config=SETTINGS)
class ServerGeneratorConfig(Section):
    """Students answer behind an OpenAI-compatible server (docs: docs/serving.md).

    A run may go on with another value of a setting that is marked NO_IDENTITY: it changes no answer.
    """

    _target_: str = "mathse.inference.serving.student.ServerGenerator"
    base_url: str = Field(
        default="http://localhost:8000/v1",
        description="Address of the server, up to and with /v1.",
        json_schema_extra=NO_IDENTITY,
    )
    model: str | None = Field(
        default=None,
        description="Name of the served model. train.py needs none: each checkpoint has its own name.",
        json_schema_extra=NO_IDENTITY,
    )
    command: str | None = Field(
        default=None,
        description="Command that starts an engine for a checkpoint, with {checkpoint}, {name} and {port} in it "
        "(train.py).",
        json_schema_extra=NO_IDENTITY,
    )
    start_timeout: float = Field(
        default=900.0, gt=0, description="Seconds until a started engine must answer.", json_schema_extra=NO_IDENTITY
    )
    api_key_env: str | None = Field(default=None, description=API_KEY_ENV, json_schema_extra=NO_IDENTITY)
    style: Literal["compact", "full"] = Field(
        default="full",
        description="Style of the prompts of a benchmark with prompt=student (evaluate.py).",
        json_schema_extra=NO_IDENTITY,
    )
    batch_size: int = Field(
        default=64, ge=1, description="Problems per batch. Several batches are in flight, and each answer is kept."
    )
    temperature: float = Field(default=0.7, ge=0, description="Sampling temperature. 0: greedy.")
    top_p: float = Field(default=0.95, gt=0, le=1, description=TOP_P)
    max_new_tokens: int = Field(default=2048, ge=1, description="Most tokens of a path.")
    image_side: int = Field(default=4096, ge=28, description=IMAGE_SIDE)
    cache_dir: str = Field(default="outputs/.answers", description=CACHE_DIR, json_schema_extra=NO_IDENTITY)
    max_concurrency: int = Field(
        default=64, ge=1, description="Most requests in flight at a time.", json_schema_extra=NO_IDENTITY
    )
    timeout: float = Field(
        default=600.0, gt=0, description="Time limit for a whole answer in seconds.", json_schema_extra=NO_IDENTITY
    )
    max_retries: int = Field(default=8, ge=0, description=RETRIES, json_schema_extra=NO_IDENTITY)


@dataclass(config=SETTINGS)
class VLLMGeneratorConfig(Section):
    """Students, and with ``judge.engine=vllm`` the ORM, behind one vLLM that stays up (docs: docs/serving.md).

    Their weights are swapped in place. A setting that is marked NO_IDENTITY changes no answer.
    """

    _target_: str = "mathse.inference.serving.student.VLLMGenerator"
    base_urls: list[str] = Field(
        default_factory=list,
        description="Addresses of running servers, up to and with /v1. []: a server is started.",
        json_schema_extra=NO_IDENTITY,
    )
    program: str = Field(
        default="vllm",
        description="Program that starts the server; for another environment its path, such as /opt/vllm/bin/vllm.",
        json_schema_extra=NO_IDENTITY,
    )
    options: str = Field(
        default="",
        description="More options of `vllm serve`, split as a shell splits them.",
        json_schema_extra=NO_IDENTITY,
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        description="Number of replicas (--data-parallel-size). null: a replica for each GPU of this machine.",
        json_schema_extra=NO_IDENTITY,
    )
    sleep: bool | None = Field(
        default=None,
        description="Free the engine's memory during fine-tuning. null: true for an engine started here on CUDA.",
        json_schema_extra=NO_IDENTITY,
    )
    probe: int = Field(
        default=2,
        ge=0,
        description="Number of prompts after each swap of weights for which the engine's greedy answers are compared "
        "with the checkpoint's.",
        json_schema_extra=NO_IDENTITY,
    )
    start_timeout: float = Field(
        default=1800.0,
        gt=0,
        description="Seconds until an engine must answer that was started here, or was away for a while.",
        json_schema_extra=NO_IDENTITY,
    )
    api_key_env: str | None = Field(default=None, description=API_KEY_ENV, json_schema_extra=NO_IDENTITY)
    batch_size: int = Field(
        default=64, ge=1, description="Problems per batch, which is written at once. The engine gets all as one stream."
    )
    temperature: float = Field(default=0.7, ge=0, description="Sampling temperature. 0: greedy.")
    top_p: float = Field(default=0.95, gt=0, le=1, description=TOP_P)
    max_new_tokens: int = Field(default=2048, ge=1, description="Most tokens of a path.")
    image_side: int = Field(default=4096, ge=28, description=IMAGE_SIDE)
    cache_dir: str = Field(default="outputs/.answers", description=CACHE_DIR, json_schema_extra=NO_IDENTITY)
    max_concurrency: int = Field(
        default=256, ge=1, description="Most requests in flight at a server.", json_schema_extra=NO_IDENTITY
    )
    timeout: float = Field(
        default=1800.0, gt=0, description="Time limit for a whole answer in seconds.", json_schema_extra=NO_IDENTITY
    )
    max_retries: int = Field(default=8, ge=0, description=RETRIES, json_schema_extra=NO_IDENTITY)
