"""``generator=vllm``: students behind the run's one vLLM (vllm_engine.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mathse.config.generators import VLLMGenerator as Settings
from mathse.config.schema import Trainer
from mathse.inference.generate import Generator
from mathse.inference.llm.client import ChatClient
from mathse.inference.serving.vllm_engine import VLLMEngine
from mathse.training.fit import device_of, dtype_of


class VLLMGenerator(Generator):
    """How the engine is started and reached, and how samples are drawn."""

    def __init__(self, settings: Settings) -> None:
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p}
        super().__init__(settings.batch_size, settings.max_new_tokens, sampling)
        self.settings = settings

    def engine(self, run: Path, trainer: Trainer, say: Callable[[str], None]) -> VLLMEngine:
        """The engine of a run, on the trainer's devices; it starts with the first request."""
        gpus = torch.cuda.device_count() if device_of(trainer).type == "cuda" else 0
        return VLLMEngine(self.settings, run, dtype_of(trainer), gpus, say)


def client_of(engine: VLLMEngine, model: str, section: str) -> ChatClient:
    """The client of a model at the engine, whoever asks; ``section``: for messages."""
    return ChatClient.of(engine.settings, model, section, base_url=engine.base_urls[0])
