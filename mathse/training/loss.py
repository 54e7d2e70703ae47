"""Cross-entropy of response tokens from their hidden states, without a logit for every token and word at once.

A vocabulary of 152,000 makes 0.6 MB of float32 logits a token. Written plainly, a loss over 2,048 tokens holds them,
their log-probabilities and their gradient: 3.5 to 4.1 GiB, often more than all layers keep. Here a chunk of tokens at a
time is taken through head, loss and gradient (of the states, and of the head where it trains) in the forward pass, so
nothing of a chunk is kept, and no logit is computed twice: the idea of Liger's fused linear cross-entropy (Hsu et al.
2024, arXiv 2410.10989), whose own kernel is used on CUDA where it is installed.

The gradient of a head that trains is as large as the head: 2.2 GB for Qwen2-VL-7B. Autograd would make one anew in each
micro-batch and add it to the last, so there would be two; ``added_up`` adds each chunk to ``head.weight.grad`` itself.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from mathse.config.extras import is_installed
from mathse.models.needs import LOGITS_AT_ONCE

VOCABULARY_BLOCK = 8192  # rows of the head whose gradient is added at a time in half precision


def added_up(head: Any, states: Tensor, targets: Tensor, normaliser: Tensor | float) -> Tensor:
    """``cross_entropy / normaliser`` of a loss whose ``backward()`` is called next, by itself: the gradient of a
    float32 head lies in ``head.weight.grad`` already, where the loss is in chunks."""
    return _cross_entropy(head, states, targets, normaliser) / normaliser


def cross_entropy(head: Any, states: Tensor, targets: Tensor) -> Tensor:
    """The sum of -log p(target) over N tokens: a scalar in float32.

    Args:
        head: the language model's head, (h) -> (vocabulary).
        states: (N, h), what the decoder hands to the head.
        targets: (N,), token ids.

    All at once, as ``F.cross_entropy(head(states).float(), targets)``, where the logits are few, or where the head is
    more than a matrix (an adapter on it, a bias, shards): the log says so.
    """
    return _cross_entropy(head, states, targets, None)


def _cross_entropy(head: Any, states: Tensor, targets: Tensor, normaliser: Tensor | float | None) -> Tensor:
    """``normaliser``: what the sum will be divided by; None where its gradient is left to autograd."""
    if len(states) > (at_once := tokens_at_once(head)):
        if (reason := not_a_matrix(head)) is not None:
            _say(f"the loss holds the logits of all response tokens of a micro-batch: {reason}")
        elif states.is_cuda and is_installed("liger"):
            _say("the loss is Liger's fused linear cross-entropy")
            return _liger()(head.weight, states, targets)
        else:
            weight, gradient, share = head.weight, None, 1.0
            trains = weight.requires_grad and torch.is_grad_enabled()
            if normaliser is not None and trains and weight.dtype == torch.float32:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                weight, gradient, share = weight.detach(), weight.grad, 1 / float(normaliser)
            return _ChunkedCrossEntropy.apply(states, weight, targets, at_once, gradient, share)
    return F.cross_entropy(head(states).float(), targets, reduction="sum")


@torch.no_grad()
def cross_entropy_and_hits(head: nn.Module, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """``cross_entropy``, and of how many tokens the target is the likeliest of all; two scalars, without a gradient."""
    loss, hits = torch.zeros((), device=states.device), torch.zeros((), device=states.device)
    at_once = tokens_at_once(head)
    for some, wanted in zip(states.split(at_once), targets.split(at_once), strict=True):
        logits = head(some).float()
        loss += F.cross_entropy(logits, wanted, reduction="sum")
        hits += (logits.argmax(-1) == wanted).sum()
    return loss, hits


def token_log_probs(head: Any, states: Tensor, targets: Tensor) -> Tensor:
    """log p(target) of each of N tokens, (N,) in float32, for a loss that weighs rows by what they come to.

    ``states`` and ``targets`` as in ``cross_entropy``. Where the logits are many, those of a chunk are computed once
    more in the backward pass, and none are kept until then.
    """

    def of_some(some: Tensor, wanted: Tensor) -> Tensor:
        return -F.cross_entropy(head(some).float(), wanted, reduction="none")

    if len(states) <= (at_once := tokens_at_once(head)):
        return of_some(states, targets)
    parts = zip(states.split(at_once), targets.split(at_once), strict=True)
    return torch.cat([checkpoint(of_some, some, wanted, use_reentrant=False) for some, wanted in parts])


def tokens_at_once(head: Any) -> int:
    """How many tokens' float32 logits fit into LOGITS_AT_ONCE."""
    return max(1, LOGITS_AT_ONCE // (4 * int(head.out_features)))


def not_a_matrix(head: Any) -> str | None:
    """Why the head cannot be taken for a matrix (vocabulary, h) that states are multiplied with; None if it can."""
    if type(head) is not nn.Linear:
        return f"the head is {type(head).__name__}, not nn.Linear alone"
    if isinstance(head.weight, DTensor):  # only a forward pass of the whole module has them gathered
        return "the head lies in shards"
    return None if getattr(head, "bias", None) is None else "the head has a bias"


class _ChunkedCrossEntropy(torch.autograd.Function):
    """(states, weight, targets, tokens at once) -> the loss, whose gradients the forward pass has already made; the
    weight's is added to ``gradient``, times ``share``, if there is one."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        at_once: int,
        gradient: Tensor | None,
        share: float,
    ) -> Tensor:
        device = states.device.type
        # as F.linear would: autocast's dtype under it, else the weights' own
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        # the sum over chunks is kept in float32, whatever the weights are
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), device=states.device)
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)  # (V, h)
            for start in range(0, len(states), at_once):
                span = slice(start, start + at_once)
                some, wanted = states[span].to(dtype), targets[span]  # (n, h), (n,)
                logits = F.linear(some, matrix).float()  # (n, V); from here on in place
                at_target = wanted[:, None]  # (n, 1)
                logits -= logits.amax(-1, keepdim=True)
                total -= logits.gather(-1, at_target).sum()
                sums = logits.exp_().sum(-1, keepdim=True)  # (n, 1)
                total += sums.log().sum()
                # d loss / d logits = p, and p - 1 at the target
                logits /= sums
                logits.scatter_add_(-1, at_target, logits.new_full(at_target.shape, -1.0))
                grad_logits = logits.to(dtype)
                del logits
                if grad_states is not None:
                    grad_states[span] = grad_logits @ matrix
                if grad_weight is not None:
                    _add_product(grad_weight, grad_logits, some)
                elif gradient is not None:
                    _add_product(gradient, grad_logits, some, share)
                del grad_logits
        ctx.grads = grad_states, None if grad_weight is None else grad_weight.to(weight.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        (grads, ctx.grads) = ctx.grads, None  # freed as soon as they are used up
        grad_states, grad_weight = (None if grad is None else grad.mul_(grad_outputs[0]) for grad in grads)
        return grad_states, grad_weight, None, None, None, None


def _add_product(total: Tensor, grad_logits: Tensor, states: Tensor, share: float = 1.0) -> None:
    """``total`` (V, h), float32, plus ``share`` times ``grad_logits`` (n, V) transposed times ``states`` (n, h)."""
    if states.dtype == total.dtype:
        total.addmm_(grad_logits.T, states, alpha=share)
        return
    for rows, grads in zip(total.split(VOCABULARY_BLOCK), grad_logits.split(VOCABULARY_BLOCK, 1), strict=True):
        # a block at a time: a half-precision product of all rows is as large as the head
        rows.add_(grads.T @ states, alpha=share)


@cache
def _liger() -> Any:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)


@cache
def _say(sentence: str) -> None:
    """Once a process."""
    logging.getLogger(__name__).info(sentence)
