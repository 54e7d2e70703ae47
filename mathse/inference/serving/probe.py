"""Compares a few greedy answers of an engine, token by token, with the answers of the checkpoint that it should hold.

A swap that loads half of a checkpoint, or another checkpoint, still gives fluent answers. So after each swap the engine
writes the beginnings of a few answers, and their tokens and log-probabilities are compared with those of the checkpoint
that is opened in this process. Equal weights differ by rounding: where two answers diverge, the two likeliest tokens
have nearly the same log-probability.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mathse.errors import TeacherError
from mathse.inference.serving.address import Address
from mathse.models.base import Backbone, Encoded
from mathse.models.row import Row
from mathse.runs.store import read_json, write_json

PROBE_TOKENS = 16  # new tokens per answer
LOG_PROB_TOLERANCE = {"float32": 1e-2, "bfloat16": 0.5}  # by the dtype in which the engine computes


@dataclass(frozen=True)
class GreedyPrefix:
    """The beginning of a greedy answer to ``row``."""

    row: Row
    tokens: list[int]  # ids
    log_probs: list[float]  # of each token
    gaps: list[float]  # log-probability of the likeliest token minus that of the second likeliest, at each token
    prompt: int = 0  # tokens; 0 in files of earlier versions


@dataclass(frozen=True)
class Probe:
    """The prompts and the checkpoint that an engine is compared with.

    Args:
        rows: the first prompts of the stage.
        whole: opens the checkpoint with its weights.
        greedy: returns the body of a request for a row's greedy answer, without model, length and log-probabilities.
    """

    rows: Sequence[Row]
    whole: Callable[[], Backbone]
    greedy: Callable[[Row], dict[str, Any]]

    def read_or_compute(self, count: int, file: Path) -> list[GreedyPrefix]:
        """Return the greedy prefixes of the first ``count`` rows. The checkpoint is opened once, and ``file`` keeps
        them with their rows."""
        if file.exists():
            return [GreedyPrefix(**record) for record in read_json(file)]
        rows = self.rows[:count]
        prefixes = _compute_prefixes(self.whole(), rows)
        if all(isinstance(image, str) for row in rows for image in row["images"]):
            write_json(file, [asdict(prefix) for prefix in prefixes])
        return prefixes

    def compare(
        self, expected: Sequence[GreedyPrefix], address: Address, model: str, dtype: str, checkpoint: Path
    ) -> None:
        """Compare a server's greedy answers with the checkpoint's.

        Args:
            expected: of the checkpoint.
            address: of the server.
            model: the server's name of the checkpoint.
            dtype: in which the engine computes, a key of ``LOG_PROB_TOLERANCE``.
            checkpoint: for messages.

        Raises:
            TeacherError: an answer differs, or a prompt has another length.
        """
        tolerance = LOG_PROB_TOLERANCE[dtype]
        options = {"model": model, "max_tokens": PROBE_TOKENS, "temperature": 0.0}
        options |= {"logprobs": True, "return_tokens_as_token_ids": True}
        for prefix in expected:
            http_reply = address.chat({**self.greedy(prefix.row), **options})
            if http_reply.error is not None:
                raise TeacherError(f"{address.base_url}: refuses a greedy prompt after a swap ({http_reply.error})")
            reply = json.loads(http_reply.text)
            if prefix.prompt:
                n_prompt_tokens = reply.get("usage", {}).get("prompt_tokens", 0)
                compare_prompts(address, model, checkpoint, n_prompt_tokens, prefix.prompt)

            # An answer may be shorter at the server, where it ends with the end-of-sequence token.
            content = (reply["choices"][0].get("logprobs") or {}).get("content") or []
            by_checkpoint = zip(prefix.tokens, prefix.log_probs, prefix.gaps, strict=True)
            for k, (entry, (own_token, own_log_prob, gap)) in enumerate(zip(content, by_checkpoint, strict=False), 1):
                token, log_prob = int(entry["token"].removeprefix("token_id:")), float(entry["logprob"])
                if token != own_token and gap <= tolerance:
                    break  # a tie up to rounding; the texts differ from here on
                if token != own_token or abs(log_prob - own_log_prob) > tolerance:
                    raise TeacherError(
                        f"{address.base_url}: does not answer as {checkpoint} does: token {k} of a greedy answer is "
                        f"{token} ({log_prob:.4f}), and the checkpoint's own is {own_token} ({own_log_prob:.4f}); see "
                        "the engine's log, and whether another run swaps weights in the same engine; generator.probe=0 "
                        "leaves this comparison out"
                    )


@torch.inference_mode()
def _compute_prefixes(backbone: Backbone, rows: Sequence[Row]) -> list[GreedyPrefix]:
    backbone.model.eval()
    prefixes = []
    for row, (completion,) in zip(rows, backbone.complete(rows, max_new_tokens=PROBE_TOKENS), strict=True):
        # Encode the prompt with its completion, and read the logits of the answer's N tokens.
        encoded = backbone.encode([row])[0]
        extras = backbone.extras(encoded.prompt, completion.ids, encoded.features)
        padded = backbone.pad([Encoded(encoded.prompt, completion.ids, encoded.features, extras)])
        batch = {name: tensor.to(backbone.device) for name, tensor in padded.items()}
        logits, tokens = backbone.answer_logits(batch)  # (N, vocabulary), (N,)
        log_probs = torch.log_softmax(logits.float(), -1)
        log_probs[:, backbone.never_sampled] = -torch.inf
        best = log_probs.topk(2).values  # (N, 2)
        of_tokens = log_probs.gather(1, tokens[:, None])[:, 0]  # (N,)
        gaps = (best[:, 0] - best[:, 1]).tolist()
        prefixes.append(GreedyPrefix(row, tokens.tolist(), of_tokens.tolist(), gaps, len(encoded.prompt)))
    return prefixes


def compare_prompts(
    address: Address, model: str, checkpoint: Path, by_server: int, by_reader: int, instead: str = "generator=hf"
) -> None:
    """Compare the numbers of tokens of a prompt.

    Args:
        address: of the server.
        model: the server's name of the checkpoint.
        checkpoint: for messages.
        by_server: the server's count; 0: it reports none, and is trusted.
        by_reader: the local processor's count.
        instead: the setting without a server, for messages.

    Raises:
        TeacherError: the counts differ.
    """
    if by_server not in (0, by_reader):
        raise TeacherError(
            f"{address.section}: {address.base_url}, asked for {model}, reads a prompt as {by_server} tokens, and the "
            f"processor of {checkpoint} reads it as {by_reader}; the server has another chat template or other picture "
            f"sizes (min_pixels, max_pixels): let it serve that folder with the folder's own, or pass {instead}"
        )
