"""Control requests to a running vLLM: load weights in place, empty its caches, sleep, wake.

vLLM answers them if it was started with ``VLLM_SERVER_DEV_MODE=1``. They require no password, so such a server must
listen only to this machine, or to a network that only trusted programs reach.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.errors import TeacherError
from mathse.inference.serving.address import Address

DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}  # environment of an engine that answers control requests


@dataclass(frozen=True)
class VLLMControl:
    """Controls one vLLM server; with data parallelism a request reaches every replica."""

    address: Address

    def read_held(self) -> str | None:
        """Return the name of the loaded weights; None: unknown to the server (see in_vllm/mathse_weights.py)."""
        try:
            names = set(self._call_workers("mathse_held"))
        except TeacherError:  # the server was started without the extension
            return None
        return str(names.pop()) or None if len(names) == 1 else None

    def load(self, folder: Path) -> None:
        """Load the weights of a folder in place, and empty all caches of the weights before.

        Raises TeacherError if the server cannot load them.
        """
        try:
            self._call_workers("mathse_load", folder=str(folder))
        except TeacherError as error:
            if self.read_held() is not None:  # the server has the extension, so the folder is at fault
                raise
            try:
                self._call_workers("reload_weights", weights_path=str(folder))
            except TeacherError:
                raise error from None
        # All three caches: with only the first reset, the engine ends at the next picture ("Encoder cache miss").
        for cache in ("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache"):
            self._request(cache, {})

    def sleep(self) -> None:
        """Free the GPU memory: weights and caches are dropped, so weights must be loaded after ``wake``."""
        if self.read_held() is not None:
            self._call_workers("mathse_forget")
        self._request("sleep?level=2", {})

    def wake(self) -> None:
        """Wake the server; no effect on a server that is awake."""
        self._request("wake_up", {})

    def is_asleep(self) -> bool:
        reply = self._request("is_sleeping", None)
        return isinstance(reply, dict) and reply.get("is_sleeping") is True

    def _call_workers(self, method: str, **arguments: str) -> list[Any]:
        """Call a method on every worker, and return their results."""
        reply = self._request("collective_rpc", {"method": method, "kwargs": arguments})
        results = reply.get("results") if isinstance(reply, dict) else None
        return results if isinstance(results, list) else []

    def _request(self, path: str, body: dict[str, Any] | None) -> Any:
        """POST ``body``, or GET without a body, and return the parsed reply. Raises TeacherError for an error."""
        reply = self.address.request_root(path, body)
        if reply.error is not None:
            remedy = "see its log"
            if reply.status in (404, 405):
                remedy = (
                    "start it with VLLM_SERVER_DEV_MODE=1 and the options of docs/serving.md, so that its weights can "
                    "be swapped"
                )
            raise TeacherError(f"{self.address.base_url}: {path}: {reply.error}; {remedy}")
        try:
            return json.loads(reply.text) if reply.text.strip() else None
        except ValueError:
            return None
