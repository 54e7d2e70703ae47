"""How a checkpoint gets behind the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from mathse.errors import CheckpointError, TeacherError
from mathse.inference.serving.names import content_name, served_folder
from mathse.inference.serving.reach import Address

ADAPTER = "adapter"  # in the checkpoint folder of a LoRA fit


class Engine(Protocol):
    def serve(self, checkpoint: Path, name: str) -> str:
        """What requests call the checkpoint from now on, once the server can answer as it. ``name``: its
        ``content_name``."""

    def free(self) -> None:
        """Give back the memory that a fit needs, where this engine is ours; the next ``serve`` starts anew."""


class FolderEngine:
    """A server that loads the folder that a request names, on this machine, such as ``transformers serve``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def serve(self, checkpoint: Path, name: str) -> str:
        return str(served_folder(checkpoint, name, self.folder))

    def free(self) -> None:
        pass


class NamedEngine:
    """A server that has been given the checkpoint, under the name ``model``."""

    def __init__(self, model: str) -> None:
        self.model = model

    def serve(self, checkpoint: Path, name: str) -> str:
        return self.model

    def free(self) -> None:
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
            self._require_base(checkpoint, name)
            return self.model
        self._require_on_base(adapter)
        if name not in (self.address.models() or ()):
            self._load(adapter, name)
        before, self._loaded = self._loaded, name
        if before not in (None, name):
            self.address.post("unload_lora_adapter", {"lora_name": before})  # if it will not, it drops the oldest
        return name

    def free(self) -> None:
        pass

    def _load(self, adapter: Path, name: str) -> None:
        said = self.address.post("load_lora_adapter", {"lora_name": name, "lora_path": str(adapter.absolute())})
        if said is not None:
            raise TeacherError(
                f"{self.address.setting} = {self.address.base_url}: does not load {adapter} ({said}); start "
                "vLLM with --enable-lora, --max-lora-rank of sft.lora.rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )

    def _require_base(self, checkpoint: Path, name: str) -> None:
        if checkpoint.absolute() != self.base.absolute() and content_name(self.base) != name:
            raise CheckpointError(
                f"{checkpoint}: has no adapter and is not the base, so {self.address.section}.adapters=true cannot "
                f"serve it; pass sft.method=lora, or {self.address.section}.command"
            )

    def _require_on_base(self, adapter: Path) -> None:
        """An adapter on other weights than the base's would be added to the wrong ones, without a word."""
        described = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        under = Path(adapter, str(described.get("base_model_name_or_path"))).resolve()
        if under != self.base.resolve() and not (under.is_dir() and content_name(under) == content_name(self.base)):
            raise CheckpointError(
                f"{adapter}: was fitted on {under}, and the server has the base; with {self.address.section}."
                "adapters=true every fit starts from it: pass evolution.init=base evolution.reflect.init=base"
            )
