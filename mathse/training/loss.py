"""Cross-entropy of response tokens from their hidden states, without holding all logits at once.

With a vocabulary of 152,000 words a token has 0.6 MB of float32 logits. A plain loss over 2,048 tokens holds the
logits, their log-probabilities and their gradient: 3.5 to 4.1 GiB, often more than the activations of all layers. Here
head, loss and gradient are computed for a chunk of tokens at a time. The forward pass computes both gradients, of the
states and of a head that trains, so nothing of a chunk is kept and no logit is computed twice. This is the idea of
Liger's fused linear cross-entropy (Hsu et al. 2024, arXiv 2410.10989); Liger's kernel is used on CUDA where it is
installed.

The gradient of a head that trains is as large as the head: 2.2 GB for Qwen2-VL-7B. Autograd makes a new gradient in
each micro-batch and adds it to the sum, so memory holds two. ``accumulate_cross_entropy`` adds each chunk's gradient to
``head.weight.grad`` directly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from mathse.config.extras import is_installed
from mathse.models.needs import LOGITS_CHUNK_BYTES

HEAD_ROWS_AT_ONCE = 8192  # words of the vocabulary in a half-precision product for the head's gradient

LogProbsOf = Callable[[Tensor, Tensor], Tensor]


def accumulate_cross_entropy(head: Any, states: Tensor, targets: Tensor, normaliser: Tensor | float) -> Tensor:
    """Return ``cross_entropy / normaliser``, and add the gradient of a float32 head to ``head.weight.grad``.

    The caller calls ``backward()`` on the result directly, without scaling it. Where the loss is computed in chunks,
    the head's gradient is complete before that call; elsewhere ``backward()`` adds it as usual.
    """
    return _cross_entropy(head, states, targets, normaliser) / normaliser


def cross_entropy(head: Any, states: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of -log p(target) over N tokens, a float32 scalar.

    Few logits are computed at once, as ``F.cross_entropy(head(states).float(), targets)``. So are the logits of a head
    that is more than a matrix (an adapter, a bias, shards), and the log has a line about it.

    Args:
        head: the language model's head, (h) -> (vocabulary).
        states: (N, h), the decoder's output at the positions that predict a response token.
        targets: (N,), token ids.
    """
    return _cross_entropy(head, states, targets, None)


def _cross_entropy(head: Any, states: Tensor, targets: Tensor, normaliser: Tensor | float | None) -> Tensor:
    """Return the sum. With a ``normaliser`` the head's gradient, divided by it, goes to ``head.weight.grad``; without
    it autograd has the head's gradient."""
    chunk_tokens = count_chunk_tokens(head)
    if len(states) <= chunk_tokens:
        return F.cross_entropy(head(states).float(), targets, reduction="sum")
    if (reason := explain_no_matrix(head)) is not None:
        _log_once(f"the loss holds the logits of all response tokens of a micro-batch: {reason}")
        return F.cross_entropy(head(states).float(), targets, reduction="sum")
    if states.is_cuda and is_installed("liger"):
        _log_once("the loss is Liger's fused linear cross-entropy")
        return _open_liger_loss()(head.weight, states, targets)

    weight, gradient, scale = head.weight, None, 1.0
    trains = weight.requires_grad and torch.is_grad_enabled()
    if normaliser is not None and trains and weight.dtype == torch.float32:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight, gradient, scale = weight.detach(), weight.grad, 1 / float(normaliser)
    return _ChunkedCrossEntropy.apply(states, weight, targets, chunk_tokens, gradient, scale)


@torch.no_grad()
def cross_entropy_and_hits(head: nn.Module, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``cross_entropy`` and the number of tokens with the target as the most likely word, two scalars.

    Neither has a gradient.
    """
    loss, hits = torch.zeros((), device=states.device), torch.zeros((), device=states.device)
    chunk_tokens = count_chunk_tokens(head)
    for chunk_states, chunk_targets in zip(states.split(chunk_tokens), targets.split(chunk_tokens), strict=True):
        logits = head(chunk_states).float()  # (n, V)
        loss += F.cross_entropy(logits, chunk_targets, reduction="sum")
        hits += (logits.argmax(-1) == chunk_targets).sum()
    return loss, hits


def token_log_probs(head: Any, states: Tensor, targets: Tensor, log_probs_of: LogProbsOf | None = None) -> Tensor:
    """Return log p(target) of each of N tokens, (N,) in float32, for a loss that weighs rows by their log-probability.

    Many logits are computed in chunks. The backward pass computes a chunk's logits again, so none are kept.

    Args:
        head, states, targets: as in ``cross_entropy``.
        log_probs_of: (logits, targets) of some tokens -> their log-probabilities; None: those of the model itself.
    """

    def compute_chunk(chunk_states: Tensor, chunk_targets: Tensor) -> Tensor:
        if log_probs_of is not None:
            return log_probs_of(head(chunk_states), chunk_targets)
        return -F.cross_entropy(head(chunk_states).float(), chunk_targets, reduction="none")

    chunk_tokens = count_chunk_tokens(head)
    if len(states) <= chunk_tokens:
        return compute_chunk(states, targets)
    chunks = zip(states.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    return torch.cat([checkpoint(compute_chunk, *chunk, use_reentrant=False) for chunk in chunks])


def count_chunk_tokens(head: Any) -> int:
    """Return the number of tokens with float32 logits that fit into LOGITS_CHUNK_BYTES bytes."""
    return max(1, LOGITS_CHUNK_BYTES // (4 * int(head.out_features)))


def explain_no_matrix(head: Any) -> str | None:
    """Return why the head is more than a matrix (vocabulary, h); None where it is a matrix."""
    if type(head) is not nn.Linear:
        return f"the head is {type(head).__name__}, not a plain nn.Linear"
    if isinstance(head.weight, DTensor):  # the weight is whole only in a forward pass of the whole module
        return "the head lies in shards"
    return None if getattr(head, "bias", None) is None else "the head has a bias"


class _ChunkedCrossEntropy(torch.autograd.Function):
    """(states, weight, targets, tokens of a chunk) -> the summed loss. The forward pass computes the gradients.

    With ``gradient`` the weight's gradient times ``scale`` is added to it, and autograd gets none for the weight.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        chunk_tokens: int,
        gradient: Tensor | None,
        scale: float,
    ) -> Tensor:
        device = states.device.type
        # The dtype of F.linear: autocast's under autocast, else the weight's.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        # The sum over chunks is float32, also for half-precision weights.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), device=states.device)
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)  # (V, h)
            for start in range(0, len(states), chunk_tokens):
                span = slice(start, start + chunk_tokens)
                chunk_states, chunk_targets = states[span].to(dtype), targets[span]  # (n, h), (n,)
                logits = F.linear(chunk_states, matrix).float()  # (n, V), changed in place from here on
                at_target = chunk_targets[:, None]  # (n, 1)

                # -log p(target) = log(sum of exp(logits)) - logit of the target, with the row's maximum subtracted.
                logits -= logits.amax(-1, keepdim=True)
                total -= logits.gather(-1, at_target).sum()
                sums = logits.exp_().sum(-1, keepdim=True)  # (n, 1)
                total += sums.log().sum()

                # The loss's gradient with respect to a logit is p, and p - 1 at the target.
                logits /= sums
                logits.scatter_add_(-1, at_target, logits.new_full(at_target.shape, -1.0))
                grad_logits = logits.to(dtype)
                del logits
                if grad_states is not None:
                    grad_states[span] = grad_logits @ matrix
                if grad_weight is not None:
                    _add_product(grad_weight, grad_logits, chunk_states)
                elif gradient is not None:
                    _add_product(gradient, grad_logits, chunk_states, scale)
                del grad_logits
        ctx.grads = grad_states, None if grad_weight is None else grad_weight.to(weight.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        (grads, ctx.grads) = ctx.grads, None  # each gradient is freed as soon as autograd has used it
        grad_states, grad_weight = (None if grad is None else grad.mul_(grad_outputs[0]) for grad in grads)
        return grad_states, grad_weight, None, None, None, None


def _add_product(total: Tensor, grad_logits: Tensor, states: Tensor, scale: float = 1.0) -> None:
    """Add ``scale * grad_logits.T @ states`` to ``total``: (n, V), (n, h) and (V, h), ``total`` in float32."""
    if states.dtype == total.dtype:
        total.addmm_(grad_logits.T, states, alpha=scale)
        return
    # A half-precision product of all rows would be as large as the head, so the rows come in blocks.
    for rows, grads in zip(total.split(HEAD_ROWS_AT_ONCE), grad_logits.split(HEAD_ROWS_AT_ONCE, 1), strict=True):
        rows.add_(grads.T @ states, alpha=scale)


@cache
def _open_liger_loss() -> Any:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)


@cache
def _log_once(sentence: str) -> None:
    """Log the sentence at most once per process."""
    logging.getLogger(__name__).info(sentence)
