"""The LLM that extracts and judges answers if the official code asks an LLM: any OpenAI-compatible endpoint.

Replies are cached by content, so a rerun costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mathse.config.evaluation import LLM as Settings
from mathse.inference.llm.client import ChatClient, ChatRequest


class ScoringLLM:
    """Implements ``mathse.evaluation.benchmark.LLM`` with a chat client, and records the values for the protocol.

    Args:
        settings: endpoint, budget and cache.
        model: name of the model.
        run: folder for the account of costs.
        say: called with a sentence before questions are sent.
    """

    def __init__(self, settings: Settings, model: str, run: Path, say: Callable[[str], None]) -> None:
        self.model, self._say = model, say
        self._versions: set[str] = set()
        self._client = ChatClient.of(settings, model, "llm")
        self._client.account_in(run)

    def ask(self, prompts: Sequence[str], version: str, max_tokens: int) -> list[str | None]:
        """Return a reply to each prompt, at temperature 0; None for a refusal, an empty answer or an error."""
        messages: list[list[dict[str, Any]]] = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return self.ask_messages(messages, version, max_tokens)

    def ask_messages(self, messages: Sequence[list[dict[str, Any]]], version: str, max_tokens: int) -> list[str | None]:
        """Return a reply to each conversation, as ``ask`` does. A conversation may have pictures."""
        if not messages:
            return []
        self._say(f"asking {self.model}: {len(messages):,} questions ({version})")
        self._versions.add(version)
        requests = [ChatRequest(m, temperature=0.0, max_tokens=max_tokens, prompt_version=version) for m in messages]
        replies = self._client.complete(requests)
        return [reply.text if reply.outcome in ("answered", "cut_off") and reply.text else None for reply in replies]

    def protocol(self) -> dict[str, Any]:
        """Return model, prompt versions, date, and the tokens and costs of the run's questions."""
        return {
            "model": self.model,
            "base_url": self._client.base_url,
            "prompt_versions": sorted(self._versions),
            "date": datetime.now(UTC).date().isoformat(),
            "usage": self._client.account.totals(),
        }
