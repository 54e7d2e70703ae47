"""A vLLM worker that knows which weights it holds: ``--worker-extension-cls mathse_weights.NamedWeights``.

vLLM can load other weights in place, but does not know which weights it holds: its list of models has the name from its
start. The methods are called through ``/collective_rpc`` on every worker of every replica. vLLM finds this file through
PYTHONPATH, so its environment needs no mathse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class NamedWeights:
    model_config: Any  # both attributes are of vLLM's worker
    reload_weights: Any

    def mathse_load(self, folder: str) -> str:
        """Load the weights of a served folder and return their name, which depends on their contents."""
        self.__dict__["mathse_loaded"] = ""  # a load that fails leaves unknown weights
        self.reload_weights(weights_path=folder)
        self.__dict__["mathse_loaded"] = Path(folder).name
        return Path(folder).name

    def mathse_held(self) -> str:
        """Return the name of the weights; "": unknown, as after a sleep that drops them."""
        held: str = self.__dict__.setdefault("mathse_loaded", Path(str(self.model_config.model)).name)
        return held

    def mathse_forget(self) -> str:
        """Forget the name; called before a sleep that drops the weights."""
        self.__dict__["mathse_loaded"] = ""
        return ""
