"""The requests that change what a running vLLM holds: load weights in place, empty its caches, sleep, wake.

vLLM answers them where it was started with ``VLLM_SERVER_DEV_MODE=1``. They know no password, so such a server listens
to this machine, or to a network that only trusted programs reach.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.errors import TeacherError
from mathse.inference.serving.address import Address

# After a swap all three: with the first alone the engine ends at the next picture ("Encoder cache miss").
CACHES = ("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache")
DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}
HOW_TO_START = (
    "start it with VLLM_SERVER_DEV_MODE=1 and the options of docs/serving.md, so that its weights can be swapped"
)


@dataclass(frozen=True)
class Control:
    """One vLLM server; with data parallelism a request reaches every replica."""

    address: Address

    def held(self) -> str | None:
        """The name of the weights that it holds; None where it does not know (see in_vllm/mathse_weights.py)."""
        try:
            names = set(self._collective("mathse_held"))
        except TeacherError:  # a server that was started without the extension
            return None
        return str(names.pop()) or None if len(names) == 1 else None

    def load(self, folder: Path) -> None:
        """Load the weights of a folder in place, and drop all that was computed with the ones before.

        Raises TeacherError where it cannot.
        """
        try:
            self._collective("mathse_load", folder=str(folder))
        except TeacherError as error:
            if self.held() is not None:  # it has the extension, so the folder is what is wrong
                raise
            try:
                self._collective("reload_weights", weights_path=str(folder))
            except TeacherError:
                raise error from None
        for cache in CACHES:
            self._post(cache)

    def sleep(self) -> None:
        """Give the memory back: weights and caches are dropped, so weights must be loaded after ``wake``."""
        if self.held() is not None:
            self._collective("mathse_forget")
        self._post("sleep?level=2")

    def wake(self) -> None:
        """Without effect on one that is awake."""
        self._post("wake_up")

    def asleep(self) -> bool:
        reply = self._ask("is_sleeping", None)
        return isinstance(reply, dict) and reply.get("is_sleeping") is True

    def _collective(self, method: str, **arguments: str) -> list[Any]:
        reply = self._post("collective_rpc", {"method": method, "kwargs": arguments})
        results = reply.get("results") if isinstance(reply, dict) else None
        return results if isinstance(results, list) else []

    def _post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask(path, body or {})

    def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        """The parsed reply. Raises TeacherError."""
        answer = self.address.at_root(path, body)
        if answer.error is not None:
            remedy = HOW_TO_START if answer.status in (404, 405) else "see its log"
            raise TeacherError(f"{self.address.base_url}: {path}: {answer.error}; {remedy}")
        try:
            return json.loads(answer.text) if answer.text.strip() else None
        except ValueError:
            return None
