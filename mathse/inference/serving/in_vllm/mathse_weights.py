"""A vLLM worker that knows which weights it holds: ``--worker-extension-cls mathse_weights.NamedWeights``.

vLLM can load other weights in place, but cannot say which it has: its list of models goes by the name that it was
started with. Both methods are called through ``/collective_rpc``, on every worker of every replica. The file is found
through PYTHONPATH, so vLLM needs no mathse in its environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class NamedWeights:
    model_config: Any  # vLLM's worker has both
    reload_weights: Any

    def mathse_load(self, folder: str) -> str:
        """Load the weights of a served folder, whose name goes by their contents; that name."""
        self.__dict__["mathse_loaded"] = ""  # of a load that fails, nobody knows what it leaves
        self.reload_weights(weights_path=folder)
        self.__dict__["mathse_loaded"] = Path(folder).name
        return Path(folder).name

    def mathse_held(self) -> str:
        """The name of the weights; "" where they are not known, as after a sleep that drops them."""
        held: str = self.__dict__.setdefault("mathse_loaded", Path(str(self.model_config.model)).name)
        return held

    def mathse_forget(self) -> str:
        """To be called before a sleep that drops the weights."""
        self.__dict__["mathse_loaded"] = ""
        return ""
