"""Does an engine answer with a checkpoint's weights? A few greedy answers, token by token, beside the checkpoint's own.

A swap that loads half of a checkpoint, or another one, gives fluent answers. So after each swap the engine writes the
beginnings of a few answers, and their tokens and log-probabilities are compared with those of the checkpoint as it is
opened here. Two that are rightly the same differ by rounding: where they part, the two likeliest tokens are as close.
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

LENGTH = 16  # new tokens an answer
TOLERANCE = {"float32": 1e-2, "bfloat16": 0.5}  # of a token's log-probability, by what the engine computes in


@dataclass(frozen=True)
class Beginning:
    """The beginning of a greedy answer: the ids of its tokens, their log-probabilities, and how far behind the second
    likeliest was at each. ``prompt``: tokens; 0 in files of earlier versions."""

    row: Row
    tokens: list[int]
    log_probs: list[float]
    gaps: list[float]
    prompt: int = 0


@dataclass(frozen=True)
class Probe:
    """What a checkpoint's engine is probed with.

    Args:
        rows: the first prompts of the stage.
        whole: opens the checkpoint with its weights.
        greedy: the body of a request for a row's greedy answer, but for its model, its length and log-probabilities.
    """

    rows: Sequence[Row]
    whole: Callable[[], Backbone]
    greedy: Callable[[Row], dict[str, Any]]

    def beginnings(self, count: int, file: Path) -> list[Beginning]:
        """Those of the first ``count`` rows. The checkpoint is opened once, and ``file`` has them from then on, with
        the rows that they answer."""
        if file.exists():
            return [Beginning(**record) for record in read_json(file)]
        rows = self.rows[:count]
        made = _beginnings(self.whole(), rows)
        if all(isinstance(image, str) for row in rows for image in row["images"]):
            write_json(file, [asdict(beginning) for beginning in made])
        return made

    def compare(
        self, expected: Sequence[Beginning], address: Address, model: str, dtype: str, checkpoint: Path
    ) -> None:
        """Raises TeacherError where a server's greedy answers, as ``model``, are not the checkpoint's, or their prompts
        are not as long."""
        tolerance = TOLERANCE[dtype]
        options = {"model": model, "max_tokens": LENGTH, "temperature": 0.0}
        options |= {"logprobs": True, "return_tokens_as_token_ids": True}
        for beginning in expected:
            answered = address.chat({**self.greedy(beginning.row), **options})
            if answered.error is not None:
                raise TeacherError(f"{address.base_url}: refuses a greedy prompt after a swap ({answered.error})")
            reply = json.loads(answered.text)
            if beginning.prompt:
                length = reply.get("usage", {}).get("prompt_tokens", 0)
                compare_prompts(address, model, checkpoint, length, beginning.prompt)
            content = (reply["choices"][0].get("logprobs") or {}).get("content") or []
            by_server = [(int(token["token"].removeprefix("token_id:")), float(token["logprob"])) for token in content]
            by_checkpoint = zip(beginning.tokens, beginning.log_probs, beginning.gaps, strict=True)
            pairs = zip(by_server, by_checkpoint, strict=False)
            for k, ((token, log_prob), (own_token, own_log_prob, gap)) in enumerate(pairs, 1):
                if token != own_token and gap <= tolerance:
                    break  # a tie, to rounding
                if token != own_token or abs(log_prob - own_log_prob) > tolerance:
                    raise TeacherError(
                        f"{address.base_url}: does not answer as {checkpoint} does: token {k} of a greedy answer is "
                        f"{token} ({log_prob:.4f}), and the checkpoint's own is {own_token} ({own_log_prob:.4f}); see "
                        "the engine's log, and whether another run swaps weights in the same engine; generator.probe=0 "
                        "leaves this comparison out"
                    )


@torch.inference_mode()
def _beginnings(backbone: Backbone, rows: Sequence[Row]) -> list[Beginning]:
    backbone.model.eval()
    made = []
    for row, (completion,) in zip(rows, backbone.complete(rows, max_new_tokens=LENGTH), strict=True):
        encoded = backbone.encode([row])[0]
        extras = backbone.extras(encoded.prompt, completion.ids, encoded.features)
        answered = backbone.pad([Encoded(encoded.prompt, completion.ids, encoded.features, extras)])
        batch = {name: tensor.to(backbone.device) for name, tensor in answered.items()}
        logits, tokens = backbone.answer_logits(batch)  # (N, vocabulary), (N,)
        odds = torch.log_softmax(logits.float(), -1)
        odds[:, backbone.never_sampled] = -torch.inf
        best = odds.topk(2).values  # (N, 2)
        of_tokens = odds.gather(1, tokens[:, None])[:, 0]
        gaps = (best[:, 0] - best[:, 1]).tolist()
        made.append(Beginning(row, tokens.tolist(), of_tokens.tolist(), gaps, len(encoded.prompt)))
    return made


def compare_prompts(
    address: Address, model: str, checkpoint: Path, by_server: int, by_reader: int, instead: str = "generator=hf"
) -> None:
    """Raises TeacherError where a server and the local processor read a prompt as different numbers of tokens. A server
    that reports none (0) is trusted.

    Args:
        model: the server's name of the checkpoint.
        instead: the setting without a server.
    """
    if by_server not in (0, by_reader):
        raise TeacherError(
            f"{address.section}: {address.base_url}, asked for {model}, reads a prompt as {by_server} tokens, and the "
            f"processor of {checkpoint} reads it as {by_reader}; the server has another chat template or other picture "
            f"sizes (min_pixels, max_pixels): let it serve that folder with the folder's own, or pass {instead}"
        )
