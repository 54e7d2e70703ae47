"""The loss of a fit: the plain cross-entropy, without its logits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import solved_rows, tiny_backbone
from torch import Tensor, nn

from mathse.training import loss
from mathse.training.loss import accumulate_cross_entropy, cross_entropy, cross_entropy_and_hits

TOKENS, WIDTH, VOCABULARY = 37, 16, 11_000  # more words than a block of the head's gradient has


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight tokens at once, so that 37 are four chunks and a ragged one."""
    monkeypatch.setattr(loss, "LOGITS_CHUNK_BYTES", 8 * 4 * VOCABULARY)


def parts(dtype: torch.dtype = torch.float32, bias: bool = False) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
    states = torch.randn(TOKENS, WIDTH).to(dtype).requires_grad_()
    return head, states, torch.randint(VOCABULARY, (TOKENS,))


def plain(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(states).float(), targets, reduction="sum")


def loss_and_gradients(
    measure: Callable[[nn.Module, Tensor, Tensor], Tensor],
    head: nn.Linear,
    states: Tensor,
    targets: Tensor,
    autocast: bool = False,
) -> list[Tensor]:
    head.weight.grad = states.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = measure(head, states, targets) / 7
    value.backward()  # type: ignore[no-untyped-call]
    return [value.detach(), *(g for g in (states.grad, head.weight.grad) if g is not None)]


@pytest.mark.parametrize(
    ("dtype", "autocast", "tolerance"),
    [(torch.float32, False, 1e-6), (torch.float32, True, 1e-2), (torch.bfloat16, False, 1e-2)],
    ids=["32-true", "bf16-mixed", "bf16-true"],
)
def test_the_loss_in_chunks_and_its_gradients_are_the_plain_ones(
    dtype: torch.dtype, autocast: bool, tolerance: float, in_chunks: None
) -> None:
    head, states, targets = parts(dtype)
    wanted = loss_and_gradients(plain, head, states, targets, autocast)
    got = loss_and_gradients(cross_entropy, head, states, targets, autocast)
    assert got[0].item() == pytest.approx(wanted[0].item(), rel=1e-5)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= tolerance * other.norm()


def test_in_half_precision_the_heads_gradient_is_summed_in_single_over_the_chunks(in_chunks: None) -> None:
    head, states, targets = parts(torch.bfloat16)
    exact = loss_and_gradients(plain, head.float(), states.detach().float().requires_grad_(), targets)[2]
    head, states, targets = parts(torch.bfloat16)
    in_half = loss_and_gradients(plain, head, states, targets)[2]
    in_chunks_ = loss_and_gradients(cross_entropy, head, states, targets)[2]
    assert (in_chunks_ - exact).norm() <= 1.1 * (in_half - exact).norm()


@pytest.mark.parametrize("autocast", [False, True], ids=["32-true", "bf16-mixed"])
def test_a_heads_gradient_is_added_up_over_micro_batches_in_one_tensor(autocast: bool, in_chunks: None) -> None:
    head, states, targets = parts()

    def two_passes(measure: Callable[[nn.Module, Tensor, Tensor, int], Tensor]) -> tuple[list[Tensor], set[int]]:
        head.weight.grad = states.grad = None
        values, places = [], set()
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                value = measure(head, states, targets, 7)
            value.backward()  # type: ignore[no-untyped-call]
            assert head.weight.grad is not None and states.grad is not None
            values.append(value.detach())
            places.add(head.weight.grad.data_ptr())
        return [*values, states.grad, head.weight.grad], places

    wanted, _ = two_passes(lambda *answered: cross_entropy(*answered[:3]) / answered[3])
    got, places = two_passes(accumulate_cross_entropy)
    assert len(places) == 1
    for one, other in zip(got, wanted, strict=True):
        assert (one - other).norm() <= 1e-6 * other.norm()


def test_without_gradients_nothing_is_added_to_a_heads(in_chunks: None) -> None:
    head, states, targets = parts()
    with torch.no_grad():
        accumulate_cross_entropy(head, states, targets, 7)
    accumulate_cross_entropy(head.requires_grad_(False), states, targets, 7).backward()  # type: ignore[no-untyped-call]
    assert head.weight.grad is None


def test_a_frozen_head_gets_no_gradient(in_chunks: None) -> None:
    head, states, targets = parts()
    wanted = loss_and_gradients(plain, head, states, targets)[1]
    head.requires_grad_(False)
    value, of_states = loss_and_gradients(cross_entropy, head, states, targets)
    assert (of_states - wanted).norm() <= 1e-6 * wanted.norm()


def test_a_head_tied_to_the_embeddings_adds_its_gradient_to_theirs(in_chunks: None) -> None:
    head, _, targets = parts()
    inputs = torch.randint(VOCABULARY, (TOKENS,))
    grads = []
    for measure in (plain, cross_entropy):
        head.weight.grad = None
        measure(head, F.embedding(inputs, head.weight), targets).backward()  # type: ignore[no-untyped-call]
        assert head.weight.grad is not None
        grads.append(head.weight.grad)
    assert (grads[0] - grads[1]).norm() <= 1e-6 * grads[0].norm()


def test_few_logits_are_computed_plainly_to_the_same_bits() -> None:
    head, states, targets = parts()
    wanted = loss_and_gradients(plain, head, states, targets)
    got = loss_and_gradients(cross_entropy, head, states, targets)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_no_token_is_no_loss() -> None:
    head, states, targets = parts()
    assert cross_entropy(head, states[:0], targets[:0]).item() == 0


def test_a_head_that_is_more_than_a_matrix_is_applied_whole_and_the_log_says_why(
    in_chunks: None, caplog: pytest.LogCaptureFixture
) -> None:
    loss._log_once.cache_clear()
    head, states, targets = parts(bias=True)
    wrapped = nn.Sequential(head)
    wrapped.out_features = VOCABULARY  # type: ignore[assignment]
    with caplog.at_level("INFO"):
        for _ in range(2):
            for whole in (head, wrapped):
                assert torch.equal(cross_entropy(whole, states, targets), plain(whole, states, targets))
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "the head has a bias",
        "the head is Sequential, not a plain nn.Linear",
    ]


def test_validation_counts_in_chunks_what_all_logits_would_show(in_chunks: None) -> None:
    head, states, targets = parts()
    with torch.no_grad():
        likeliest = head(states).argmax(-1)
    targets[::3] = likeliest[::3]
    value, hits = cross_entropy_and_hits(head, states, targets)
    assert value.item() == pytest.approx(plain(head, states, targets).item(), rel=1e-6)
    assert hits.item() == (likeliest == targets).sum().item() >= TOKENS // 3


def test_a_models_gradients_are_those_of_its_own_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    batch: dict[str, Any] = backbone.collate(solved_rows(backbone, 4))
    count = int((batch["labels"][:, 1:] != -100).sum())
    (backbone.model(**batch).loss * count).backward()
    wanted = {name: p.grad.clone() for name, p in backbone.model.named_parameters() if p.grad is not None}
    backbone.model.zero_grad()
    monkeypatch.setattr(loss, "LOGITS_CHUNK_BYTES", 4 * 4 * backbone.model.lm_head.out_features)
    cross_entropy(backbone.model.lm_head, *backbone.answer_states(batch)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in backbone.model.named_parameters():
        if name in wanted:
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, wanted[name], rtol=1e-4, atol=1e-5), name


PEAK = """
import torch
from torch import nn
from mathse.training.loss import cross_entropy

def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024

torch.set_num_threads(1)
head = nn.Linear(32, 151_936, bias=False).requires_grad_(False)
states = torch.randn(2048, 32, requires_grad=True)
targets = torch.randint(151_936, (2048,))
(states[:64] @ head.weight[:1000].T).sum().backward()  # loads what matrix products need
before = peak()
cross_entropy(head, states, targets).backward()
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
def test_the_loss_of_2048_tokens_over_152_000_words_takes_half_a_gibibyte_at_most(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=root, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 2**29


PEAK_OF_A_TRAINED_HEAD = """
import sys
import torch
from torch import nn
from mathse.training.loss import accumulate_cross_entropy, cross_entropy

def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024

torch.set_num_threads(1)
head = nn.Linear(896, 151_936, bias=False)
head.weight.grad = torch.zeros_like(head.weight).fill_(1.0)
states = torch.randn(256, 896, requires_grad=True)
targets = torch.randint(151_936, (256,))
(states[:64] @ head.weight[:1000].detach().T).sum().backward()  # loads what matrix products need
before = peak()
for _ in range(2):  # micro-batches
    if sys.argv[1] == "accumulated":
        loss = accumulate_cross_entropy(head, states, targets, 7)
    else:
        loss = cross_entropy(head, states, targets) / 7
    loss.backward()
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
def test_beside_the_gradient_of_a_trained_head_the_loss_takes_half_a_gibibyte_at_most(root: Path) -> None:
    taken = {}
    for measure in ("accumulated", "plain"):
        command = [sys.executable, "-c", PEAK_OF_A_TRAINED_HEAD, measure]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        taken[measure] = int(done.stdout)
    print({measure: f"{count / 2**30:.2f} GiB" for measure, count in taken.items()})
    assert 0 < taken["accumulated"] <= 2**29 < taken["plain"]  # autograd makes another gradient, of 0.51 GiB here
