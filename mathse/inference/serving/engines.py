"""How a server gets a checkpoint: it loads a folder, has it already, or loads an adapter.

A fourth way, an engine that is started for each checkpoint, is in started.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from mathse.errors import CheckpointError, TeacherError
from mathse.inference.serving.health_check import Address
from mathse.inference.serving.names import content_name, served_folder
from mathse.runs.layout import ADAPTER


class Engine(Protocol):
    def serve(self, checkpoint: Path, name: str) -> str:
        """The model's name in requests, once the server can answer with this checkpoint. ``name``: its
        ``content_name``."""

    def free(self) -> None:
        """Free the memory that a fit needs, where this run started the engine; the next ``serve`` brings it back."""

    def stop(self) -> None:
        """End the engine, where this run started it."""


class FolderEngine:
    """A server that loads the folder that a request names, on this machine, such as ``transformers serve``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def serve(self, checkpoint: Path, name: str) -> str:
        return str(served_folder(checkpoint, name, self.folder))

    def free(self) -> None:
        pass

    def stop(self) -> None:
        pass


class NamedEngine:
    """A server that has the checkpoint already, under the name ``model``."""

    def __init__(self, model: str) -> None:
        self.model = model

    def serve(self, checkpoint: Path, name: str) -> str:
        return self.model

    def free(self) -> None:
        pass

    def stop(self) -> None:
        pass


class AdapterEngine:
    """A running vLLM that has the base under the name ``model``; the adapters of LoRA fits on the base are loaded into
    it, each under a new name, and the one before is unloaded."""

    def __init__(self, address: Address, model: str, base: Path) -> None:
        self.address, self.model, self.base = address, model, base
        self._loaded: str | None = None

    def serve(self, checkpoint: Path, name: str) -> str:
        adapter = checkpoint / ADAPTER
        if not adapter.is_dir():
            if checkpoint.absolute() != self.base.absolute() and content_name(self.base) != name:
                raise CheckpointError(
                    f"{checkpoint}: has no adapter and is not the base, so {self.address.section}.adapters=true cannot "
                    f"serve it; pass sft.method=lora, or {self.address.section}.command"
                )
            return self.model

        # An adapter on other weights than the base's would be added to the wrong ones, without an error.
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        fitted_on = Path(adapter, str(config.get("base_model_name_or_path"))).resolve()
        if fitted_on != self.base.resolve() and not (
            fitted_on.is_dir() and content_name(fitted_on) == content_name(self.base)
        ):
            raise CheckpointError(
                f"{adapter}: was fitted on {fitted_on}, and the server has the base; with {self.address.section}."
                "adapters=true every fit starts from it: pass evolution.init=base evolution.reflect.init=base"
            )

        if name not in (self.address.models() or ()):
            lora = {"lora_name": name, "lora_path": str(adapter.absolute())}
            if (error := self.address.post("load_lora_adapter", lora)) is not None:
                raise TeacherError(
                    f"{self.address.setting} = {self.address.base_url}: does not load {adapter} ({error}); start "
                    "vLLM with --enable-lora, --max-lora-rank of sft.lora.rank and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                )
        before, self._loaded = self._loaded, name
        if before not in (None, name):
            self.address.post("unload_lora_adapter", {"lora_name": before})  # after an error vLLM drops the oldest
        return name

    def free(self) -> None:
        pass

    def stop(self) -> None:
        pass
